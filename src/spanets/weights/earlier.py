"""Names that version 0.1 of this package gave to parameters, and today's."""

import re

from spanets.mixers.context import rename_earlier
from spanets.weights.files import StateDict

_EARLIER = re.compile(r"(.*\btoken_mixer\.context\.)(?:weight|balance_logit|ring_logit)")


def is_earlier_name(key: str) -> bool:
    """Whether a parameter is called as in version 0.1, and no longer."""
    return _EARLIER.fullmatch(key) is not None


def rename_contexts(tensors: StateDict) -> StateDict:
    """Returns tensors by name with today's names: weights, or what an optimizer keeps for each."""
    renamed = dict(tensors)
    for prefix in {found[1] for key in tensors if (found := _EARLIER.fullmatch(key))}:
        rename_earlier(renamed, prefix)
    return renamed


def earlier_name(key: str) -> str:
    """Returns what version 0.1 called a parameter of today."""
    return re.sub(r"(\btoken_mixer\.context\.)(?:proj|filter)\.", r"\1", key)
