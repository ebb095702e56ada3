"""Layers that both families use, in the form that each device runs fast; the function is the same.

On a GPU, channels-last maps are rows of pixels: a 1×1 convolution is a matrix product, whose
library adds the bias on the way, and a norm reads contiguous memory. Elsewhere torch's own layers
run.

Shape legend: `B` images, `C` channels in, `D` out, `H W` map size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import GroupNorm1
from torch import Tensor, fx, nn
from torch.nn.modules import module as torch_module

from spanets import kernels
from spanets.spectral.tracing import runs_on_pixels


def pointwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolves (B, C, H, W) with (D, C, 1, 1) and (D,) to (B, D, H, W), in the layout of x."""
    if runs_on_pixels(x):
        return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
    return F.conv2d(x, weight, bias)


def block_diagonal(weight: Tensor, groups: int) -> Tensor:
    """Returns the (D, C, 1, 1) weight that does what (D, C / G, 1, 1) does in G groups."""
    outputs, width = weight.shape[:2]
    of_output = torch.arange(outputs, device=weight.device) // (outputs // groups)
    of_input = torch.arange(groups * width, device=weight.device) // width
    full = weight.flatten(1).repeat(1, groups)
    full = torch.where(of_output[:, None] == of_input, full, 0)
    return full[:, :, None, None]


