"""Stem, downsampling, and the stages that hold the blocks. NCHW."""

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import calculate_drop_path_rates
from timm.models import checkpoint_seq
from torch import Tensor, fx, nn

from spanets.backbones.block import Block, Layer
from spanets.mixers.folding import fold_norm

MIN_SIZE = 32
"""Smallest image side: the stem's stride of 4, doubled by three downsamplings."""


def check_images(x: Tensor) -> Tensor:
    """Returns x after checking that it is a batch of large enough images.

    Raises:
        ValueError: x is not four-dimensional, or a side is below `MIN_SIZE`.
    """
    if x.ndim != 4:
        raise ValueError(f"input has shape {tuple(x.shape)}, must be (batch, channels, H, W)")
    height, width = x.shape[2:]
    if height < MIN_SIZE or width < MIN_SIZE:
        raise ValueError(
            f"image is {height}x{width} pixels, the smallest is {MIN_SIZE}x{MIN_SIZE}; resize it"
        )
    return x


# torch.fx must not trace into it: sizes are unknown in a symbolic trace.
fx.wrap("check_images")


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
        """Folds the norm's scale into the convolution, for inference."""
        if hasattr(self, "norm") and self.norm.bias is None:
            fold_norm(self.norm, self.conv)


class Stem(nn.Module):
    """Embeds overlapping patches: a 7×7 convolution of stride 4, then an optional norm."""

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
        return self.norm(self.conv(check_images(x)))


class Stage(nn.Module):
    """A downsampling layer (none in the first stage), then blocks."""

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
        depths: Number of blocks of each stage.
        mixers: Factory of the token mixers, one per stage.
        mlp: Factory of the MLPs.
        norm_layer: Factory of the blocks' norms.
        downsample_norm: Factory of the norm before each downsampling; None leaves it out.
        branch_scale: Branch scale of the blocks in the last two stages; the others have none.
        drop_path_rate: Drop path rate of the last block; grows linearly from 0.
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


OUTPUT_STRIDES = (8, 16, 32)


def dilate_stages(stages: nn.Sequential, output_stride: int) -> None:
    """Keeps the maps of the last stages at `output_stride`, by dilation instead of stride.

    A stage that would halve the map beyond it keeps the size; its convolutions, and those of later
    stages, skip as many positions as the map has more (DeepLab; Chen et al., 2017). Weights stay
    valid. Spectral filters act on the larger map: SPANet's low frequencies are the same cycles per
    image, since its radius counts cycles per map; SPANetV2's gains are resized, as for a larger
    image.

    Args:
        stages: The stages; the first has stride 4, and each of the others halves its input.
        output_stride: Largest stride of a map.

    Raises:
        ValueError: another stride than 8, 16 and 32.
    """
    if output_stride not in OUTPUT_STRIDES:
        allowed = ", ".join(map(str, OUTPUT_STRIDES))
        raise ValueError(f"output_stride is {output_stride}, allowed: {allowed}")
    stride, dilation = 4, 1
    for stage in list(stages)[1:]:
        assert isinstance(stage, Stage)
        _dilate(stage.downsample, dilation)
        if stride == output_stride:
            dilation *= 2
            for conv in _spatial_convs(stage.downsample):
                conv.stride = (1, 1)
        else:
            stride *= 2
        _dilate(stage.blocks, dilation)


def _dilate(module: nn.Module, dilation: int) -> None:
    for conv in _spatial_convs(module):
        conv.dilation = (dilation, dilation)
        conv.padding = tuple(dilation * (size // 2) for size in conv.kernel_size)


def _spatial_convs(module: nn.Module) -> list[nn.Conv2d]:
    found = [inner for inner in module.modules() if isinstance(inner, nn.Conv2d)]
    return [conv for conv in found if max(conv.kernel_size) > 1]
