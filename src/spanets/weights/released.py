"""Renames the authors' released state dicts to this package's names."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from spanets.mixers import BALANCES
from spanets.spectral import RING
from spanets.weights.files import StateDict
from spanets.weights.spanet import MASK, RADII, convert_spanet
from spanets.weights.spanetv2 import convert_spanetv2

_RELEASED_ONLY = r"(patch_embed|network|downsample_layers)\.|stages\.\d\.\d+\."


def is_official(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of the released code."""
    return _is_spanet(state_dict) or _is_spanetv2(state_dict)


def is_released_name(key: str) -> bool:
    """Whether a key exists only in the released code, not in ours."""
    return re.match(_RELEASED_ONLY, key) is not None


def is_mask(key: str) -> bool:
    """Whether a key of the released code is that of a constant mask, which ours compute."""
    return re.fullmatch(MASK, key) is not None


def _is_spanet(state_dict: Mapping[str, Tensor]) -> bool:
    return any(key.startswith(("patch_embed.", "network.")) for key in state_dict)


def _is_spanetv2(state_dict: Mapping[str, Tensor]) -> bool:
    return any(key.startswith("downsample_layers.") for key in state_dict)


def convert_official(
    state_dict: Mapping[str, Tensor],
    radii: Sequence[float] = RADII,
    balances: Sequence[float] = BALANCES,
    ring: float | None = RING,
) -> StateDict:
    """Renames a released state dict of either family to this package's names.

    It checks and drops SPANet's masks, see `convert_spanet`. It records SPANetV2's merge order in
    the state dict, see `convert_spanetv2`. A state dict with our names is returned unchanged.

    Args:
        state_dict: Released classifier or dense-prediction backbone, without wrappers or prefixes.
        radii: Disc radius of each SPANet stage, in frequency bins.
        balances: λ of SPANet's gates.
        ring: ρ of SPANet, at distance exactly the radius; None means `1 - λ`.

    Returns:
        A new dictionary; tensors that need no change are shared.

    Raises:
        WeightsError: unexpected key, a part that is missing or has the wrong shape, or a wrong
            mask.
    """
    if _is_spanet(state_dict):
        return convert_spanet(state_dict, radii, balances, ring)
    if _is_spanetv2(state_dict):
        return convert_spanetv2(state_dict)
    return dict(state_dict)