def grouped_pointwise_conv(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Convolves (B, C, H, W) with (D, C / G, 1, 1), group by group, to (B, D, H, W).

    On a GPU a product with the zeros between the groups is bound by memory, as a grouped one is,
    and a library's kernels for narrow groups take ten times as long (benchmarks/results/gpu.json).
    """
    if runs_on_pixels(x):
        return pointwise_conv(x, block_diagonal(weight, groups), None)
    return F.conv2d(x, weight, groups=groups)


def normalize_maps(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Normalises each image's maps (B, C, H, W) by their common mean and variance.

    GroupNorm of one group: `γ (x - μ) / √(σ² + ε) + β`, γ and β (C,) or None.
    """
    if not runs_on_pixels(x):
        learns = weight is not None and weight.requires_grad and torch.is_grad_enabled()
        if learns and not x.requires_grad:
            # Up to torch 2.13 the backward pass crashes the process where maps in channels_last
            # need no gradient: it writes one without memory for it.
            x = x.contiguous()
        return F.group_norm(x, 1, weight, bias, eps)
    # A group of all channels is the same set of numbers in any order: as they lie in memory, they
    # are read in one stretch, which torch's kernels and compiler do not see by themselves.
    pixels = x.permute(0, 2, 3, 1)  # B H W C
    rows = pixels.flatten(1)
    out = F.layer_norm(rows, rows.shape[1:], eps=eps).view(pixels.shape)
    if weight is not None:
        out = out * weight
    if bias is not None:
        out = out + bias
    return out.permute(0, 3, 1, 2)


def gelu_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Computes `W GELU(x) + b`; on a GPU the activated maps are not kept for the gradient.

    Args:
        x: (B, D, H, W).
        weight: W, (C, D, 1, 1).
        bias: b, (C,).

    Returns:
        (B, C, H, W).
    """
    if kernels.takes_with_product(x):
        return kernels.gelu_linear(x, weight.flatten(1).to(x.dtype), bias.to(x.dtype))
    return pointwise_conv(F.gelu(x), weight, bias)


# Leaves of torch.fx: they look at layouts, which a symbolic trace knows nothing of.
fx.wrap("grouped_pointwise_conv")
fx.wrap("pointwise_conv")
fx.wrap("normalize_maps")


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a kernel may stand for a module: it is of this very class, and nothing waits for it.

    Adapters and the like put modules of their own in the place of layers, or a method of their own
    in the place of `forward`; quantizers put tensors of their own in the place of weights; hooks
    may be those of one module, or of all.
    """
    watched = (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
    )
    if type(module) is not kind or watched or "forward" in module.__dict__:
        return False
    own = (value for value in module._parameters.values() if value is not None)
    return all(type(value) in (Tensor, nn.Parameter) for value in own)


def calls_layers(x: Tensor, *layers: tuple[nn.Module, type[nn.Module]]) -> bool:
    """Whether layers are called as such: off the GPU, and where one is another or watched.

    A symbolic trace records the calls: what reads it, such as a quantizer, looks for layers.

    Args:
        x: Maps that they get.
        layers: Each with the class that it has where nobody touched it.
    """
    on_gpu = isinstance(x, Tensor) and kernels.takes(x)
    return not on_gpu or not all(is_plain(layer, kind) for layer, kind in layers)


class PointwiseConv(nn.Conv2d):
    """A 1×1 convolution.

    Args:
        in_channels: C.
        out_channels: D.
        bias: Add a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(in_channels, out_channels, 1, bias=bias, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, D, H, W)."""
        return pointwise_conv(x, self.weight, self.bias)


class GroupedPointwiseConv(nn.Conv2d):
    """A 1×1 convolution in groups, without a bias.

    Args:
        in_channels: C.
        out_channels: D.
        groups: G, divides both.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(in_channels, out_channels, 1, groups=groups, bias=False, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, D, H, W)."""
        return grouped_pointwise_conv(x, self.weight, self.groups)


class MapNorm(GroupNorm1):
    """GroupNorm of one group: each image is normalised over channels and positions together."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (B, C, H, W)."""
        return normalize_maps(x, self.weight, self.bias, self.eps)


class PointwiseMlp(nn.Module):
    """1×1 convolution, GELU, 1×1 convolution.

    Args:
        dim: Channels C.
        ratio: Hidden over embedding dimension.
    """

    def __init__(
        self,
        dim: int,
        ratio: float = 4.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        hidden = int(ratio * dim)
        self.fc1 = PointwiseConv(dim, hidden, **factory)
        self.act = nn.GELU()
        self.fc2 = PointwiseConv(hidden, dim, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        hidden = self.fc1(x)
        exact = getattr(self.act, "approximate", None) == "none"
        if not exact or calls_layers(hidden, (self.act, nn.GELU), (self.fc2, PointwiseConv)):
            return self.fc2(self.act(hidden))
        assert self.fc2.bias is not None
        return gelu_conv(hidden, self.fc2.weight, self.fc2.bias)


def headroom(x: Tensor) -> float:
    """By how much a weight is made smaller that multiplies x before x is normalised.

    float16 ends at 65,504: a product overflows where the maps of a residual stream have grown to a
    tenth of that. A power of two, so that nothing is rounded but what is next to nothing.
    """
    return 32.0 if x.dtype == torch.float16 else 1.0


def folded(
    norm: MapNorm, layer: PointwiseConv, dtype: torch.dtype, room: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Returns weight (D, C) and bias (D,) of a layer that has taken in the norm's γ and β.

    The weight is smaller by a factor: the room of `headroom`.
    """
    weight, bias = layer.weight.flatten(1), layer.bias
    assert bias is not None
    if norm.bias is not None:
        bias = bias + (weight * norm.bias).sum(1)
    if norm.weight is not None:
        weight = weight * norm.weight
    if room != 1:
        weight = weight / room
    return weight.to(dtype), bias


def fuses_mlp(x: Tensor, norm: nn.Module, mlp: Any) -> bool:
    """Whether `add_mlp` takes these: in half precision, on a GPU, for inference."""
    return (
        kernels.takes_for_inference(x)
        and is_plain(norm, MapNorm)
        and is_plain(mlp, PointwiseMlp)
        and is_plain(mlp.fc1, PointwiseConv)
        and is_plain(mlp.act, nn.GELU)
        and mlp.act.approximate == "none"
        and is_plain(mlp.fc2, PointwiseConv)
    )


def add_mlp(
    x: Tensor,
    norm: MapNorm,
    mlp: PointwiseMlp,
    factor: Tensor | None = None,
    moments: kernels.Moments | None = None,
) -> Tensor:
    """Computes `f ⊙ x + mlp(norm(x))`, where `fuses_mlp` says so, and never writes `norm(x)`.

    Args:
        x: (B, C, H, W).
        norm: Before the MLP.
        mlp: Its hidden maps are not written either where channels are few.
        factor: f, (C,); None is 1.
        moments: Of x, where they were measured.
    """
    narrow = factor is None and x.shape[1] <= kernels.MAX_CHANNELS
    room = 1.0 if narrow else headroom(x)
    weight, bias = folded(norm, mlp.fc1, x.dtype, room)
    if moments is None:
        moments = kernels.measure(x)
    normed = kernels.normalizer(moments, x.shape[2] * x.shape[3], weight, norm.eps, room)
    if narrow:
        assert mlp.fc2.bias is not None
        last = mlp.fc2.weight.flatten(1).to(x.dtype)
        return kernels.add_mlp(x, normed.scale, normed.shift, weight, bias, last, mlp.fc2.bias)
    hidden = pointwise_conv(x, weight[:, :, None, None], None)
    branch = mlp.fc2(kernels.normed_gelu(hidden, normed, bias))
    return kernels.add_and_measure(x, factor, branch)[0]
