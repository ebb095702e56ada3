"""SPAM, the token mixer of SPANet: a local convolution times its spectrally pooled context.

Shape legend: `B` images, `C` channels, `H W` map size, `K` taps.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spanets import kernels
from spanets.layers import (
    MapNorm,
    PointwiseConv,
    calls_layers,
    folded,
    headroom,
    is_plain,
    pointwise_conv,
)
from spanets.mixers.context import BALANCES, SpectralContext
from spanets.spectral import RING


def separable_conv(
    x: Tensor, row: Tensor, row_bias: Tensor, column: Tensor, column_bias: Tensor
) -> Tensor:
    """Convolves each channel with a row of taps, then with a column; on a GPU that is one kernel.

    Args:
        x: (B, C, H, W).
        row: (C, 1, 1, K), K odd.
        row_bias: (C,).
        column: (C, 1, K, 1).
        column_bias: (C,).

    Returns:
        (B, C, H, W).
    """
    if kernels.takes(x) and row.shape[-1] <= kernels.MAX_TAPS:
        return kernels.separable_conv(x, row, row_bias, column, column_bias)
    pad, channels = row.shape[-1] // 2, x.shape[1]
    x = F.conv2d(x, row, row_bias, padding=(0, pad), groups=channels)
    return F.conv2d(x, column, column_bias, padding=(pad, 0), groups=channels)


def _slides_plainly(conv: nn.Conv2d) -> bool:
    """Whether a convolution is as SPAM makes it: dilated backbones are made by changing layers."""
    pad = tuple(size // 2 for size in conv.kernel_size)
    plain = conv.stride == conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    return plain and conv.padding == pad


class SPAM(nn.Module):
    """Spectral pooling aggregation modulation, SPANet's token mixer (Eq. 19, Figure 3).

    `x̂ = DW_{K×1}(DW_{1×K}(Linear_in(x)))`, `y = Linear_out(x̂ ⊙ context(x̂))`; no activation
    between. NCHW in and out, any size.

    Args:
        dim: Channels C.
        kernel_size: K of the two depth-wise convolutions, odd.
        radius, balances, ring, aggregation, spectral_filter, method, learn_balance, learn_ring:
            Of `SpectralContext`.
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int = 7,
        radius: float = 2,
        balances: Sequence[float] = BALANCES,
        ring: float | None = RING,
        aggregation: str = "sum",
        spectral_filter: bool = True,
        method: str = "auto",
        learn_balance: str | None = None,
        learn_ring: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}, must be odd")
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        pad = kernel_size // 2
        self.proj_in = PointwiseConv(dim, dim, **factory)
        self.conv_row = nn.Conv2d(
            dim, dim, (1, kernel_size), padding=(0, pad), groups=dim, **factory
        )
        self.conv_column = nn.Conv2d(
            dim, dim, (kernel_size, 1), padding=(pad, 0), groups=dim, **factory
        )
        self.context = SpectralContext(
            dim,
            radius,
            balances,
            ring,
            aggregation,
            spectral_filter,
            method,
            learn_balance,
            learn_ring,
            **factory,
        )
        self.proj_out = PointwiseConv(dim, dim, **factory)

    def boundary_layers(self) -> tuple[list[nn.Conv2d], nn.Conv2d]:
        """Returns the 1×1 convolutions that read the input, and the one that writes the output."""
        return [self.proj_in], self.proj_out

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the tokens of (B, C, H, W)."""
        x = self._convolve(self.proj_in(x))
        if calls_layers(x, (self.context, SpectralContext)):
            return self.proj_out(x * self.context(x))
        if calls_layers(x, (self.proj_out, PointwiseConv)):
            return self.proj_out(self.context.modulate(x))
        assert self.proj_out.bias is not None
        return self.context.modulated_conv(x, self.proj_out.weight, self.proj_out.bias)

    def _convolve(self, x: Tensor) -> Tensor:
        row, column = self.conv_row, self.conv_column
        if calls_layers(x, (row, nn.Conv2d), (column, nn.Conv2d)):
            return column(row(x))
        if not (_slides_plainly(row) and _slides_plainly(column)):
            return column(row(x))
        assert row.bias is not None
        assert column.bias is not None
        return separable_conv(x, row.weight, row.bias, column.weight, column.bias)


def fuses_spam(x: Tensor, norm: nn.Module, mixer: Any) -> bool:
    """Whether `add_spam` takes these: in half precision, on a GPU, for inference."""
    return (
        kernels.takes_for_inference(x)
        and is_plain(norm, MapNorm)
        and is_plain(mixer, SPAM)
        and is_plain(mixer.proj_in, PointwiseConv)
        and is_plain(mixer.conv_row, nn.Conv2d)
        and is_plain(mixer.conv_column, nn.Conv2d)
        and _slides_plainly(mixer.conv_row)
        and _slides_plainly(mixer.conv_column)
        and mixer.conv_row.weight.shape[-1] <= kernels.MAX_TAPS
        and is_plain(mixer.context, SpectralContext)
        and mixer.context.is_low_rank
        and mixer.context.modes <= kernels.MAX_MODES
        and is_plain(mixer.proj_out, PointwiseConv)
    )


def add_spam(
    x: Tensor, norm: MapNorm, mixer: SPAM, factor: Tensor | None = None
) -> tuple[Tensor, kernels.Moments]:
    """Computes `f ⊙ x + mixer(norm(x))`, where `fuses_spam` says so, and never writes `norm(x)`.

    Args:
        x: (B, C, H, W).
        norm: Before the mixer.
        mixer: Its second half is one pass where channels are few.
        factor: f, (C,); None is 1.

    Returns:
        The sum and its moments.
    """
    room = headroom(x)
    weight, bias = folded(norm, mixer.proj_in, x.dtype, room)
    moments = kernels.measure(x)
    normed = kernels.normalizer(moments, x.shape[2] * x.shape[3], weight, norm.eps, room)
    row, column, last = mixer.conv_row, mixer.conv_column, mixer.proj_out
    assert row.bias is not None
    assert column.bias is not None
    maps = pointwise_conv(x, weight[:, :, None, None], None)
    maps = kernels.normed_separable_conv(
        maps, normed, bias, row.weight, row.bias, column.weight, column.bias
    )
    if factor is None and x.shape[1] <= kernels.MAX_CHANNELS:
        assert last.bias is not None
        weight = last.weight.flatten(1).to(x.dtype)
        return mixer.context.add_modulated(maps, x, weight, last.bias)
    return kernels.add_and_measure(x, factor, last(mixer.context.modulate(maps)))
