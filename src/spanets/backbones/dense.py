"""Backbones for detection and segmentation: any timm model with maps at strides 4 to 32."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from timm.layers import Format
from torch import Tensor, nn

from spanets.backbones.factory import create_model
from spanets.backbones.registry import own_models
from spanets.weights import LoadReport, load_weights
from spanets.weights.choosing import Given
from spanets_runtime.errors import UsageError

STRIDES = (4, 8, 16, 32)


class DenseBackbone(nn.Module):
    """A timm model that returns a pyramid of feature maps.

    Models of this package get one norm per stage, as the released detectors and segmenters have
    (SPANet: GroupNorm; SPANetV2: LayerNorm without bias). `output_norm: false` in `model_args`
    leaves the norms out.

    Args:
        name: timm name.
        model_args: Arguments of `timm.create_model`.
        frozen_stages: Number of first stages, 0 to 4, that stay frozen together with the stem:
            their weights do not train, and they run in evaluation mode.
        strides: Strides of the maps to return, in this order.

    Attributes:
        out_channels: Channels of each map.

    Raises:
        UsageError: unknown model, or a model without maps at these strides.
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
        """Returns maps (B, C, ~H / stride, ~W / stride) of images (B, 3, H, W) of any size."""
        maps = self.net(images)
        if self._channels_last:  # Swin and similar models
            maps = [x.permute(0, 3, 1, 2) for x in maps]
        return list(maps)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode; frozen stages stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen():
            module.training = False
        return self

    def load(self, path: Given, ema: bool | None = None) -> LoadReport:
        """Loads weights of a classifier, detector or segmenter, ours or the authors'.

        Args:
            path: See `load_weights`.
            ema: See `load_weights`.

        Raises:
            WeightsError: unreadable file, or weights that do not fit.
        """
        return load_weights(self.net, path, ema=ema)

    def _frozen(self) -> list[nn.Module]:
        """Returns the modules of the frozen stages and of everything before them."""
        if not self.frozen_stages:
            return []
        modules = {row["reduction"]: row["module"] for row in self.net.feature_info.info}
        last = _flat(modules[STRIDES[self.frozen_stages - 1]])
        frozen: list[nn.Module] = []
        end = 0
        for name, module in self.net.named_modules():
            name = _flat(name.removeprefix("model."))
            if name in ("", "model") or last.startswith(f"{name}_"):
                continue  # also contains later stages
            frozen.append(module)
            if name == last or name.startswith(f"{last}_"):
                end = len(frozen)
        return frozen[:end]


def _flat(name: str) -> str:
    """Returns a module's name in the form that timm's feature extractors use."""
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
