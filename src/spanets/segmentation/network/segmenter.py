"""Segmenters: backbone, decoder and pixel classifier in one network, and the papers' two."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from spanets.backbones.dense import DenseBackbone
from spanets.segmentation.network.decoders import FCNHead, SemanticFPN, UPerNet, pixel_classifier
from spanets_runtime.errors import UsageError, first_line, nearest

# Stage whose map, at stride 16, feeds the auxiliary head.
AUXILIARY_STAGE = 2


class Pyramid(Protocol):
    """A backbone for dense prediction, such as `spanets.backbones.dense.DenseBackbone`."""

    out_channels: Sequence[int]

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Returns maps (B, C, ~H / stride, ~W / stride) of images (B, 3, H, W), finest first."""


class Segmenter(nn.Module):
    """Classifies every pixel of an image of any size that the backbone supports.

    Args:
        backbone: A backbone with four maps, whose channels are in `out_channels`.
        decoder: A decoder to features at stride 4, whose channels are in `channels`.
        classes: Number of classes.
        dropout: Probability of dropping a channel before the classifier.
        auxiliary: A head on the third map, used in training only, or None.

    Attributes:
        output_names: Names of the outputs of an exported segmenter.
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

        With an auxiliary head, training mode returns a pair, whose second item is its logits.
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

    SPANetV2's tables count the parameters of 512 channels, and of the unused ImageNet classifier
    (docs/segmentation.md).
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
        classes: Number of classes.
        arguments: Other arguments of `semantic_fpn` or `upernet`, such as `{"channels": 512}`.

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
    # Raised by torch for values of a wrong type or out of range.
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise UsageError(f"{kind} with {arguments}: {first_line(error)}") from error


def build_segmenter(
    name: str, model_args: Mapping[str, Any], classes: int, head: Mapping[str, Any]
) -> Segmenter:
    """Makes the segmenter that a checkpoint's metadata describes.

    Args:
        name: timm's name of the backbone.
        model_args: Arguments of the backbone.
        classes: Number of classes.
        head: "kind", "args" and "frozen_stages"; see `make_segmenter` and `DenseBackbone`.

    Raises:
        UsageError: an unknown model, kind or argument, or a damaged description.
    """
    try:
        kind, arguments, frozen = head["kind"], head["args"], head["frozen_stages"]
        backbone = DenseBackbone(name, model_args, frozen)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the description of the segmenter is damaged ({error})") from error
    return make_segmenter(kind, backbone, classes, arguments)
