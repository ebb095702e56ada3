"""SPANet: a backbone whose token mixer balances low and high spatial frequencies.

Paper: SPANet: Frequency-balancing Token Mixer using Spectral Pooling Aggregation Modulation,
Yun, Yoo, Kim, Lee and Kim, ICCV 2023, arXiv 2308.11568. Section 3.3 describes the network, Table 1
its variants. The token mixer is `spanets.mixers.SPAM`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import GroupNorm1
from torch import nn

from spanets.backbones.heads import LinearHead
from spanets.backbones.layers import PointwiseMlp, init_weight
from spanets.backbones.pyramid import PyramidBackbone
from spanets.backbones.registry import default_config, register_family
from spanets.backbones.stages import Stem, make_stages
from spanets.mixers import BALANCES, SPAM, SpectralContext
from spanets.spectral import RING

__all__ = ["SPANet"]

# Sizes of small to basex: paper, Table 1. The ImageNet recipe sets the drop path rates.
VARIANTS: dict[str, dict[str, Any]] = {
    "spanet_nano": {"dims": (24, 48, 96, 128), "depths": (2, 2, 4, 2), "init": "fan_in"},
    "spanet_tiny": {"dims": (40, 80, 160, 256), "depths": (2, 2, 6, 2), "init": "fan_in"},
    "spanet_small": {"dims": (64, 128, 320, 512), "depths": (4, 4, 12, 4)},
    "spanet_medium": {"dims": (64, 128, 320, 512), "depths": (6, 6, 18, 6)},
    "spanet_mediumx": {"dims": (64, 128, 320, 512), "depths": (8, 8, 24, 8)},
    "spanet_base": {"dims": (96, 192, 384, 768), "depths": (6, 6, 18, 6)},
    "spanet_basex": {"dims": (96, 192, 384, 768), "depths": (8, 8, 24, 8)},
}

INITS = ("paper", "fan_in")

# Fraction of the image side that evaluation crops, from the released scripts.
CROP_PCT = {"spanet_base": 0.95, "spanet_basex": 0.95}


class SPANet(PyramidBackbone):
    """SPANet, section 3.3: stem, four stages of SPAM blocks, GroupNorm, linear head.

    Accepts images of any size from 32 up. With `features_only=True` (timm's factory) it returns
    maps at strides 4, 8, 16 and 32.

    Args:
        in_chans: Image channels.
        num_classes: Number of classes; 0 leaves the classifier out.
        global_pool: timm's pooling name; "" keeps the map.
        dims: Embedding dimension of each stage.
        depths: Number of blocks of each stage.
        radii: Radius of the low-frequency disc of each stage, in frequency bins.
        balances: λ of the gates.
        ring: ρ, the gain at distance exactly the radius. The released weights were trained with
            1/3; "none" or None means the paper's `1 - λ` (Eq. 16 and 18). Use "none" with
            `timm.create_model`, which drops arguments that are None.
        kernel_size: Kernel size of SPAM's two depth-wise convolutions.
        aggregation: "sum" or "hadamard" (Table 5).
        spectral_filter: False leaves the spectral pooling filter out (Table 5).
        spectral_method: "auto", "basis" or "fft": ways to compute the same function.
        learn_balance: "gate" or "channel" to learn one λ for each, starting from `balances`; None
            keeps λ fixed.
        learn_ring: Whether to learn ρ as well.
        branch_scale: "res_scale", "layer_scale" or "none", in the last two stages (Table 5).
        mlp_ratio: Ratio of the MLP's hidden to its embedding dimension.
        init: "paper" (deviation 0.02), or "fan_in" (deviation 1/√fan-in for every convolution).
            0.02 suits some 2,500 inputs; in narrow networks it makes the MLPs' initial output
            almost zero. The effect on accuracy is open: benchmarks/results/README.md.
        output_norm: Whether to use one GroupNorm per stage on the outputs of
            `forward_intermediates`, instead of the classifier's norm, as the backbones of the
            released detectors and segmenters do.
        output_stride: Largest stride of a map: 8, 16 or 32; see `dilate_stages`.
        drop_rate: Dropout rate before the classifier.
        drop_path_rate: Drop path rate of the last block; grows linearly from 0.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        dims: Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (4, 4, 12, 4),
        radii: Sequence[float] = (2, 2, 1, 1),
        balances: Sequence[float] = BALANCES,
        ring: float | str | None = RING,
        kernel_size: int = 7,
        aggregation: str = "sum",
        spectral_filter: bool = True,
        spectral_method: str = "auto",
        learn_balance: str | None = None,
        learn_ring: bool = False,
        branch_scale: str = "res_scale",
        mlp_ratio: float = 4.0,
        init: str = "paper",
        output_norm: bool = False,
        output_stride: int = 32,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not len(dims) == len(depths) == len(radii):
            raise ValueError(
                f"dims, depths and radii name {len(dims)}, {len(depths)} and {len(radii)} stages"
            )
        if isinstance(ring, str):
            if ring != "none":
                raise ValueError(f"ring is {ring!r}, allowed: a number or 'none'")
            ring = None
        if init not in INITS:
            raise ValueError(f"init is {init!r}, allowed: {', '.join(INITS)}")
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.init = init
        self.radii = tuple(radii)
        self.balances = tuple(balances)
        self.ring = ring
        mixers = [
            partial(
                SPAM,
                kernel_size=kernel_size,
                radius=radius,
                balances=balances,
                ring=ring,
                aggregation=aggregation,
                spectral_filter=spectral_filter,
                method=spectral_method,
                learn_balance=learn_balance,
                learn_ring=learn_ring,
            )
            for radius in radii
        ]
        self.stem = Stem(in_chans, dims[0], **factory)
        self.stages = make_stages(
            dims,
            depths,
            mixers,
            mlp=partial(PointwiseMlp, ratio=mlp_ratio),
            norm_layer=GroupNorm1,
            branch_scale=branch_scale,
            drop_path_rate=drop_path_rate,
            **factory,
        )
        norms = nn.ModuleList(GroupNorm1(dim, **factory) for dim in dims) if output_norm else None
        self.output_norms = norms
        self.norm = nn.Identity() if output_norm else GroupNorm1(dims[-1], **factory)
        self.head = LinearHead(dims[-1], num_classes, global_pool, drop_rate, **factory)
        self._finish(dims, num_classes, in_chans, output_stride)
        self._init_linear()

    def _init_linear(self) -> None:
        # The paper's code keeps torch's default initialisation for mixers and downsampling.
        mlps = [module for module in self.modules() if isinstance(module, PointwiseMlp)]
        classifier = getattr(self.head, "fc", None)
        for layer in [classifier, *(layer for mlp in mlps for layer in (mlp.fc1, mlp.fc2))]:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                assert layer.bias is not None
                init_weight(layer.weight)
                nn.init.zeros_(layer.bias)
        if self.init == "fan_in":
            self._init_by_fan_in()

    def _init_by_fan_in(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            if isinstance(module, nn.Conv2d | SpectralContext) and module.bias is not None:
                nn.init.zeros_(module.bias)


register_family(
    __name__,
    SPANet,
    VARIANTS,
    {name: default_config(name, "head.fc", CROP_PCT.get(name, 0.9)) for name in VARIANTS},
)
