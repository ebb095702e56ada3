"""Faster twins of the composite modules: same parameters, same function, less memory traffic.

`fuse` turns a block, mixer, context or MLP into its twin by changing the object's class.
Parameters, names, copies and pickles stay valid; a replaced `forward` method would stay bound to
the original object in every copy. A twin computes the equations of its base class. It calls the
base class instead if a layer was replaced, has hooks or special tensors, or is traced symbolically,
or if a function mode records all calls.
`set_fused(False)` turns all twins off.

Shape legend: `B` images, `C` channels, `H W` map size.
"""

from functools import reduce
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from timm.layers import DropPath, GroupNorm1
from timm.models.metaformer import StarReLU
from torch import Tensor, fx, nn

from spanets import kernels
from spanets.backbones.block import Block
from spanets.backbones.layers import ChannelScale, PointwiseMlp, StarMlp
from spanets.backbones.stages import Stage, Stem, check_images
from spanets.kernels.forms import (
    call,
    gelu_conv,
    has_hooks,
    is_dense,
    is_unmodified,
    modulate,
    modulated_conv,
    pooled_conv,
    separable_conv,
    star_conv,
)
from spanets.kernels.half_blocks import add_mlp, add_spam
from spanets.mixers import SPAM, Attention, SpectralAdaptiveMixer
from spanets.mixers.context import HadamardContext, SpectralContext, SpectralPool, fixed_gain
from spanets.spectral import basis_gain, basis_size
from spanets.spectral.tracing import is_exporting, is_recorded, is_transformed, runs_on_pixels

# In channels last, oneDNN need not reorder the maps for 1×1 convolutions, which saves a fifth of
# SPANet's time on the CPU (benchmarks/cpu_speed.py). The GPU kernels need it (benchmarks/gpu.py).
LAYOUT = torch.channels_last
LAYOUT_DEVICES = ("cpu", "cuda")

M = TypeVar("M", bound=nn.Module)

_enabled = True


def set_fused(enabled: bool) -> None:
    """Turns the twins of all networks in this process on (the default) or off.

    When off, networks run the plain layers of torch and timm. Use this to compare, or for second
    derivatives, which the GPU kernels do not support.
    """
    global _enabled
    _enabled = enabled


def fuse(model: M) -> M:
    """Turns a network's composite modules into their twins; returns the same network."""
    for module in model.modules():
        module.__class__ = _TWINS.get(type(module), type(module))
    return model


def _is_fused(x: Any) -> bool:
    """Whether twins are on, x is no proxy of a symbolic trace, and no mode records the calls."""
    return _enabled and isinstance(x, Tensor) and not is_recorded()


class _Twin:
    """Makes a twin print under the name of its base class."""

    def _get_name(self) -> str:
        return type(self).__bases__[1].__name__


# ---- the layout


def lay_out_images(x: Tensor) -> Tensor:
    """Converts images to channels last, on CPUs and CUDA GPUs.

    Layers keep the memory layout of their input, so one conversion at the start is enough. On
    other devices images keep the caller's layout, and during export, too: ExecuTorch's norms, for
    one, reject channels last.
    """
    if not _enabled or x.device.type not in LAYOUT_DEVICES or _keeps_layouts():
        return x
    return x.contiguous(memory_format=LAYOUT)


def _keeps_layouts() -> bool:
    """Whether no layout may be imposed: torch.func has none, other runtimes have their own."""
    return is_transformed() or is_exporting()


# torch.fx must not trace into these: devices and sizes are unknown in a symbolic trace. As calls
# they are recorded, so that the traced network converts the layout, too.
fx.wrap("check_images")
fx.wrap("lay_out_images")


class FusedStem(_Twin, Stem):
    """A stem that sets the memory layout of all later maps, unless hooks watch its convolution.

    Tools that compute with the maps that hooks see may expect the caller's layout.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps images to maps; see `Stem`."""
        watched = has_hooks(self.conv)
        return super().forward(x if watched else lay_out_images(check_images(x)))


class FusedStage(_Twin, Stage):
    """A stage that, when frozen, returns maps that a trainable norm can follow.

    See `forms.with_gradient_layout`. Within a stage, the blocks do the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the next stage's maps; see `Stage`."""
        x = super().forward(x)
        if _is_fused(x) and torch.is_grad_enabled() and not x.requires_grad:
            return x.contiguous()
        return x


# ---- SPANet


