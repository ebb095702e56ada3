"""The layers that the families share: stem, downsampling, block, stage.

The MetaFormer block: norm, token mixer, norm, MLP, each half with a shortcut. Everything is NCHW. A
family file supplies mixer, norm and MLP.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.layers import DropPath, calculate_drop_path_rates, trunc_normal_
from timm.models import checkpoint_seq
from torch import Tensor, fx, nn

from spanets.layers import add_mlp, fuses_mlp, is_plain
from spanets.mixers.folding import fold_norm, fold_scale
from spanets.mixers.spam import add_spam, fuses_spam
from spanets.spectral.tracing import is_transformed

MIN_SIZE = 32
"""Smallest image side: four stages halve the stem's stride of 4 three times more."""

# Channels last, oneDNN runs 1×1 convolutions without reordering maps, a fifth of SPANet's time on
# the CPU (benchmarks/cpu_speed.py), and GPUs run what is made for that layout (benchmarks/gpu.py).
LAYOUT = torch.channels_last
LAYOUT_DEVICES = ("cpu", "cuda")

BRANCH_SCALES = ("res_scale", "layer_scale", "none")
LAYER_SCALE_INIT = 1e-5

# Deviation of the weights that the papers draw from a truncated normal distribution.
INIT_STD = 0.02

Layer = Callable[..., nn.Module]


def prepare_images(x: Tensor) -> Tensor:
    """Checks the shape of a batch of images and, on CPUs and CUDA GPUs, gives it the fast layout.

    Layers keep the layout of their input, so one change at the start is enough. On other devices
    the layout is the caller's choice.

    Raises:
        ValueError: a side is below `MIN_SIZE`, or x is no batch of images.
    """
    if x.ndim != 4:
        raise ValueError(f"input has shape {tuple(x.shape)}, must be (batch, channels, H, W)")
    height, width = x.shape[2:]
    if height < MIN_SIZE or width < MIN_SIZE:
        raise ValueError(
            f"image is {height}x{width} pixels, the smallest is {MIN_SIZE}x{MIN_SIZE}; resize it"
        )
    if x.device.type not in LAYOUT_DEVICES or is_transformed():
        return x
    return x.contiguous(memory_format=LAYOUT)


# A leaf of torch.fx: a symbolic trace has no size to compare.
fx.wrap("prepare_images")


def init_weight(weight: Tensor) -> None:
    """Draws a weight from the papers' truncated normal distribution, of deviation `INIT_STD`.

    The papers truncate at ±2, a hundred deviations, which in float32 meets nothing but rounding:
    one sample in some 10 million comes out infinite and is set to that bound, so that a few weights
    of a network would start at ±2. At six deviations such a sample is harmless. A weight without
    values, on the meta device, is left alone: to pretend would take half of a network's making.
    """
    if weight.is_meta:
        return
    trunc_normal_(weight, std=INIT_STD, a=-6 * INIT_STD, b=6 * INIT_STD)


