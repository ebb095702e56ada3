"""Backbones for detection and segmentation: any timm model with maps at strides 4 to 32."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import timm
from timm.layers import Format
from torch import Tensor, nn

from spanets.backbones.factory import create_model
from spanets.backbones.freezing import first_parameters, is_within, modules_of
from spanets.backbones.pyramid import PyramidFeatures
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
        UsageError: unknown model, a model without maps at these strides, or one whose first stages
            cannot be frozen alone.
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
        arguments = dict(model_args or {})
        self.net = _create_pyramid(name, arguments, strides)
        info = self.net.feature_info
        self.out_channels = tuple(info.channels())
        self.frozen_stages = frozen_stages
        self._channels_last = getattr(self.net, "output_fmt", Format.NCHW) == Format.NHWC
        frozen = self._find_frozen(name, arguments) if frozen_stages else set()
        for key, parameter in self.net.named_parameters():
            if key in frozen:
                parameter.requires_grad_(False)
        self._frozen_modules = frozenset(modules_of(self.net, frozen))
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
        for name, module in self.net.named_modules():
            if is_within(name, self._frozen_modules):  # adapters may have added layers
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

    def _find_frozen(self, name: str, arguments: dict[str, Any]) -> set[str]:
        """Returns the names of the parameters of the stem and the frozen stages."""
        net, stride = self.net, STRIDES[self.frozen_stages - 1]
        if stride not in net.feature_info.reduction():  # the map is not among those returned
            net = _create_pyramid(name, arguments, STRIDES)
        frozen = first_parameters(net, stride, _image_size(name, arguments))
        if frozen is None:
            raise UsageError(
                f"frozen_stages is {self.frozen_stages}, but every map of {name} depends on all "
                "stages; set frozen_stages to 0"
            )
        return frozen


def _image_size(name: str, arguments: Mapping[str, Any]) -> tuple[int, int, int]:
    """Returns channels, height and width of an image that a model accepts."""
    config = timm.get_pretrained_cfg(name)
    channels, *sides = (3, 224, 224) if config is None else config.input_size
    given = arguments.get("img_size") or sides
    height, width = (given, given) if isinstance(given, int) else given
    return arguments.get("in_chans", channels), height, width


def _create_pyramid(name: str, arguments: dict[str, Any], strides: Sequence[int]) -> Any:
    options: dict[str, Any] = {"features_only": True}
    if name in own_models():
        arguments = {"output_norm": True, **arguments}
        options["feature_cls"] = PyramidFeatures  # with and without norms, for the same names
    net: Any = create_model(name, arguments, **options)
    found = net.feature_info.reduction()
    if list(found) == list(strides):
        return net
    indices = _indices_of(strides, found, name)  # ResNets have a map at stride 2 as well
    return create_model(name, arguments, **options, out_indices=indices)


def _indices_of(wanted: Sequence[int], found: Sequence[int], name: str) -> tuple[int, ...]:
    if missing := [stride for stride in wanted if stride not in found]:
        raise UsageError(
            f"model {name} has no map at stride {missing[0]} (its strides: "
            f"{', '.join(map(str, found))}); detectors and segmenters need 4, 8, 16 and 32"
        )
    last = {stride: i for i, stride in enumerate(found)}
    return tuple(last[stride] for stride in wanted)
