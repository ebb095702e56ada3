"""Renames parameters between version 0.1 of this package and the current one."""

import re

from spanets.mixers.adaptive import rename_order
from spanets.mixers.context import rename_earlier
from spanets.weights.files import StateDict

_CONTEXT = re.compile(r"(.*\btoken_mixer\.context\.)(?:weight|balance_logit|ring_logit)")
_ORDER = re.compile(r"(.*\btoken_mixer\.)interleaved")


def is_earlier_name(key: str) -> bool:
    """Whether a tensor's name is one of version 0.1 that has since changed."""
    return any(pattern.fullmatch(key) for pattern in (_CONTEXT, _ORDER))


def rename_all(tensors: StateDict) -> StateDict:
    """Returns weights, or an optimizer's state for each weight, under their current names."""
    renamed = dict(tensors)
    for pattern, rename in ((_CONTEXT, rename_earlier), (_ORDER, rename_order)):
        for prefix in {found[1] for key in tensors if (found := pattern.fullmatch(key))}:
            rename(renamed, prefix)
    return renamed


def earlier_name(key: str) -> str:
    """Returns the name in version 0.1 of a current parameter."""
    return re.sub(r"(\btoken_mixer\.)(?:(context\.)(?:proj|filter)|merge)\.", r"\1\2", key)
