"""A backbone, a decoder and a classifier of pixels in one network, and the two that papers use."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from spanets.backbones.dense import DenseBackbone
from spanets.segmentation.network.decoders import FCNHead, SemanticFPN, UPerNet, pixel_classifier
from spanets_runtime.errors import UsageError, first_line, nearest

# The auxiliary head reads the map of this stage, the third: stride 16.
AUXILIARY_STAGE = 2


class Pyramid(Protocol):
    """A backbone for dense prediction, such as `spanets.backbones.dense.DenseBackbone`."""

    out_channels: Sequence[int]

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Maps images (B, 3, H, W) to maps (B, C, ~H / stride, ~W / stride), the finest first."""


class Segmenter(nn.Module):
    """Classifies every pixel of an image of any size that its backbone takes.

    Args:
        backbone: Gives four maps, and tells their channels by `out_channels`.
        decoder: From the maps to features at stride 4; tells its `channels`.
        classes: Logits of each pixel.
        dropout: Of whole channels, before the classifier.
        auxiliary: A head on the third map, which helps in training and rests in evaluation.

    Attributes:
        output_names: Of what an exported segmenter gives.
    """

    output_names = ("logits",)

    def __init__(
        self,
        backbone: nn.Module,
        decoder: SemanticFPN | UPerNet,
        classes: int,
        dropout: float = 0.1,
        auxiliary: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = classes
        self.backbone = backbone
        self.decoder = decoder
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = pixel_classifier(decoder.channels, classes)
        self.auxiliary = auxiliary

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Maps images (B, 3, H, W) to logits (B, classes, H, W).

        Where there is an auxiliary head, in training mode its logits come second.
        """
        maps = self.backbone(images)
        logits = _resize(self.classifier(self.dropout(self.decoder(maps))), images)
        if self.auxiliary is None or not self.training:
            return logits
        return logits, _resize(self.auxiliary(maps[AUXILIARY_STAGE]), images)


def _resize(logits: Tensor, images: Tensor) -> Tensor:
    return F.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False)


def semantic_fpn(
    backbone: Any,
    classes: int,
    pyramid_channels: int = 256,
    channels: int = 128,
    dropout: float = 0.1,
) -> Segmenter:
    """Makes a Semantic FPN; the defaults are both papers'."""
    decoder = SemanticFPN(backbone.out_channels, pyramid_channels, channels)
    return Segmenter(backbone, decoder, classes, dropout)


def upernet(
    backbone: Any,
    classes: int,
    channels: int = 320,
    pools: Sequence[int] = (1, 2, 3, 6),
    dropout: float = 0.1,
    auxiliary_channels: int = 256,
) -> Segmenter:
    """Makes a UPerNet with an auxiliary FCN head; the defaults are SPANetV2's training scripts'.

    SPANetV2's tables count 512 channels, and the classifier of ImageNet's 1000 classes that the
    network does not use (docs/segmentation.md).
    """
    dims = backbone.out_channels
    auxiliary = FCNHead(dims[AUXILIARY_STAGE], auxiliary_channels, classes, dropout)
    return Segmenter(backbone, UPerNet(dims, channels, pools), classes, dropout, auxiliary)


SEGMENTERS: dict[str, Callable[..., Segmenter]] = {"semantic_fpn": semantic_fpn, "upernet": upernet}


def make_segmenter(
    kind: str, backbone: Any, classes: int, arguments: Mapping[str, Any] | None = None
) -> Segmenter:
    """Makes a segmenter on a backbone.

    Args:
        kind: "semantic_fpn" or "upernet".
        backbone: A `Pyramid`.
        classes: Logits of each pixel.
        arguments: Of `semantic_fpn` or `upernet` beside these, such as `{"channels": 512}`.

    Raises:
        UsageError: an unknown kind, argument or value.
    """
    if kind not in SEGMENTERS:
        hint = f"{nearest(kind, SEGMENTERS)} (known: {', '.join(SEGMENTERS)})"
        raise UsageError(f"unknown segmenter {kind!r}{hint}")
    build = SEGMENTERS[kind]
    known = list(inspect.signature(build).parameters)[2:]
    arguments = dict(arguments or {})
    for name in arguments:
        if name not in known:
            hint = f"{nearest(name, known)} (known: {', '.join(known)})"
            raise UsageError(f"{kind} has no argument {name!r}{hint}")
    try:
        return build(backbone, classes, **arguments)
    # What torch raises of numbers that are none, or out of range.
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise UsageError(f"{kind} with {arguments}: {first_line(error)}") from error


def build_segmenter(
    name: str, model_args: Mapping[str, Any], classes: int, head: Mapping[str, Any]
) -> Segmenter:
    """Makes the segmenter that a checkpoint's metadata describes.

    Args:
        name: timm name of the backbone.
        model_args: Its arguments.
        classes: Logits of each pixel.
        head: Its "kind", "args" and "frozen_stages", see `make_segmenter` and `DenseBackbone`.

    Raises:
        UsageError: an unknown model, kind or argument, or a damaged description.
    """
    try:
        kind, arguments, frozen = head["kind"], head["args"], head["frozen_stages"]
        backbone = DenseBackbone(name, model_args, frozen)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the description of the segmenter is damaged ({error})") from error
    return make_segmenter(kind, backbone, classes, arguments)
