"""Functions that compute layers in the form that is fastest on each device.

On a GPU, channels-last maps are rows of pixels. There a 1×1 convolution is a matrix product with
the bias included, and a norm reads contiguous memory. `call` selects the form for one layer. It
calls the layer itself if that was modified or has hooks.

Shape legend: `B` images, `C` channels in, `D` out, `H W` map size, `K` low-frequency basis
functions.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import GroupNorm1
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.nn.modules import module as torch_module

from spanets.kernels.availability import is_supported, supports_inference, supports_product
from spanets.kernels.gelu import gelu_linear
from spanets.kernels.modulation import modulate as modulate_kernel
from spanets.kernels.modulation import modulated_linear
from spanets.kernels.projection import MAX_MODES, project
from spanets.kernels.separable import MAX_TAPS
from spanets.kernels.separable import separable_conv as separable_kernel
from spanets.spectral import basis_size, low_frequency_basis
from spanets.spectral.tracing import is_channels_last, runs_on_pixels

# Exporters replace weights by tensors of these two fake types, with the same values.
_TENSORS = (Tensor, nn.Parameter, FakeTensor, FunctionalTensor)


def is_unmodified(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a layer is exactly of this class, without hooks, so that a function may replace it.

    Adapters replace layers or their `forward`, quantizers replace the weight tensors, and hooks
    may belong to one module or to all modules.
    """
    if type(layer) is not kind or has_hooks(layer) or "forward" in layer.__dict__:
        return False
    own = (value for value in layer._parameters.values() if value is not None)
    return all(type(value) in _TENSORS for value in own)


def has_hooks(layer: nn.Module) -> bool:
    """Whether hooks watch a layer, or all layers."""
    # torch has no public function that returns the registered hooks.
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
    )


def is_pointwise(layer: Any) -> bool:
    """Whether a layer is an unmodified 1×1 convolution, grouped or not."""
    return (
        is_unmodified(layer, nn.Conv2d)
        and layer.kernel_size == layer.stride == (1, 1)
        and layer.padding == (0, 0)
    )


def is_dense(layer: Any, bias: bool) -> bool:
    """Whether a layer is an unmodified 1×1 convolution of all channels, with or without a bias."""
    return is_pointwise(layer) and layer.groups == 1 and (layer.bias is not None) == bias


def call(layer: Any, x: Tensor) -> Tensor:
    """Returns the layer's output for maps (B, C, H, W).

    Args:
        layer: Any layer. Only unmodified norms and 1×1 convolutions have a faster form.
        x: Maps, or the proxy of a symbolic trace. For a proxy the layer itself is called, because
            quantizers look for such calls.
    """
    if not isinstance(x, Tensor):
        return layer(x)
    if is_unmodified(layer, GroupNorm1):
        return _normalize(layer, x)
    if runs_on_pixels(x) and is_pointwise(layer):
        if layer.groups > 1 and layer.bias is None:
            return grouped_pointwise_conv(x, layer.weight, layer.groups)
        if layer.groups == 1:
            return pointwise_conv(x, layer.weight, layer.bias)
    return layer(x)


def _normalize(norm: GroupNorm1, x: Tensor) -> Tensor:
    if runs_on_pixels(x):
        return normalize_maps(x, norm.weight, norm.bias, norm.eps)
    return norm(with_gradient_layout(x, norm))


def with_gradient_layout(x: Tensor, norm: GroupNorm1) -> Tensor:
    """Returns maps in a memory layout in which a trainable norm has a working backward pass.

    Up to torch 2.13, that pass crashes the process for channels-last maps that need no gradient,
    such as those of frozen layers: it writes to a gradient that was never allocated.
    """
    learns = norm.weight is not None and norm.weight.requires_grad and torch.is_grad_enabled()
    return x.contiguous() if learns and not x.requires_grad else x


def pointwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolves (B, C, H, W) with (D, C, 1, 1) and (D,) to (B, D, H, W), in the layout of x."""
    if runs_on_pixels(x):
        return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
    return F.conv2d(x, weight, bias)


def block_diagonal(weight: Tensor, groups: int) -> Tensor:
    """Returns a dense (D, C, 1, 1) weight equal to (D, C / G, 1, 1) in G groups."""
    outputs, width = weight.shape[:2]
    of_output = torch.arange(outputs, device=weight.device) // (outputs // groups)
    of_input = torch.arange(groups * width, device=weight.device) // width
    full = weight.flatten(1).repeat(1, groups)
    full = torch.where(of_output[:, None] == of_input, full, 0)
    return full[:, :, None, None]


def grouped_pointwise_conv(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Convolves (B, C, H, W) with (D, C / G, 1, 1), group by group, to (B, D, H, W).

    It multiplies by a dense matrix with zeros between the groups. On a GPU this is memory-bound,
    as a grouped product is, and cuDNN's kernels for narrow groups take ten times as long
    (benchmarks/results/gpu.json).
    """
    return pointwise_conv(x, block_diagonal(weight, groups), None)


def normalize_maps(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Computes GroupNorm of one group, `γ (x - μ) / √(σ² + ε) + β`, on rows of pixels.

    One group holds all numbers of an image, so their order does not matter. Reading them in memory
    order is one contiguous pass; torch's kernels and compiler do not find this by themselves.

    Args:
        x: Maps (B, C, H, W), channels last.
        weight: γ, (C,), or None.
        bias: β, (C,), or None.
        eps: ε.
    """
    pixels = x.permute(0, 2, 3, 1)  # B H W C
    rows = pixels.flatten(1)
    out = F.layer_norm(rows, rows.shape[1:], eps=eps).view(pixels.shape)
    if weight is not None:
        out = out * weight
    if bias is not None:
        out = out + bias
    return out.permute(0, 3, 1, 2)


def gelu_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Computes `W GELU(x) + b`; on a GPU the backward pass recomputes the activated maps.

    Args:
        x: Maps (B, D, H, W).
        weight: W, (C, D, 1, 1).
        bias: b, (C,).

    Returns:
        (B, C, H, W).
    """
    if supports_product(x):
        return gelu_linear(x, weight.flatten(1).to(x.dtype), bias.to(x.dtype))
    return pointwise_conv(F.gelu(x), weight, bias)


def star_conv(x: Tensor, scale: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """Computes `W (s relu(x)² + b)` as `(s W) relu(x)² + b W 1`, which saves two passes over x.

    Args:
        x: Maps (B, D, H, W).
        scale: s, (1,).
        offset: b, (1,).
        weight: W, (C, D, 1, 1).

    Returns:
        (B, C, H, W).
    """
    x = F.relu(x)
    return pointwise_conv(x * x, scale * weight, offset * weight.sum((1, 2, 3)))


def separable_conv(
    x: Tensor, row: Tensor, row_bias: Tensor, column: Tensor, column_bias: Tensor
) -> Tensor:
    """Convolves each channel with a row of taps, then a column of taps; one kernel on a GPU.

    Args:
        x: Maps (B, C, H, W).
        row: Row taps (C, 1, 1, K), K odd.
        row_bias: Row biases (C,).
        column: Column taps (C, 1, K, 1).
        column_bias: Column biases (C,).

    Returns:
        (B, C, H, W).
    """
    if is_supported(x) and row.shape[-1] <= MAX_TAPS:
        return separable_kernel(x, row, row_bias, column, column_bias)
    pad, channels = row.shape[-1] // 2, x.shape[1]
    x = F.conv2d(x, row, row_bias, padding=(0, pad), groups=channels)
    return F.conv2d(x, column, column_bias, padding=(pad, 0), groups=channels)


# ---- SPAM's context


def pooled_conv(
    x: Tensor,
    low_weight: Tensor,
    high_weight: Tensor,
    bias: Tensor,
    radius: float,
    gain: Tensor,
    closed: bool,
) -> Tensor:
    """Computes `W SPF(x) + b` as a 1×1 convolution plus a rank-K term, without filtering x.

    `(W diag(1 - λ)) x + b + (W ((x Φᵀ) ⊙ g)) Φ`. The filter is linear over positions and W is
    linear over channels, so they commute except for the per-channel λ. The products follow the
    memory layout of x: strided access would cost 7 % of a training step and of compiled inference.

    Args:
        x: Maps (B, C, H, W).
        low_weight: W, (D, C).
        high_weight: `W diag(1 - λ)`, (D, C).
        bias: b, (D,).
        radius: Radius of the low-frequency disc, in frequency bins.
        gain: g, (C, K); see `basis_gain`.
        closed: Whether the disc includes its ring; see `low_frequency_basis`.

    Returns:
        (B, D, H, W).
    """
    basis = low_frequency_basis(x, radius, closed)  # K HW
    high = F.conv2d(x, high_weight[:, :, None, None], bias)  # B D H W
    modes = basis.to(high.dtype).expand(x.shape[0], -1, -1)  # B K HW
    # Not in place, although that would save a pass over memory: ONNX's older exporter and PT2E's
    # quantizers do not track aliases and lose an addition to a view. `t`, not `mT`, because the
    # older exporter lacks `mT`.
    # The weight is the right factor of its product: quantizers by channel expect it there.
    if is_channels_last(x):
        tokens = x.permute(0, 2, 3, 1).flatten(1, 2)  # B HW C
        low = torch.matmul(basis, tokens)  # B K C
    else:
        low = torch.matmul(x.flatten(2), basis.t()).transpose(1, 2)  # B K C
    low = F.linear(low * gain.to(x.dtype).t(), low_weight).to(high.dtype)  # B K D
    if is_channels_last(x):
        maps = high.permute(0, 2, 3, 1).flatten(1, 2)  # B HW D
        maps = torch.baddbmm(maps, modes.transpose(1, 2), low)
        return maps.unflatten(1, high.shape[2:]).permute(0, 3, 1, 2)
    maps = torch.baddbmm(high.flatten(2), low.transpose(1, 2), modes)  # B D HW
    return maps.unflatten(2, high.shape[2:])


def modulate(
    x: Tensor,
    low_weight: Tensor,
    high_weight: Tensor,
    bias: Tensor,
    radius: float,
    gain: Tensor,
    closed: bool,
) -> Tensor:
    """Computes `x ⊙ pooled_conv(x)`; one kernel computes the sum and the product on a GPU.

    For arguments and result see `pooled_conv`.
    """
    if not is_supported(x) or basis_size(radius, closed) > MAX_MODES:
        return x * pooled_conv(x, low_weight, high_weight, bias, radius, gain, closed)
    basis, low = low_frequencies(x, low_weight, radius, gain, closed)
    high = pointwise_conv(x, high_weight[:, :, None, None], bias)
    return modulate_kernel(x, high, basis, low)


def modulated_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    low_weight: Tensor,
    high_weight: Tensor,
    high_bias: Tensor,
    radius: float,
    gain: Tensor,
    closed: bool,
) -> Tensor:
    """Computes `V modulate(x) + c`; on a GPU the backward pass recomputes the modulated maps.

    Args:
        x: Maps (B, C, H, W).
        weight: V, (D, C, 1, 1).
        bias: c, (D,).
        low_weight, high_weight, high_bias, radius, gain, closed: See `pooled_conv`.

    Returns:
        (B, D, H, W).
    """
    if not supports_product(x) or basis_size(radius, closed) > MAX_MODES:
        maps = modulate(x, low_weight, high_weight, high_bias, radius, gain, closed)
        return pointwise_conv(maps, weight, bias)
    basis, low = low_frequencies(x, low_weight, radius, gain, closed)
    high = pointwise_conv(x, high_weight[:, :, None, None], high_bias)
    weight = weight.flatten(1).to(x.dtype)
    return modulated_linear(x, high, basis, low, weight, bias.to(x.dtype))


def low_frequencies(
    x: Tensor, low_weight: Tensor, radius: float, gain: Tensor, closed: bool
) -> tuple[Tensor, Tensor]:
    """Returns the low-rank term of `pooled_conv` as the two factors that the kernels multiply.

    For arguments see `pooled_conv`.

    Returns:
        The basis (H·W, K) and its coefficients (B, K, D). Zeros pad K to a multiple of 8, because
        matrix units load 16 bytes at a time.
    """
    pad = (0, -basis_size(radius, closed) % 8)  # at least 1, as K is odd; so `F.pad` always copies
    basis = F.pad(low_frequency_basis(x, radius, closed).mT, pad)  # HW K
    gain = F.pad(gain.to(x.dtype), pad)  # C K
    fused = supports_inference(x)
    low = project(x, basis, gain) if fused else project(x, basis) * gain.mT  # B K C
    return basis, torch.matmul(low, low_weight.mT).to(x.dtype)  # B K D
