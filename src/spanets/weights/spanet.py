"""Converts state dicts of the authors' SPANet code to this package's names."""

import re
from collections.abc import Mapping, Sequence
from statistics import mode

import torch
from torch import Tensor

from spanets.mixers import BALANCES, chunk_sizes
from spanets.spectral import RING, low_frequency_mask
from spanets.weights.errors import WeightsError
from spanets.weights.files import StateDict

RADII = (2, 2, 1, 1)

# Covers float32 rounding; the nearest wrong mask (another ring) differs by 0.03.
MASK_TOLERANCE = 1e-6


def convert_spanet(
    state_dict: Mapping[str, Tensor],
    radii: Sequence[float] = RADII,
    balances: Sequence[float] = BALANCES,
    ring: float | None = RING,
) -> StateDict:
    """Renames a released SPANet state dict to this package's names.

    The released masks are constants. Each is compared with the mask that radius, balance and ring
    define, then dropped.

    Args:
        state_dict: Released classifier or detection backbone, without wrappers or prefixes.
        radii: Disc radius of each stage, in frequency bins.
        balances: λ of the gates.
        ring: ρ, at distance exactly the radius; None means `1 - λ`.

    Returns:
        A new dictionary; tensors that need no change are shared.

    Raises:
        WeightsError: unexpected key, a gate that is missing or has the wrong shape, or a wrong
            mask.
    """
    converted: StateDict = {}
    gates: dict[str, StateDict] = {}  # the parts of `pws`, by mixer
    for key, value in state_dict.items():
        if found := re.fullmatch(MASK, key):
            stage, gate = int(found[1]) // 2, int(found[2])
            if stage >= len(radii) or gate >= len(balances):
                raise WeightsError(f"unexpected key {key}, the model has no such gate")
            _check_mask(key, value, radii[stage], balances[gate], ring)
        elif found := re.fullmatch(_GATE, key):
            gates.setdefault(found[1], {})[found[2]] = value
        else:
            converted[_rename(key)] = value
    for mixer, parts in gates.items():
        context = _rename(f"{mixer}proj_in.weight").removesuffix("proj_in.weight") + "context."
        weight, bias = _merge_gates(f"{mixer}pws.", parts, len(balances))
        converted |= {f"{context}proj.weight": weight, f"{context}bias": bias}
    return converted


MASK = r"network\.([0246])\.\d+\.token_mixer\.sps\.(\d{1,3})\.filter"
_GATE = r"(network\.[0246]\.\d+\.token_mixer\.)pws\.(.+)"
# Parts of a block that keep their names; only the two convolutions are renamed.
_SAME = ("norm1", "norm2", "mlp.fc1", "mlp.fc2", "token_mixer.proj_in", "token_mixer.proj_out")
_IN_BLOCK = {
    **{name: name for name in (*_SAME, "res_scale1", "res_scale2")},
    "token_mixer.conv.0": "token_mixer.conv_row",
    "token_mixer.conv.1": "token_mixer.conv_column",
}
_OUTSIDE = {"patch_embed.proj": "stem.conv", "norm": "norm", "head": "head.fc"}


def _rename(key: str) -> str:
    """Returns our name of one released parameter.

    `network.{0,2,4,6}` are the stages, `network.{1,3,5}` the downsampling of stages 1, 2 and 3.
    """
    module, _, leaf = key.rpartition(".")
    ours = _OUTSIDE.get(module)
    if found := re.fullmatch(r"network\.([0246])\.(\d+)\.(.+)", module):
        name = _IN_BLOCK.get(found[3])
        ours = name and f"stages.{int(found[1]) // 2}.blocks.{found[2]}.{name}"
    elif found := re.fullmatch(r"network\.([135])\.proj", module):
        ours = f"stages.{(int(found[1]) + 1) // 2}.downsample.conv"
    elif found := re.fullmatch(r"norm([0246])", module):
        ours = f"output_norms.{int(found[1]) // 2}"
    if ours is None:
        raise WeightsError(f"unexpected key {key}, not part of a released SPANet")
    return f"{ours}.{leaf}"


def _merge_gates(prefix: str, parts: StateDict, count: int) -> tuple[Tensor, Tensor]:
    """Returns the gates' 1×1 convolutions side by side (C, C, 1, 1), and their biases (N, C)."""
    expected = [f"{i}.{kind}" for i in range(count) for kind in ("weight", "bias")]
    if missing := [part for part in expected if part not in parts]:
        raise WeightsError(f"missing key {prefix}{missing[0]}, one of {count} gates")
    if extra := sorted(parts.keys() - set(expected)):
        raise WeightsError(f"unexpected key {prefix}{extra[0]}, the model has {count} gates")
    dim = mode(value.shape[:1].numel() for value in parts.values())
    try:
        sizes = chunk_sizes(dim, count)
    except ValueError as error:
        raise WeightsError(f"{prefix}0.weight and the others: {error}") from None
    weights = [parts[f"{i}.weight"] for i in range(count)]
    biases = [parts[f"{i}.bias"] for i in range(count)]
    for i, size in enumerate(sizes):
        _check_shape(f"{prefix}{i}.weight", weights[i], (dim, size, 1, 1))
        _check_shape(f"{prefix}{i}.bias", biases[i], (dim,))
    return torch.cat(weights, dim=1), torch.stack(biases)


def _check_shape(key: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(value.shape) != shape:
        raise WeightsError(f"{key} has shape {tuple(value.shape)}, must be {shape}")


def _check_mask(key: str, mask: Tensor, radius: float, balance: float, ring: float | None) -> None:
    if mask.ndim != 3 or mask.shape[0] != 1 or mask.numel() == 0 or not mask.is_floating_point():
        raise WeightsError(f"{key} is {mask.dtype} {tuple(mask.shape)}, a mask is float (1, H, W)")
    _, height, width = mask.shape
    expected = low_frequency_mask(height, width, radius, balance, ring)
    error = (mask[0].float() - expected).abs().max().item()
    tolerance = max(MASK_TOLERANCE, torch.finfo(mask.dtype).eps)  # files may be in half precision
    if not error <= tolerance:  # NaN is an error, too
        raise WeightsError(
            f"{key} is off by {error:.3g} from the mask of radius {radius}, balance {balance} "
            f"and ring {ring if ring is None else round(ring, 4)}: another variant; create the "
            "model with its radii, balances and ring"
        )