class FusedContext(_Twin, SpectralContext):
    """A context as a 1×1 convolution plus a low-rank term: `forms.pooled_conv`."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the context of the same shape."""
        return pooled_conv(x, *self.low_rank(x)) if self.is_fused(x) else super().forward(x)

    def is_fused(self, x: Any) -> bool:
        """Whether the low-rank form applies: the basis method, and unmodified layers.

        Not in exported graphs: they are smaller without it, as fast, and have weights that are
        parameters, as quantizers expect.
        """
        pool = self.filter
        plain = is_unmodified(pool, SpectralPool) and is_dense(self.proj, bias=False)
        return _is_fused(x) and not is_exporting() and plain and pool.method == "basis"

    @property
    def modes(self) -> int:
        """Rank of the low-frequency term: the number of basis functions."""
        pool: Any = self.filter
        return basis_size(pool.radius, pool.ring is not None)

    def low_rank(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, float, Tensor, bool]:
        """Returns the arguments of `pooled_conv` after x."""
        pool: Any = self.filter
        high, gain = self._coefficients(x)
        weight, bias = self.proj.weight.flatten(1), self.bias.sum(0)
        return weight, high, bias, pool.radius, gain, pool.ring is not None

    def _coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns `W diag(1 - λ)` (C, C), in the weights' dtype, and g (C, K), in that of x."""
        if hasattr(self, "high_weight"):
            return self.get_buffer("high_weight"), self.get_buffer("gain")
        pool: Any = self.filter
        weight = self.proj.weight.flatten(1)
        balance, ring = pool.channel_balance(weight), pool.channel_ring(weight)
        if pool.learn_balance is None:
            gain = fixed_gain(x, pool.radius, pool.balances, ring)
        else:
            gain = basis_gain(x, pool.radius, balance, ring)
        return weight * (1 - balance), gain

    @torch.no_grad()
    def reparameterize(self) -> None:
        """Computes the products of weights and balances once, for inference."""
        if self.is_fused(self.proj.weight):
            high, gain = self._coefficients(self.proj.weight)
            self.register_buffer("high_weight", high.clone())
            self.register_buffer("gain", gain.clone())
        super().reparameterize()


class FusedHadamardContext(_Twin, HadamardContext):
    """A product of gates, each computed from its own channels only."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the context of the same shape."""
        if not (_is_fused(x) and is_dense(self.proj, bias=False)):
            return super().forward(x)
        parts = self.filter(x).chunk(self.gates, 1)
        weights = self.proj.weight.chunk(self.gates, 1)
        triples = zip(parts, weights, self.bias, strict=True)
        return reduce(torch.mul, [F.conv2d(part, weight, bias) for part, weight, bias in triples])


