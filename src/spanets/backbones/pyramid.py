"""The four-stage network that the families share; it follows timm's interface for backbones.

All maps are NCHW. A family's file supplies stem, stages (with `blocks`), norm and head.
"""

from collections.abc import Sequence
from typing import Any

import torch
from timm.models import FeatureListNet

# timm has no public module for these parts of `features_only` and `forward_intermediates`.
from timm.models._features import FeatureGetterNet, feature_take_indices
from timm.models.metaformer import MetaFormer
from torch import Tensor, nn

from spanets.backbones.scripting import Recorded, RecordedMaps
from spanets.backbones.stages import Stage, dilate_stages


class PyramidBackbone(MetaFormer):
    """A MetaFormer: a network of stem, stages, norm and head, with timm's methods.

    Tools recognise timm's networks by their classes, so timm's MetaFormer is the parent; every
    method is our own.

    A family's constructor sets the modules and calls `_finish`. `output_norms` holds one norm per
    stage for dense prediction, or is None. `forward_features` applies `norm`;
    `forward_intermediates` returns the stages' outputs before it.
    """

    stem: nn.Module  # type: ignore[assignment]
    stages: nn.Sequential
    norm: nn.Module | None  # `PyramidFeatures` sets norm and head to None
    output_norms: nn.ModuleList | None
    head: Any  # like timm's heads: `fc`, `global_pool`, `reset`, optionally `norm`

    def __init__(self) -> None:
        nn.Module.__init__(self)  # the parent's would build its own stages

    def _finish(
        self, dims: Sequence[int], num_classes: int, in_chans: int, output_stride: int = 32
    ) -> None:
        dilate_stages(self.stages, output_stride)
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = dims[-1]
        self._measure_head()
        self.grad_checkpointing = False
        self.feature_info = [
            {"num_chs": dim, "reduction": min(4 * 2**i, output_stride), "module": f"stages.{i}"}
            for i, dim in enumerate(dims)
        ]

    def _measure_head(self) -> None:
        # Pooling that concatenates, such as "catavgmax", widens the features.
        self.head_hidden_size = self.num_features * self.head.global_pool.feat_mult()

    @torch.jit.ignore
    def init_weights(self) -> None:
        """Initialises all parameters again, for example after building on the meta device."""
        for module in self.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        self._init_linear()

    def _init_linear(self) -> None:
        """Initialises the layers for which the paper does not use torch's defaults."""
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
        """Returns the two-dimensional biases; timm already excludes all one-dimensional ones."""
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
        """Returns the classifier that `reset_classifier` replaces; an identity without classes."""
        return self.head.fc

    def reset_classifier(  # type: ignore[override]  # timm's other networks have no `reset_other`
        self,
        num_classes: int,
        global_pool: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Makes a new classifier; 0 classes remove it, `global_pool=""` removes the pooling."""
        like = next(self.stem.parameters())
        self.num_classes = num_classes
        self.head.in_features = self.num_features  # pruning may have changed it
        self.head.reset(num_classes, global_pool)
        # Before timm 1.0.29 a new classifier was float32, on the CPU, in training mode.
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
            indices: Stages to return: a list of indices, n for the last n, or None for all.
            norm: Whether to apply the final norm to the last stage's returned output; without
                effect for SPANetV2, whose final norm is in the head. Output norms of a
                dense-prediction backbone are always applied.
            stop_early: Whether to stop after the last requested stage.
            output_fmt: Must be "NCHW".
            intermediates_only: Whether to leave the final features out.

        Returns:
            Maps at strides 4, 8, 16, 32; without `intermediates_only` the pair of the final
            features and these maps.
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
                final = norm and i == len(self.stages) - 1
                intermediates.append(self._normed(tap) if final else tap)
        if intermediates_only:
            return intermediates
        # The final norm fits only the last stage, which an early stop may skip.
        return self._normed(x) if len(stages) == len(self.stages) else x, intermediates

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Removes modules that the outputs of these stages do not need; returns their indices."""
        taken, last = feature_take_indices(len(self.stages), indices)
        shortened = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if self.output_norms is not None:
            self.output_norms = nn.ModuleList(
                norm if i in taken else None  # type: ignore[misc]
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
        """Maps images (B, in_chans, H, W) to features (B, C, H / 32, W / 32).

        SPANet's are normed; SPANetV2's are not, since its final norm is in the head.
        """
        return self._normed(self.stages(self.stem(x)))

    def _normed(self, x: Tensor) -> Tensor:
        return x if self.norm is None else self.norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Maps features to logits (B, classes), or to the pooled features (B, C)."""
        return x if self.head is None else self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (B, in_chans, H, W) to logits (B, classes)."""
        return self.forward_head(self.forward_features(x))

    def __prepare_scriptable__(self) -> nn.Module:
        return Recorded(self, self.in_chans)


class PyramidParts(FeatureListNet):
    """What `features_only=True` builds: maps at strides 4, 8, 16 and 32, NCHW.

    Its children `stem`, `stages_0`, ... run in order, as tools expect that run them themselves. It
    has no head and no norm, which feature maps do not need.

    Args:
        model: The network, without output norms.
        out_indices: Indices of the stages, or the number of the last ones.
        **options: See timm's `FeatureListNet`.
    """

    def __init__(self, model: PyramidBackbone, out_indices: Any = 4, **options: Any) -> None:
        assert model.output_norms is None, "each norm belongs to one map; use PyramidFeatures"
        super().__init__(model, out_indices, **{**options, "flatten_sequential": True})
        self.in_chans = model.in_chans
        self.register_load_state_dict_pre_hook(_flatten_names)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes each block in the backward pass instead of keeping its activations."""
        for part in self.values():
            if isinstance(part, Stage):
                part.grad_checkpointing = enable

    def __prepare_scriptable__(self) -> nn.Module:
        return RecordedMaps(self, self.in_chans)


def _flatten_names(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    """Renames tensors of `PyramidFeatures`, which earlier versions built by default."""
    for key in [key for key in state if key.startswith(f"{prefix}model.")]:
        name = key.removeprefix(f"{prefix}model.").replace("stages.", "stages_", 1)
        state[f"{prefix}{name}"] = state.pop(key)


class PyramidFeatures(FeatureGetterNet):
    """What `features_only=True, output_norm=True` builds: maps that have a norm each.

    It holds the network in `model`, without its head and final norm.

    Args:
        model: The network.
        out_indices: Indices of the stages, or the number of the last ones.
        flatten_sequential: Without effect; older versions of timm pass it to every class.
        **options: See timm's `FeatureGetterNet`.
    """

    model: PyramidBackbone

    def __init__(
        self,
        model: PyramidBackbone,
        out_indices: Any = 4,
        flatten_sequential: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model, out_indices, **options)
        if options.get("prune", True):  # pruning has emptied both, except for a requested norm
            model.head = None
            model.norm = model.norm if options.get("norm") else None

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes each block in the backward pass instead of keeping its activations."""
        self.model.set_grad_checkpointing(enable)

    def __prepare_scriptable__(self) -> nn.Module:
        return RecordedMaps(self, self.model.in_chans)