class ChannelScale(nn.Module):
    """A learnt factor for each channel of NCHW maps, `scale` (C, 1, 1) as the maps broadcast."""

    def __init__(
        self,
        dim: int,
        init: float,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.init = init
        self.scale = nn.Parameter(torch.empty(dim, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets every factor to its initial value."""
        nn.init.constant_(self.scale, self.init)

    def forward(self, x: Tensor) -> Tensor:
        """Scales (B, C, H, W)."""
        return x * self.scale[:, None, None]


class Downsample(nn.Sequential):
    """Halves the resolution: an optional norm, then a 3×3 convolution of stride 2."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        norm_layer: Layer | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        if norm_layer is not None:
            self.norm = norm_layer(in_dim, **factory)
        self.conv = nn.Conv2d(in_dim, out_dim, 3, stride=2, padding=1, **factory)

    def reparameterize(self) -> None:
        """Folds the norm's factor into the convolution, for inference."""
        if hasattr(self, "norm") and self.norm.bias is None:
            fold_norm(self.norm, self.conv)


class Stem(nn.Module):
    """Cuts the image into overlapping patches of stride 4: a 7×7 convolution, an optional norm."""

    def __init__(
        self,
        in_chans: int,
        dim: int,
        norm_layer: Layer | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.conv = nn.Conv2d(in_chans, dim, 7, stride=4, padding=2, **factory)
        self.norm = nn.Identity() if norm_layer is None else norm_layer(dim, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (B, in_chans, H, W) to (B, C, (H - 3) // 4 + 1, (W - 3) // 4 + 1)."""
        return self.norm(self.conv(prepare_images(x)))


class Block(nn.Module):
    """`x ← s₁ ⊙ x + branch(mixer(norm(x)))`, `x ← s₂ ⊙ x + branch(MLP(norm(x)))`.

    ResScale is s on the shortcut, LayerScale a factor on the branch; either may be absent.
    """

    norm1: Any
    token_mixer: Any  # tells its `boundary_layers`
    norm2: Any
    mlp: Any  # has `fc1` and `fc2`

    def __init__(
        self,
        dim: int,
        mixer: Layer,
        mlp: Layer,
        norm_layer: Layer,
        branch_scale: str = "none",
        drop_path: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if branch_scale not in BRANCH_SCALES:
            raise ValueError(
                f"branch_scale is {branch_scale!r}, allowed: {', '.join(BRANCH_SCALES)}"
            )
        factory: dict[str, Any] = {"device": device, "dtype": dtype}

        def scale(kind: str, init: float) -> nn.Module:
            used = branch_scale == kind
            return ChannelScale(dim, init, **factory) if used else nn.Identity()

        self.norm1 = norm_layer(dim, **factory)
        self.token_mixer = mixer(dim, **factory)
        self.layer_scale1 = scale("layer_scale", LAYER_SCALE_INIT)
        self.res_scale1 = scale("res_scale", 1.0)
        self.drop_path1 = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = norm_layer(dim, **factory)
        self.mlp = mlp(dim, **factory)
        self.layer_scale2 = scale("layer_scale", LAYER_SCALE_INIT)
        self.res_scale2 = scale("res_scale", 1.0)
        self.drop_path2 = DropPath(drop_path) if drop_path else nn.Identity()

    def reparameterize(self) -> None:
        """Folds the norms' factors and offsets and the branches' scales, for inference."""
        readers, writer = self.token_mixer.boundary_layers()
        fold_norm(self.norm1, *readers)
        self.layer_scale1 = fold_scale(self.layer_scale1, writer)
        fold_norm(self.norm2, self.mlp.fc1)
        self.layer_scale2 = fold_scale(self.layer_scale2, self.mlp.fc2)

    def _is_shortcut(
        self, layer_scale: nn.Module, drop_path: nn.Module, res_scale: nn.Module
    ) -> bool:
        """Whether a half is `s ⊙ x + branch`, s a factor or 1, and nothing else."""
        # Paths that are dropped in an evaluated network estimate its uncertainty.
        drops = drop_path.training or not (
            is_plain(drop_path, nn.Identity) or is_plain(drop_path, DropPath)
        )
        scales = is_plain(res_scale, nn.Identity) or is_plain(res_scale, ChannelScale)
        return not drops and is_plain(layer_scale, nn.Identity) and scales

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        moments = None
        plain = self._is_shortcut(self.layer_scale1, self.drop_path1, self.res_scale1)
        if plain and fuses_spam(x, self.norm1, self.token_mixer):
            factor = getattr(self.res_scale1, "scale", None)
            x, moments = add_spam(x, self.norm1, self.token_mixer, factor)
        else:
            branch = self.drop_path1(self.layer_scale1(self.token_mixer(self.norm1(x))))
            x = self.res_scale1(x) + branch
        plain = self._is_shortcut(self.layer_scale2, self.drop_path2, self.res_scale2)
        if plain and fuses_mlp(x, self.norm2, self.mlp):
            factor = getattr(self.res_scale2, "scale", None)
            return add_mlp(x, self.norm2, self.mlp, factor, moments)
        branch = self.drop_path2(self.layer_scale2(self.mlp(self.norm2(x))))
        return self.res_scale2(x) + branch


class Stage(nn.Module):
    """A downsampling (the first stage has none) and its blocks."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', ceil(H / 2), ceil(W / 2)), or keeps H and W."""
        x = self.downsample(x)
        if self.grad_checkpointing:
            return checkpoint_seq(self.blocks, x)
        return self.blocks(x)


def make_stages(
    dims: Sequence[int],
    depths: Sequence[int],
    mixers: Sequence[Layer],
    mlp: Layer,
    norm_layer: Layer,
    downsample_norm: Layer | None = None,
    branch_scale: str = "none",
    drop_path_rate: float = 0.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Sequential:
    """Builds the stages of a network.

    Args:
        dims: Embedding dimension of each stage.
        depths: Blocks of each stage.
        mixers: Makes the token mixers of each stage.
        mlp: Makes the MLPs.
        norm_layer: Makes the norms of the blocks.
        downsample_norm: Makes the norm before each downsampling; None leaves it out.
        branch_scale: Of the blocks in the last two stages; the others have none.
        drop_path_rate: Of the last block; grows linearly from 0.
    """
    factory: dict[str, Any] = {"device": device, "dtype": dtype}
    rates: Any = calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True)
    stages = nn.Sequential()
    for i, (dim, depth) in enumerate(zip(dims, depths, strict=True)):
        down = Downsample(dims[i - 1], dim, downsample_norm, **factory) if i else nn.Identity()
        scale = branch_scale if i >= len(dims) - 2 else "none"
        blocks = [
            Block(dim, mixers[i], mlp, norm_layer, scale, rates[i][j], **factory)
            for j in range(depth)
        ]
        stages.append(Stage(down, blocks))
    return stages
