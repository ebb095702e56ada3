"""Registered networks cut down to be run often, with weights at which nothing is near nothing.

The list of them is the registry's: a network that is registered tomorrow is tested tomorrow.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from spanets.backbones.spanet import VARIANTS as SPANET
from spanets.backbones.spanetv2 import VARIANTS as SPANETV2
from spanets.kernels.fused import set_fused

ROWS: dict[str, dict[str, Any]] = {**SPANET, **SPANETV2}

_NANO, _NANO_V2 = "spanet_nano", "spanetv2_nano_pure"

# Two stages have both radii of SPANet, and resize.
_SHORT = {
    _NANO: {"dims": (24, 48), "depths": (1, 1), "radii": (2, 1)},
    _NANO_V2: {"dims": (16, 32), "depths": (1, 1), "mixers": ("adaptive", "adaptive")},
}

OPTIONS: list[dict[str, Any]] = [
    {"spectral_method": "fft"},
    {"spectral_filter": False},
    {"aggregation": "hadamard"},
    {"ring": "none"},
    {"learn_balance": "gate", "learn_ring": True},
    {"learn_balance": "channel", "learn_ring": True},
]
OPTIONS_V2: list[dict[str, Any]] = [
    {"spectral_method": "matmul"},
    {"merge": "concatenated"},
    {"scaled_gate": True},
    {"img_size": (64, 96)},
    {"global_pool": "", "num_classes": 4},
    {"mixers": ("local_attention", "adaptive", "attention", "adaptive"), "dims": (32, 16, 64, 96)},
]
OPTIONS_OF_BOTH: list[dict[str, Any]] = [
    {"branch_scale": "layer_scale"},
    {"drop_rate": 0.1, "drop_path_rate": 0.1},
    {"output_norm": True, "features_only": True},
    {"global_pool": "max"},
    {"output_stride": 8},
]

TOGETHER: list[tuple[str, dict[str, Any]]] = [
    (_NANO, {**OPTIONS[0], **OPTIONS[4], **OPTIONS_OF_BOTH[0], **OPTIONS_OF_BOTH[1]}),
    (_NANO, {**OPTIONS[1], **OPTIONS[2], **OPTIONS_OF_BOTH[2]}),
    (_NANO, {**OPTIONS[3], "learn_balance": "channel", **OPTIONS_OF_BOTH[3], **OPTIONS_OF_BOTH[4]}),
    (_NANO_V2, {**OPTIONS_V2[0], **OPTIONS_V2[1], **OPTIONS_V2[2], **OPTIONS_OF_BOTH[3]}),
    (_NANO_V2, {**OPTIONS_V2[0], **OPTIONS_OF_BOTH[0], **OPTIONS_OF_BOTH[4]}),
    (_NANO_V2, {**OPTIONS_V2[3], **OPTIONS_V2[4], **OPTIONS_OF_BOTH[1]}),
    (_NANO_V2, {**OPTIONS_V2[5], **OPTIONS_OF_BOTH[2]}),
]
"""Every option in few networks: those that do not hide one another are set together."""

CHOICES = [
    *(pytest.param(*choice) for choice in TOGETHER),
    *(
        pytest.param(name, arguments, marks=pytest.mark.slow)
        for name, options in ((_NANO, OPTIONS), (_NANO_V2, OPTIONS_V2))
        for arguments in options + OPTIONS_OF_BOTH
    ),
]
"""Every option that changes what is computed, each with a network to try it on.

All in few networks in the default run, each alone in the slow one.
"""


def structures() -> list[str]:
    """The first of the networks that differ in more than their size."""
    first: dict[str, str] = {}
    for name, row in ROWS.items():
        rest = {key: value for key, value in row.items() if key not in ("dims", "depths", "init")}
        first.setdefault(f"{name.split('_')[0]} {rest}", name)
    return list(first.values())


def shallow(name: str, **arguments: Any) -> nn.Module:
    """A network with one block a stage, of the registered dimensions."""
    depths = (1,) * len(ROWS[name]["depths"])
    return stirred(timm.create_model(name, **{"depths": depths, "num_classes": 7, **arguments}))


def short(name: str, **arguments: Any) -> nn.Module:
    """A network with two stages of one block, unless the arguments tell of more."""
    size = {"depths": (1,) * 4} if "dims" in arguments else _SHORT[name]
    if arguments.get("features_only"):
        arguments = {"out_indices": (0, 1), **arguments}
    return stirred(timm.create_model(name, **{**size, "num_classes": 7, **arguments}))


def stirred(network: nn.Module, seed: int = 0) -> nn.Module:
    """Gives a network, evaluating, weights from a seed: no layer is an identity, no gain alike."""
    generator = torch.Generator().manual_seed(seed)
    if any(value.is_meta for value in network.parameters()):
        return network.eval()
    with torch.no_grad():
        for key, value in network.named_parameters():
            if key.endswith(("logits", "_logit")):  # gains from 0.02 to 0.98
                value.normal_(0, 2, generator=generator)
            elif value.ndim > 1:  # variance 1 / fan-in
                value.normal_(0, (len(value) / value.numel()) ** 0.5, generator=generator)
            elif key.endswith(("weight", "scale", "alpha")):
                value.uniform_(0.5, 1.5, generator=generator)
            else:
                value.uniform_(-0.5, 0.5, generator=generator)
    return network.eval()


@contextmanager
def plain_layers() -> Iterator[None]:
    """Has networks call their layers one by one, as symbolic traces do."""
    set_fused(False)
    try:
        yield
    finally:
        set_fused(True)


def images(*size: int, batch: int = 2) -> Tensor:
    """Images of noise, on which low frequencies lie as in photographs."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(batch, 3, *size, generator=generator)
    return noise + torch.randn(batch, 3, 1, 1, generator=generator)


def results(outputs: Any) -> list[Tensor]:
    """Logits, or maps, as a list."""
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def error(ours: Any, theirs: Any) -> float:
    """Largest difference over largest value, of logits or of each map."""
    ours, theirs = results(ours), results(theirs)
    assert [x.shape for x in ours] == [x.shape for x in theirs]
    pairs = zip(ours, theirs, strict=True)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
