"""Faster twins of the composites: the same parameters, the same function, fewer passes over memory.

`fuse` puts a twin in the place of a block, mixer, context or MLP by changing the object's class:
parameters, names, copies and pickles stay what they are, where a replaced `forward` would be bound
to the object that it was copied from. Each twin computes the equations of the class that it is
made of, and steps aside for it wherever a layer was replaced, has hooks or tensors of its own, or
is traced symbolically; `set_fused(False)` turns all of them off.

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
    is_pointwise,
    is_unmodified,
    low_frequencies,
    modulate,
    modulated_conv,
    pointwise_conv,
    pooled_conv,
    separable_conv,
    star_conv,
)
from spanets.mixers import SPAM, Attention, SpectralAdaptiveMixer
from spanets.mixers.context import HadamardContext, SpectralContext, SpectralPool
from spanets.spectral import basis_gain, basis_size
from spanets.spectral.tracing import is_transformed, runs_on_pixels

# Channels last, oneDNN runs 1×1 convolutions without reordering maps, a fifth of SPANet's time on
# the CPU (benchmarks/cpu_speed.py), and GPUs run what is made for that layout (benchmarks/gpu.py).
LAYOUT = torch.channels_last
LAYOUT_DEVICES = ("cpu", "cuda")

M = TypeVar("M", bound=nn.Module)

_enabled = True


def set_fused(enabled: bool) -> None:
    """Turns the twins of all networks on (as at the start) or off, for this process.

    Off, networks are the plain layers of torch and timm: to compare, or for second derivatives,
    which the GPU kernels have none of.
    """
    global _enabled
    _enabled = enabled


def fuse(model: M) -> M:
    """Puts twins in the place of a network's composites; returns the same network."""
    for module in model.modules():
        module.__class__ = _TWINS.get(type(module), type(module))
    return model


def _is_fused(x: Any) -> bool:
    """Whether twins compute x themselves; a symbolic trace, which records calls, has no tensors."""
    return _enabled and isinstance(x, Tensor)


class _Twin:
    """Shown under the name of the class that it computes."""

    def _get_name(self) -> str:
        return type(self).__bases__[1].__name__


# ---- the layout


def lay_out_images(x: Tensor) -> Tensor:
    """Gives images the fast layout, on CPUs and CUDA GPUs.

    Layers keep the layout of their input, so one change at the start is enough. On other devices
    the layout is the caller's choice.
    """
    if not _enabled or x.device.type not in LAYOUT_DEVICES or is_transformed():
        return x
    return x.contiguous(memory_format=LAYOUT)


# Leaves of torch.fx, which knows no devices and sizes: what it records has the layout, too.
fx.wrap("check_images")
fx.wrap("lay_out_images")


class FusedStem(_Twin, Stem):
    """A stem that sets the layout of all that follows."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps images to maps; see `Stem`."""
        return super().forward(lay_out_images(check_images(x)))


class FusedStage(_Twin, Stage):
    """A stage whose output a norm that learns can take, where the stage itself is frozen.

    See `forms.with_gradient_layout`; within a stage the blocks see to it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the next stage's maps; see `Stage`."""
        x = super().forward(x)
        if _is_fused(x) and torch.is_grad_enabled() and not x.requires_grad:
            return x.contiguous()
        return x


# ---- SPANet


class FusedContext(_Twin, SpectralContext):
    """A context as a 1×1 convolution plus a term of low rank: `forms.pooled_conv`."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the context of the same shape."""
        return pooled_conv(x, *self.low_rank(x)) if self.is_fused(x) else super().forward(x)

    def is_fused(self, x: Any) -> bool:
        """Whether the context is computed so: filtered by few basis functions, by plain layers."""
        pool = self.filter
        plain = is_unmodified(pool, SpectralPool) and is_pointwise(self.proj)
        return _is_fused(x) and plain and pool.method == "basis"

    @property
    def modes(self) -> int:
        """The rank: how many basis functions the low frequencies have."""
        pool: Any = self.filter
        return basis_size(pool.radius, pool.ring is not None)

    def low_rank(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, float, Tensor, bool]:
        """Returns the arguments of `pooled_conv` after x."""
        pool: Any = self.filter
        high, gain = self._coefficients(x)
        weight, bias = self.proj.weight.flatten(1), self.bias.sum(0)
        return weight, high, bias, pool.radius, gain, pool.ring is not None

    def _coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns `W diag(1 - λ)` (C, C) and the gain g (C, K), in the weights' and x's type."""
        if hasattr(self, "high_weight"):
            return self.get_buffer("high_weight"), self.get_buffer("gain")
        pool: Any = self.filter
        weight = self.proj.weight.flatten(1)
        balance, ring = pool.channel_balance(weight), pool.channel_ring()
        return weight * (1 - balance), basis_gain(x, pool.radius, balance, ring)

    @torch.no_grad()
    def reparameterize(self) -> None:
        """Computes once, for inference, what the balances make of the weights."""
        if self.is_fused(self.proj.weight):
            high, gain = self._coefficients(self.proj.weight)
            self.register_buffer("high_weight", high.clone())
            self.register_buffer("gain", gain.clone())
        super().reparameterize()


class FusedHadamardContext(_Twin, HadamardContext):
    """A product of gates, each of which reads its own channels alone."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the context of the same shape."""
        if not (_is_fused(x) and is_pointwise(self.proj)):
            return super().forward(x)
        parts = self.filter(x).split(self.gate_sizes, 1)
        weights = self.proj.weight.split(self.gate_sizes, 1)
        triples = zip(parts, weights, self.bias, strict=True)
        return reduce(torch.mul, [F.conv2d(part, weight, bias) for part, weight, bias in triples])


