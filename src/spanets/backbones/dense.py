"""Backbones for detection and segmentation: maps at strides 4, 8, 16 and 32 of any timm model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from timm.layers import Format
from torch import Tensor, nn

from spanets.backbones.factory import create_model
from spanets.backbones.registry import own_models
from spanets.weights import LoadReport, load_weights
from spanets_runtime.errors import UsageError

STRIDES = (4, 8, 16, 32)


class DenseBackbone(nn.Module):
    """A pyramid of maps, with one norm a stage where the model is of this package.

    The norms (GroupNorm of SPANet, LayerNorm without bias of SPANetV2) are those of the released
    detectors and segmenters; `output_norm: false` among the arguments leaves them out.

    Args:
        name: timm name.
        model_args: Arguments of `timm.create_model`.
        frozen_stages: So many first stages, with the stem, keep their weights and the statistics
            of their norms, and skip nothing at random; 0 to 4.
        strides: Of the maps that are returned, in this order.

    Attributes:
        out_channels: Channels of each map.

    Raises:
        UsageError: an unknown model, or one without these maps.
        ValueError: frozen_stages is out of range.
    """

    def __init__(
        self,
        name: str,
        model_args: Mapping[str, Any] | None = None,
        frozen_stages: int = 0,
        strides: Sequence[int] = STRIDES,
    ) -> None:
        super().__init__()
        if frozen_stages not in range(len(STRIDES) + 1):
            raise ValueError(f"frozen_stages is {frozen_stages}, allowed: 0 to {len(STRIDES)}")
        self.net = _create_pyramid(name, dict(model_args or {}), strides)
        info = self.net.feature_info
        self.out_channels = tuple(info.channels())
        self.frozen_stages = frozen_stages
        self._channels_last = getattr(self.net, "output_fmt", Format.NCHW) == Format.NHWC
        for module in self._frozen():
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
        self.train()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps images (B, 3, H, W) of any size to maps (B, C, ~H / stride, ~W / stride)."""
        maps = self.net(images)
        if self._channels_last:  # Swin and its like
            maps = [x.permute(0, 3, 1, 2) for x in maps]
        return list(maps)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode; frozen stages stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen():
            module.training = False
        return self

    def load(self, path: str | Path, ema: bool | None = None) -> LoadReport:
        """Loads a classifier's, detector's or segmenter's weights, ours or released.

        Args:
            path: As for `load_weights`.
            ema: As for `load_weights`.

        Raises:
            WeightsError: an unreadable file, or weights that do not fit.
        """
        return load_weights(self.net, path, ema=ema)

    def _frozen(self) -> list[nn.Module]:
        """The modules of the frozen stages and all before them."""
        if not self.frozen_stages:
            return []
        modules = {row["reduction"]: row["module"] for row in self.net.feature_info.info}
        last = _flat(modules[STRIDES[self.frozen_stages - 1]])
        frozen: list[nn.Module] = []
        end = 0
        for name, module in self.net.named_modules():
            name = _flat(name.removeprefix("model."))
            if name in ("", "model") or last.startswith(f"{name}_"):
                continue  # holds later stages as well
            frozen.append(module)
            if name == last or name.startswith(f"{last}_"):
                end = len(frozen)
        return frozen[:end]


def _flat(name: str) -> str:
    """The name of a module as timm's feature extractors write it."""
    return name.replace(".", "_")


def _create_pyramid(name: str, arguments: dict[str, Any], strides: Sequence[int]) -> Any:
    if name in own_models():
        arguments = {"output_norm": True, **arguments}
    net: Any = create_model(name, arguments, features_only=True)
    found = net.feature_info.reduction()
    if list(found) == list(strides):
        return net
    indices = _indices_of(strides, found, name)  # ResNets have a map at stride 2 as well
    return create_model(name, arguments, features_only=True, out_indices=indices)


def _indices_of(wanted: Sequence[int], found: Sequence[int], name: str) -> tuple[int, ...]:
    if missing := [stride for stride in wanted if stride not in found]:
        raise UsageError(
            f"model {name} has no map at stride {missing[0]} (its strides: "
            f"{', '.join(map(str, found))}); detectors and segmenters need 4, 8, 16 and 32"
        )
    last = {stride: i for i, stride in enumerate(found)}
    return tuple(last[stride] for stride in wanted)
