"""Renames parameters between version 0.1 of this package and the current one."""

import re

from spanets.mixers.context import rename_earlier
from spanets.weights.files import StateDict

_EARLIER = re.compile(r"(.*\btoken_mixer\.context\.)(?:weight|balance_logit|ring_logit)")


def is_earlier_name(key: str) -> bool:
    """Whether a parameter's name is one of version 0.1 that has since changed."""
    return _EARLIER.fullmatch(key) is not None


def rename_contexts(tensors: StateDict) -> StateDict:
    """Returns weights, or an optimizer's state for each weight, under their current names."""
    renamed = dict(tensors)
    for prefix in {found[1] for key in tensors if (found := _EARLIER.fullmatch(key))}:
        rename_earlier(renamed, prefix)
    return renamed


def earlier_name(key: str) -> str:
    """Returns the name in version 0.1 of a current parameter."""
    return re.sub(r"(\btoken_mixer\.context\.)(?:proj|filter)\.", r"\1", key)
