"""The four-stage frame that the families share: block, stage, network, feature extraction.

Follows timm's contract for hierarchical models, and the MetaFormer block: norm, token mixer,
norm, MLP, each half with a shortcut. Everything is NCHW. A family file supplies mixer, norm, MLP,
stem and head.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.layers import DropPath, calculate_drop_path_rates
from timm.models import checkpoint_seq
from timm.models._features import FeatureGetterNet, feature_take_indices
from torch import Tensor, fx, nn

from spanets.mixers.folding import fold_norm, fold_scale

MIN_SIZE = 32
"""Smallest image side: four stages halve the stem's stride of 4 three times more."""

# oneDNN runs 1×1 convolutions on channels-last maps without reordering them: a fifth of SPANet's
# time on the CPU (benchmarks/cpu_speed.py).
CPU_LAYOUT = torch.channels_last

BRANCH_SCALES = ("res_scale", "layer_scale", "none")
LAYER_SCALE_INIT = 1e-5

Layer = Callable[..., nn.Module]


def prepare_images(x: Tensor) -> Tensor:
    """Checks the shape of a batch of images and, on the CPU, gives it the fast layout.

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
    return x.contiguous(memory_format=CPU_LAYOUT) if x.device.type == "cpu" else x


# A leaf of torch.fx: a symbolic trace has no size to compare.
fx.wrap("prepare_images")


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

    token_mixer: Any  # tells its `boundary_layers`
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

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        branch = self.drop_path1(self.layer_scale1(self.token_mixer(self.norm1(x))))
        x = self.res_scale1(x) + branch
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


class PyramidBackbone(nn.Module):
    """timm's contract for a network of stem, stages, norm and head.

    A family's constructor sets the modules and calls `_finish`. `output_norms` (one a stage, for
    dense prediction) may be None; `forward_features` ends with `norm`, the stages' outputs that
    `forward_intermediates` returns are taken before it.
    """

    stem: nn.Module
    stages: nn.Sequential
    norm: nn.Module
    output_norms: nn.ModuleList | None
    head: Any  # timm's heads: `fc`, `global_pool`, `reset`, perhaps a `norm` of its own

    def _finish(self, dims: Sequence[int], num_classes: int, in_chans: int) -> None:
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = dims[-1]
        self._measure_head()
        self.grad_checkpointing = False
        self.feature_info = [
            {"num_chs": dim, "reduction": 4 * 2**i, "module": f"stages.{i}"}
            for i, dim in enumerate(dims)
        ]

    def _measure_head(self) -> None:
        # Pooling by concatenation, as of mean and maximum, widens the features.
        self.head_hidden_size = self.num_features * self.head.global_pool.feat_mult()

    @torch.jit.ignore
    def init_weights(self) -> None:
        """Initialises all parameters anew, as for a model that was built on the meta device."""
        for module in self.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        self._init_linear()

    def _init_linear(self) -> None:
        """Initialises what the family's paper does not leave to the framework's default."""
        raise NotImplementedError

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Returns patterns that order the parameters by depth, for layer decay."""
        blocks = [
            (r"^stages\.(\d+)\.downsample", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^(?:norm|output_norms)", (99999,)),
        ]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else blocks}

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Returns the biases of two dimensions; timm spares all parameters of one by itself."""
        named = self.named_parameters()
        return {name for name, value in named if name.endswith(".bias") and value.ndim > 1}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes each block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable
        for stage in self.stages:
            assert isinstance(stage, Stage)
            stage.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """Returns what `reset_classifier` makes anew, or an identity where there are no classes."""
        return self.head.fc

    def reset_classifier(
        self,
        num_classes: int,
        global_pool: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Makes a new classifier for this many classes; 0 removes it, `global_pool=""` pooling."""
        like = next(self.stem.parameters())
        self.num_classes = num_classes
        self.head.in_features = self.num_features  # pruning changes it
        self.head.reset(num_classes, global_pool)
        # Before timm 1.0.29 a new classifier was in float32, on the CPU and training.
        self.head.to(device or like.device, dtype or like.dtype).train(self.training)
        self._measure_head()

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Runs the stages and returns their outputs.

        Args:
            x: Images (B, in_chans, H, W).
            indices: The last n stages, these stages, or all of them.
            norm: Apply the final norm to the last stage's output where it is among them.
                Output norms of a dense-prediction backbone, which has no other, are always applied.
            stop_early: Stop after the last stage that is asked for.
            output_fmt: "NCHW", the only one.
            intermediates_only: Leave the final features out.

        Returns:
            Maps at strides 4, 8, 16, 32; with the final features before them unless
            `intermediates_only`.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt is {output_fmt!r}, allowed: NCHW")
        taken, last = feature_take_indices(len(self.stages), indices)
        stages = self.stages[: last + 1] if stop_early else self.stages
        intermediates = []
        x = self.stem(x)
        for i, stage in enumerate(stages):
            x = stage(x)
            if i in taken:
                tap = x if self.output_norms is None else self.output_norms[i](x)
                intermediates.append(self.norm(tap) if norm and i == len(self.stages) - 1 else tap)
        if intermediates_only:
            return intermediates
        # The final norm fits the last stage alone, which an early stop leaves out.
        return self.norm(x) if len(stages) == len(self.stages) else x, intermediates

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Removes what the outputs of these stages do not need; returns their indices."""
        taken, last = feature_take_indices(len(self.stages), indices)
        shortened = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if self.output_norms is not None:
            self.output_norms = nn.ModuleList(
                norm if i in taken else nn.Identity()
                for i, norm in enumerate(self.output_norms[: last + 1])
            )
        if shortened:
            self.num_features = self.feature_info[last]["num_chs"]
        if prune_norm or shortened:
            self.norm = nn.Identity()
        if prune_head or shortened:
            self.reset_classifier(0, "")
        if (prune_norm or prune_head or shortened) and hasattr(self.head, "norm"):
            self.head.norm = nn.Identity()
        return taken

    def forward_features(self, x: Tensor) -> Tensor:
        """Maps images (B, in_chans, H, W) to normed features (B, C, H / 32, W / 32)."""
        return self.norm(self.stages(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Maps features to logits (B, classes), or to the pooled features (B, C)."""
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (B, in_chans, H, W) to logits (B, classes)."""
        return self.forward_head(self.forward_features(x))


class PyramidFeatures(FeatureGetterNet):
    """What `features_only=True` builds: maps at strides 4, 8, 16 and 32, NCHW."""

    model: PyramidBackbone

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes each block in the backward pass instead of keeping its activations."""
        self.model.set_grad_checkpointing(enable)