def _slides_plainly(conv: Any) -> bool:
    """Whether a convolution is as SPAM makes it: dilated backbones are made by changing layers."""
    if not is_unmodified(conv, nn.Conv2d):
        return False
    pad = tuple(size // 2 for size in conv.kernel_size)
    plain = conv.stride == conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    return plain and conv.padding == pad and conv.bias is not None


class FusedSPAM(_Twin, SPAM):
    """SPAM on a GPU: both depth-wise convolutions one kernel, context and product another."""

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the tokens of (B, C, H, W)."""
        if not (_is_fused(x) and runs_on_pixels(x)):
            return super().forward(x)
        x = self._convolve(call(self.proj_in, x))
        context: Any = self.context
        last = self.proj_out
        if not (is_unmodified(context, FusedContext) and context.is_fused(x)):
            return call(last, x * context(x))
        if not is_pointwise(last) or last.bias is None:
            return last(modulate(x, *context.low_rank(x)))
        return modulated_conv(x, last.weight, last.bias, *context.low_rank(x))

    def _convolve(self, x: Tensor) -> Tensor:
        row, column = self.conv_row, self.conv_column
        if not (_slides_plainly(row) and _slides_plainly(column)):
            return column(row(x))
        assert row.bias is not None
        assert column.bias is not None
        return separable_conv(x, row.weight, row.bias, column.weight, column.bias)


class FusedMlp(_Twin, PointwiseMlp):
    """SPANet's MLP on a GPU: the activated maps are not kept for the gradient."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        if not (_is_fused(x) and runs_on_pixels(x)):
            return super().forward(x)
        hidden, last = call(self.fc1, x), self.fc2
        exact = is_unmodified(self.act, nn.GELU) and self.act.approximate == "none"
        if not exact or not is_pointwise(last) or last.bias is None:
            return call(last, self.act(hidden))
        return gelu_conv(hidden, last.weight, last.bias)


class FusedBlock(_Twin, Block):
    """A block; of SPANet, for inference on a GPU in half precision, in as few passes as possible.

    What a norm gives is never written there: see `add_spam` and `add_mlp`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        if not _is_fused(x):
            return super().forward(x)
        moments = None
        plain = _is_shortcut(self.layer_scale1, self.drop_path1, self.res_scale1)
        if plain and _fuses_spam(x, self.norm1, self.token_mixer):
            factor = getattr(self.res_scale1, "scale", None)
            x, moments = add_spam(x, self.norm1, self.token_mixer, factor)
        else:
            mixed = self.token_mixer(call(self.norm1, x))
            x = self.res_scale1(x) + self.drop_path1(self.layer_scale1(mixed))
        plain = _is_shortcut(self.layer_scale2, self.drop_path2, self.res_scale2)
        if plain and _fuses_mlp(x, self.norm2, self.mlp):
            factor = getattr(self.res_scale2, "scale", None)
            return add_mlp(x, self.norm2, self.mlp, factor, moments)
        branch = self.mlp(call(self.norm2, x))
        return self.res_scale2(x) + self.drop_path2(self.layer_scale2(branch))


def _is_shortcut(layer_scale: nn.Module, drop_path: nn.Module, res_scale: nn.Module) -> bool:
    """Whether a half of a block is `s ⊙ x + branch`, s a factor or 1, and nothing else."""
    # Paths that are dropped in an evaluated network estimate its uncertainty.
    drops = drop_path.training or not (
        is_unmodified(drop_path, nn.Identity) or is_unmodified(drop_path, DropPath)
    )
    scales = is_unmodified(res_scale, nn.Identity) or is_unmodified(res_scale, ChannelScale)
    return not drops and is_unmodified(layer_scale, nn.Identity) and scales


def _fuses_spam(x: Tensor, norm: nn.Module, mixer: Any) -> bool:
    """Whether `add_spam` takes these: in half precision, on a GPU, for inference."""
    return (
        kernels.supports_inference(x)
        and is_unmodified(norm, GroupNorm1)
        and is_unmodified(mixer, FusedSPAM)
        and is_pointwise(mixer.proj_in)
        and _slides_plainly(mixer.conv_row)
        and _slides_plainly(mixer.conv_column)
        and mixer.conv_row.weight.shape[-1] <= kernels.MAX_TAPS
        and is_unmodified(mixer.context, FusedContext)
        and mixer.context.is_fused(x)
        and mixer.context.modes <= kernels.MAX_MODES
        and is_pointwise(mixer.proj_out)
    )


def _fuses_mlp(x: Tensor, norm: nn.Module, mlp: Any) -> bool:
    """Whether `add_mlp` takes these: in half precision, on a GPU, for inference."""
    return (
        kernels.supports_inference(x)
        and is_unmodified(norm, GroupNorm1)
        and is_unmodified(mlp, FusedMlp)
        and is_pointwise(mlp.fc1)
        and is_unmodified(mlp.act, nn.GELU)
        and mlp.act.approximate == "none"
        and is_pointwise(mlp.fc2)
    )


def add_spam(
    x: Tensor, norm: GroupNorm1, mixer: Any, factor: Tensor | None = None
) -> tuple[Tensor, kernels.Moments]:
    """Computes `f ⊙ x + mixer(norm(x))`, and never writes `norm(x)`.

    Args:
        x: (B, C, H, W), in half precision on a GPU.
        norm: Before the mixer.
        mixer: A `FusedSPAM`; its second half is one pass where channels are few.
        factor: f, (C,); None is 1.

    Returns:
        The sum and its moments.
    """
    room = headroom(x)
    weight, bias = folded(norm, mixer.proj_in, x.dtype, room)
    moments = kernels.measure(x)
    normed = kernels.normalizer(moments, x.shape[2] * x.shape[3], weight, norm.eps, room)
    row, column, last = mixer.conv_row, mixer.conv_column, mixer.proj_out
    maps = pointwise_conv(x, weight[:, :, None, None], None)
    maps = kernels.normed_separable_conv(
        maps, normed, bias, row.weight, row.bias, column.weight, column.bias
    )
    arguments = mixer.context.low_rank(maps)
    if factor is None and x.shape[1] <= kernels.MAX_CHANNELS:
        low_weight, high_weight, high_bias, radius, gain, closed = arguments
        basis, low = low_frequencies(maps, low_weight, radius, gain, closed)
        high_weight, weight = high_weight.to(x.dtype), last.weight.flatten(1).to(x.dtype)
        return kernels.add_modulated(maps, x, basis, low, high_weight, high_bias, weight, last.bias)
    return kernels.add_and_measure(x, factor, call(last, modulate(maps, *arguments)))


def add_mlp(
    x: Tensor,
    norm: GroupNorm1,
    mlp: Any,
    factor: Tensor | None = None,
    moments: kernels.Moments | None = None,
) -> Tensor:
    """Computes `f ⊙ x + mlp(norm(x))`, and never writes `norm(x)`.

    Args:
        x: (B, C, H, W), in half precision on a GPU.
        norm: Before the MLP.
        mlp: A `FusedMlp`; its hidden maps are not written either where channels are few.
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
        last = mlp.fc2.weight.flatten(1).to(x.dtype)
        return kernels.add_mlp(x, normed.scale, normed.shift, weight, bias, last, mlp.fc2.bias)
    hidden = pointwise_conv(x, weight[:, :, None, None], None)
    branch = call(mlp.fc2, kernels.normed_gelu(hidden, normed, bias))
    return kernels.add_and_measure(x, factor, branch)[0]


def headroom(x: Tensor) -> float:
    """By how much a weight is made smaller that multiplies x before x is normalised.

    float16 ends at 65,504: a product overflows where the maps of a residual stream have grown to a
    tenth of that. A power of two, so that nothing is rounded but what is next to nothing.
    """
    return 32.0 if x.dtype == torch.float16 else 1.0


def folded(
    norm: GroupNorm1, layer: nn.Conv2d, dtype: torch.dtype, room: float = 1.0
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


# ---- SPANetV2


class FusedAdaptiveMixer(_Twin, SpectralAdaptiveMixer):
    """SPANetV2's mixer: filters leave contiguous maps, which the layers after them take slowly."""

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the tokens of (B, C, H, W)."""
        if not _is_fused(x):
            return super().forward(x)
        query = F.gelu(call(self.query, x))
        context = self.filter(self.local(call(self.value, x)))
        if not is_transformed() and query.is_contiguous(memory_format=LAYOUT):
            context = context.contiguous(memory_format=LAYOUT)
        if is_unmodified(self.proj, nn.Sequential):
            for layer in self.proj:
                context = call(layer, context)
        else:
            context = self.proj(context)
        return call(self.proj_out, query * context)


class FusedAttention(_Twin, Attention):
    """Attention whose projections are matrix products on a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the tokens of (B, C, H, W)."""
        if not _is_fused(x):
            return super().forward(x)
        return call(self.proj, self.attend(call(self.qkv, x)))


class FusedStarMlp(_Twin, StarMlp):
    """SPANetV2's MLP on a GPU: its second convolution takes in StarReLU's two numbers."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        if not (_is_fused(x) and runs_on_pixels(x)):
            return super().forward(x)
        hidden = call(self.fc1, x)
        act: Any = self.act
        plain = is_unmodified(act, StarReLU) and is_unmodified(act.relu, nn.ReLU)
        if not plain or not is_pointwise(self.fc2):
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
