"""SPANetV2: token mixers that learn a gain for every spatial frequency.

Paper: Spectral-Adaptive Modulation Networks for Visual Perception, Yun, Yoo, Kim, Lee and Kim,
TPAMI 2026, arXiv 2503.23947. The token mixers are `spanets.mixers.SpectralAdaptiveMixer` and, in
the hybrid variants' last two stages, `spanets.mixers.Attention`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import LayerNorm2d
from timm.models.metaformer import StarReLU
from torch import nn

from spanets.backbones.block import Layer
from spanets.backbones.heads import NormMlpHead
from spanets.backbones.layers import StarMlp, init_weight
from spanets.backbones.pyramid import PyramidBackbone
from spanets.backbones.registry import default_config, register_family
from spanets.backbones.stages import MIN_SIZE, Stem, make_stages
from spanets.mixers import Attention, SpectralAdaptiveMixer

__all__ = ["SPANetV2"]

PURE = ("adaptive", "adaptive", "adaptive", "adaptive")
HYBRID = ("adaptive", "adaptive", "local_attention", "attention")

_SIZES: dict[str, dict[str, Any]] = {
    "nano": {"dims": (16, 32, 64, 96), "depths": (2, 2, 4, 2)},
    # These four are the paper's; nano is ours.
    "s18": {"dims": (64, 128, 320, 512), "depths": (3, 3, 9, 3)},
    "s36": {"dims": (64, 128, 320, 512), "depths": (3, 12, 18, 3)},
    "m36": {"dims": (96, 192, 384, 576), "depths": (3, 12, 18, 3)},
    "b36": {"dims": (128, 256, 512, 768), "depths": (3, 12, 18, 3)},
}

# The ImageNet recipe sets the drop path rates.
VARIANTS: dict[str, dict[str, Any]] = {
    f"spanetv2_{size}_{kind}": {**row, "mixers": mixers}
    for size, row in _SIZES.items()
    for kind, mixers in (("pure", PURE), ("hybrid", HYBRID))
}

_LayerNorm = partial(LayerNorm2d, eps=1e-6, bias=False)


class SPANetV2(PyramidBackbone):
    """SPANetV2: stem, four stages of spectral-adaptive or attention blocks, MLP head.

    Accepts images of any size from 32 up. With `features_only=True` (timm's factory) it returns
    maps at strides 4, 8, 16 and 32.

    Args:
        in_chans: Image channels.
        num_classes: Number of classes; 0 leaves the classifier out.
        global_pool: timm's pooling name; "" keeps the map.
        dims: Embedding dimension of each stage.
        depths: Number of blocks of each stage.
        mixers: Token mixer of each stage: "adaptive", "local_attention" or "attention".
        img_size: Image side, or (height, width), that sets the size of the spectral filters.
            The filters are resized for images of other sizes.
        merge: Channel order of the mixers' heads: "interleaved" as in the released weights, or
            "concatenated" as in the authors' later code.
        scaled_gate: Whether the gate is `σ(α f)` with one learnt α per mixer, as in the paper's
            revision.
        spectral_method: "auto", "matmul" or "fft": ways to compute the same function.
        branch_scale: "res_scale", "layer_scale" or "none", in the last two stages.
        mlp_ratio: Ratio of the hidden to the embedding dimension, in the MLPs and the head.
        output_norm: Whether to use one LayerNorm per stage on the outputs of
            `forward_intermediates`, instead of the classifier's norm, as the backbones of the
            released detectors and segmenters do.
        output_stride: Largest stride of a map: 8, 16 or 32; see `dilate_stages`.
        drop_rate: Dropout rate before the last linear layer.
        drop_path_rate: Drop path rate of the last block; grows linearly from 0.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        dims: Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (3, 3, 9, 3),
        mixers: Sequence[str] = PURE,
        img_size: int | tuple[int, int] = 224,
        merge: str = "interleaved",
        scaled_gate: bool = False,
        spectral_method: str = "auto",
        branch_scale: str = "res_scale",
        mlp_ratio: float = 4.0,
        output_norm: bool = False,
        output_stride: int = 32,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not len(dims) == len(depths) == len(mixers):
            raise ValueError(
                f"dims, depths and mixers name {len(dims)}, {len(depths)} and {len(mixers)} stages"
            )
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.mixers = tuple(mixers)
        self.merge = merge
        self.scaled_gate = scaled_gate
        sizes = stage_sizes(img_size, len(dims))
        self.stem = Stem(in_chans, dims[0], _LayerNorm, **factory)
        self.stages = make_stages(
            dims,
            depths,
            [
                _mixer(kind, size, merge, scaled_gate, spectral_method)
                for kind, size in zip(mixers, sizes, strict=True)
            ],
            mlp=partial(StarMlp, ratio=mlp_ratio),
            norm_layer=_LayerNorm,
            downsample_norm=_LayerNorm,
            branch_scale=branch_scale,
            drop_path_rate=drop_path_rate,
            **factory,
        )
        norms = nn.ModuleList(_LayerNorm(dim, **factory) for dim in dims) if output_norm else None
        self.output_norms = norms
        self.norm = nn.Identity()  # the head has the norm, after the pooling
        self.head = NormMlpHead(
            dims[-1], num_classes, global_pool, mlp_ratio, drop_rate, not output_norm, **factory
        )
        self._finish(dims, num_classes, in_chans, output_stride)
        self._init_linear()

    def _init_linear(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                init_weight(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, StarReLU):  # has no `reset_parameters` of its own
                nn.init.ones_(module.scale)
                nn.init.zeros_(module.bias)


def stage_sizes(img_size: int | tuple[int, int], stages: int) -> list[tuple[int, int]]:
    """Returns the height and width of each stage's maps for images of this size.

    Raises:
        ValueError: a side is no whole number or below `MIN_SIZE`.
    """
    sides = tuple(img_size) if isinstance(img_size, Sequence) else (img_size, img_size)
    if len(sides) != 2 or not all(isinstance(n, int) and n >= MIN_SIZE for n in sides):
        raise ValueError(
            f"img_size is {img_size!r}, must be one or two sides from {MIN_SIZE} up, in whole "
            "pixels"
        )
    height, width = ((side - 3) // 4 + 1 for side in sides)
    sizes = [(height, width)]
    for _ in range(stages - 1):
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((height, width))
    return sizes


def _mixer(
    kind: str, map_size: tuple[int, int], merge: str, scaled_gate: bool, method: str
) -> Layer:
    mixers: dict[str, Layer] = {
        "adaptive": partial(
            SpectralAdaptiveMixer,
            map_size=map_size,
            merge=merge,
            scaled_gate=scaled_gate,
            spectral_method=method,
        ),
        "local_attention": partial(Attention, local_conv=True),
        "attention": Attention,
    }
    if kind not in mixers:
        raise ValueError(f"mixers has {kind!r}, allowed: {', '.join(mixers)}")
    return mixers[kind]


register_family(
    __name__,
    SPANetV2,
    VARIANTS,
    {name: default_config(name, "head.fc.fc2", 1.0) for name in VARIANTS},
)
