"""Converts state dicts of the authors' SPANetV2 code to this package's names."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from spanets.mixers import HEADS, merge_heads
from spanets.weights.errors import WeightsError
from spanets.weights.files import StateDict

_BLOCK = r"stages\.([0-3])\.(\d+)\.(.+)"
# The released weights have one filter per head; the authors' later code has one for all heads.
_HEAD_FILTER = r"(stages\.[0-3]\.\d+\.token_mixer\.)filter_(.+)"
_MERGED_FILTER = r"stages\.[0-3]\.\d+\.token_mixer\.filter"

_SAME = (
    *("norm1", "norm2", "mlp.fc1", "mlp.act", "mlp.fc2", "res_scale1", "res_scale2"),
    *(f"token_mixer.{name}" for name in ("proj.0", "proj.1", "proj.3", "proj_out")),
    *(f"token_mixer.{name}" for name in ("qkv", "local_conv", "proj")),
    *(f"token_mixer.local_convs.{i}" for i in range(HEADS)),
)
_IN_BLOCK = {
    **{name: name for name in _SAME},
    **{f"token_mixer.local_conv_{i + 1}": f"token_mixer.local_convs.{i}" for i in range(HEADS)},
    "token_mixer.query.0": "token_mixer.query",
    "token_mixer.ctx": "token_mixer.value",
    "token_mixer.scale": "token_mixer.filter",  # its alpha
}
_OUTSIDE = {
    "downsample_layers.0.conv": "stem.conv",
    "downsample_layers.0.post_norm": "stem.norm",
    **{f"downsample_layers.{i}.conv": f"stages.{i}.downsample.conv" for i in (1, 2, 3)},
    **{f"downsample_layers.{i}.pre_norm": f"stages.{i}.downsample.norm" for i in (1, 2, 3)},
    **{f"norm{i}": f"output_norms.{i}" for i in range(4)},
    "norm": "head.norm",
    **{f"head.{name}": f"head.fc.{name}" for name in ("fc1", "norm", "fc2")},
}


def convert_spanetv2(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Renames a released SPANetV2 state dict to this package's names.

    The names tell the merge order of a mixer's heads (`filter_1` to `filter_4`: interleaved; one
    `filter`: concatenated). The result records it under the key `merge.interleaved`.

    Args:
        state_dict: Released classifier or dense-prediction backbone, without wrappers or prefixes.

    Returns:
        A new dictionary; tensors that need no change are shared.

    Raises:
        WeightsError: unexpected key, or missing filter.
    """
    converted: StateDict = {}
    filters: dict[str, StateDict] = {}  # those of the heads, by mixer
    for key, value in state_dict.items():
        if found := re.fullmatch(_HEAD_FILTER, key):
            filters.setdefault(found[1], {})[found[2]] = value
        elif re.fullmatch(_MERGED_FILTER, key):
            mixer = _rename_mixer(key.removesuffix("filter"))
            converted |= _filter(mixer, value, interleaved=False)
        else:
            name = _rename(key)
            # Linear layers of the original are 1×1 convolutions here.
            as_conv = name.startswith("stages.") and value.ndim == 2
            converted[name] = value[:, :, None, None] if as_conv else value
    for released, heads in filters.items():
        mixer = _rename_mixer(released)
        if f"{mixer}filter.logits" in converted:
            raise WeightsError(f"{released}filter and {released}filter_1: one of them is too many")
        converted |= _filter(mixer, _merge_filters(released, heads), interleaved=True)
    return converted


def _filter(mixer: str, logits: Tensor, interleaved: bool) -> StateDict:
    return {
        f"{mixer}filter.logits": logits,
        f"{mixer}merge.interleaved": torch.tensor(interleaved, device=logits.device),
    }


def _merge_filters(prefix: str, heads: StateDict) -> Tensor:
    expected = [str(i + 1) for i in range(HEADS)]
    if missing := [head for head in expected if head not in heads]:
        raise WeightsError(f"missing key {prefix}filter_{missing[0]}, one of {HEADS} filters")
    if extra := sorted(heads.keys() - set(expected)):
        raise WeightsError(f"unexpected key {prefix}filter_{extra[0]}, a mixer has {HEADS} filters")
    first = heads["1"]
    for head in expected:
        if heads[head].shape != first.shape or first.ndim != 3:
            shapes = f"{tuple(heads[head].shape)}, {prefix}filter_1 {tuple(first.shape)}"
            raise WeightsError(
                f"{prefix}filter_{head} has shape {shapes}: must be the same (C, H, F)"
            )
    # Our filters are in the order of the merged channels.
    return merge_heads([heads[head][None] for head in expected], "interleaved")[0]


def _rename_mixer(prefix: str) -> str:
    _, stage, block, *_ = prefix.split(".")
    return f"stages.{stage}.blocks.{block}.token_mixer."


def _rename(key: str) -> str:
    """Returns our name of one released parameter, except filters."""
    module, _, leaf = key.rpartition(".")
    ours = _OUTSIDE.get(module)
    if found := re.fullmatch(_BLOCK, module):
        name = _IN_BLOCK.get(found[3])
        ours = name and f"stages.{found[1]}.blocks.{found[2]}.{name}"
    if ours is None:
        raise WeightsError(f"unexpected key {key}, not part of a released SPANetV2")
    return f"{ours}.{leaf}"