def _slides_plainly(conv: Any, dim: int) -> bool:
    """Whether a convolution is as SPAM built it; making a backbone dilated changes its layers.

    Args:
        conv: Depth-wise convolution.
        dim: Dimension of the kernel along which its taps lie: 0 for a column, 1 for a row.
    """
    if not is_unmodified(conv, nn.Conv2d):
        return False
    pad = tuple(size // 2 for size in conv.kernel_size)
    plain = conv.stride == conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    slides = conv.padding == pad and conv.kernel_size[1 - dim] == 1
    by_channel = conv.groups == conv.in_channels == conv.out_channels
    return plain and slides and by_channel and conv.bias is not None


class FusedSPAM(_Twin, SPAM):
    """SPAM on a GPU: one kernel for both depth-wise convolutions, one for context and product."""

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the tokens of (B, C, H, W)."""
        if not (_is_fused(x) and runs_on_pixels(x)):
            return super().forward(x)
        x = self._convolve(call(self.proj_in, x))
        context: Any = self.context
        last = self.proj_out
        if not (is_unmodified(context, FusedContext) and context.is_fused(x)):
            return call(last, x * context(x))
        if not is_dense(last, bias=True) or last.bias is None:
            return last(modulate(x, *context.low_rank(x)))
        return modulated_conv(x, last.weight, last.bias, *context.low_rank(x))

    def _convolve(self, x: Tensor) -> Tensor:
        row, column = self.conv_row, self.conv_column
        if not (_slides_plainly(row, 1) and _slides_plainly(column, 0)):
            return column(row(x))
        assert row.bias is not None
        assert column.bias is not None
        return separable_conv(x, row.weight, row.bias, column.weight, column.bias)


class FusedMlp(_Twin, PointwiseMlp):
    """SPANet's MLP on a GPU: the backward pass recomputes the activated maps."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        if not (_is_fused(x) and runs_on_pixels(x)):
            return super().forward(x)
        hidden, last = call(self.fc1, x), self.fc2
        exact = is_unmodified(self.act, nn.GELU) and self.act.approximate == "none"
        if not exact or not is_dense(last, bias=True) or last.bias is None:
            return call(last, self.act(hidden))
        return gelu_conv(hidden, last.weight, last.bias)


class FusedBlock(_Twin, Block):
    """A block that, for half-precision inference of SPANet on a GPU, never stores normed maps.

    See `add_spam` and `add_mlp`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        if not _is_fused(x):
            return super().forward(x)
        moments = None
        first = (self.layer_scale1, self.drop_path1, self.res_scale1)
        if _fuses_spam(x, self.norm1, self.token_mixer) and _is_shortcut(*first):
            factor = getattr(self.res_scale1, "scale", None)
            x, moments = add_spam(x, self.norm1, self.token_mixer, factor)
        else:
            mixed = self.token_mixer(call(self.norm1, x))
            x = self.res_scale1(x) + self.drop_path1(self.layer_scale1(mixed))
        second = (self.layer_scale2, self.drop_path2, self.res_scale2)
        if _fuses_mlp(x, self.norm2, self.mlp) and _is_shortcut(*second):
            factor = getattr(self.res_scale2, "scale", None)
            return add_mlp(x, self.norm2, self.mlp, factor, moments)
        branch = self.mlp(call(self.norm2, x))
        return self.res_scale2(x) + self.drop_path2(self.layer_scale2(branch))


def _is_shortcut(layer_scale: nn.Module, drop_path: nn.Module, res_scale: nn.Module) -> bool:
    """Whether half of a block is just `s ⊙ x + branch`, with s a learnt factor or 1."""
    # `training`, not the network's mode: Monte Carlo dropout drops paths in evaluation.
    drops = drop_path.training or not (
        is_unmodified(drop_path, nn.Identity) or is_unmodified(drop_path, DropPath)
    )
    scales = is_unmodified(res_scale, nn.Identity) or is_unmodified(res_scale, ChannelScale)
    return not drops and is_unmodified(layer_scale, nn.Identity) and scales


def _fuses_spam(x: Tensor, norm: nn.Module, mixer: Any) -> bool:
    """Whether `add_spam` supports these: half-precision inference on a GPU, unmodified layers."""
    return (
        kernels.supports_inference(x)
        and is_unmodified(norm, GroupNorm1)
        and is_unmodified(mixer, FusedSPAM)
        and is_dense(mixer.proj_in, bias=True)
        and _slides_plainly(mixer.conv_row, 1)
        and _slides_plainly(mixer.conv_column, 0)
        and mixer.conv_row.weight.shape[-1] <= kernels.MAX_TAPS
        and is_unmodified(mixer.context, FusedContext)
        and mixer.context.is_fused(x)
        and mixer.context.modes <= kernels.MAX_MODES
        and is_dense(mixer.proj_out, bias=True)
    )


def _fuses_mlp(x: Tensor, norm: nn.Module, mlp: Any) -> bool:
    """Whether `add_mlp` supports these: half-precision inference on a GPU, unmodified layers."""
    return (
        kernels.supports_inference(x)
        and is_unmodified(norm, GroupNorm1)
        and is_unmodified(mlp, FusedMlp)
        and is_dense(mlp.fc1, bias=True)
        and is_unmodified(mlp.act, nn.GELU)
        and mlp.act.approximate == "none"
        and is_dense(mlp.fc2, bias=True)
    )


# ---- SPANetV2


class FusedAdaptiveMixer(_Twin, SpectralAdaptiveMixer):
    """SPANetV2's mixer: restores channels last after the filter, which returns contiguous maps."""

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the tokens of (B, C, H, W)."""
        if not _is_fused(x):
            return super().forward(x)
        query = F.gelu(call(self.query, x))
        context = self.filter(self.local(call(self.value, x)))
        if not _keeps_layouts() and query.is_contiguous(memory_format=LAYOUT):
            context = context.contiguous(memory_format=LAYOUT)
        if is_unmodified(self.proj, nn.Sequential):
            for layer in self.proj:
                context = call(layer, context)
        else:
            context = self.proj(context)
        return call(self.proj_out, query * context)


class FusedAttention(_Twin, Attention):
    """Attention with its projections as matrix products on a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the tokens of (B, C, H, W)."""
        if not _is_fused(x):
            return super().forward(x)
        return call(self.proj, self.attend(call(self.qkv, x)))


class FusedStarMlp(_Twin, StarMlp):
    """SPANetV2's MLP on a GPU: the second convolution absorbs StarReLU's scale and offset."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        if not (_is_fused(x) and runs_on_pixels(x)):
            return super().forward(x)
        hidden = call(self.fc1, x)
        act: Any = self.act
        plain = is_unmodified(act, StarReLU) and is_unmodified(act.relu, nn.ReLU)
        if not plain or not is_dense(self.fc2, bias=False):
            return call(self.fc2, act(hidden))
        return star_conv(hidden, act.scale, act.bias, self.fc2.weight)


_TWINS: dict[type[nn.Module], type[nn.Module]] = {
    twin.__bases__[1]: twin
    for twin in (
        FusedStem,
        FusedStage,
        FusedContext,
        FusedHadamardContext,
        FusedSPAM,
        FusedMlp,
        FusedBlock,
        FusedAdaptiveMixer,
        FusedAttention,
        FusedStarMlp,
    )
}
