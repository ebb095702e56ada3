"""Detectors on any timm backbone: RetinaNet, Mask R-CNN, its cascade, and Keypoint R-CNN.

`make_detector` builds one, by default with the settings of both papers' COCO runs. Input images are
normalised. Targets and results are torchvision's dictionaries, with labels from 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from spanets.backbones.dense import STRIDES, DenseBackbone
from spanets.detection.network import retinanet
from spanets.detection.network.batching import Detection, Size, Target
from spanets.detection.network.rcnn import (
    make_cascade_mask_rcnn,
    make_keypoint_rcnn,
    make_mask_rcnn,
)
from spanets.detection.network.settings import NMS_IOU, PAPERS, Settings
from spanets.formats.coco.keypoints import Keypoints
from spanets_runtime.errors import UsageError, nearest

__all__ = [
    "KINDS",
    "PAPERS",
    "Detection",
    "Settings",
    "Size",
    "Target",
    "build_detector",
    "describe_detector",
    "has_keypoints",
    "has_masks",
    "keypoints_of",
    "make_detector",
    "nms_iou_of",
]

KINDS = tuple(PAPERS)


def make_detector(
    kind: str,
    backbone: str,
    classes: int,
    backbone_args: Mapping[str, Any] | None = None,
    frozen_stages: int = 0,
    settings: Settings | None = None,
) -> nn.Module:
    """Builds a detector with random weights; `detector.backbone.body.load(path)` loads a backbone.

    Args:
        kind: One of `KINDS`.
        backbone: timm's name of the backbone.
        classes: Number of classes without the background.
        backbone_args: Arguments of `timm.create_model`.
        frozen_stages: Number of frozen stages; see `DenseBackbone`.
        settings: Sizes of the parts; None means the papers', `PAPERS[kind]`.

    Returns:
        A module that maps a list of images to losses (training, with targets) or detections.

    Raises:
        UsageError: an unknown kind or backbone, or a backbone without maps at strides 4 to 32.
    """
    if kind not in KINDS:
        raise UsageError(f"detector is {kind!r}, allowed: {', '.join(KINDS)}{nearest(kind, KINDS)}")
    strides = retinanet.BODY_STRIDES if kind == "retinanet" else STRIDES
    body = DenseBackbone(backbone, backbone_args, frozen_stages, strides)
    builders: dict[str, Callable[[DenseBackbone, int, Settings], nn.Module]] = {
        "retinanet": retinanet.RetinaNet,
        "mask_rcnn": make_mask_rcnn,
        "cascade_mask_rcnn": make_cascade_mask_rcnn,
        "keypoint_rcnn": make_keypoint_rcnn,
    }
    return builders[kind](body, classes, settings or PAPERS[kind])


def describe_detector(kind: str, frozen_stages: int, settings: Settings) -> dict[str, Any]:
    """Returns a description of a detector, for a checkpoint and `build_detector`."""
    return {"kind": kind, "frozen_stages": frozen_stages, "settings": asdict(settings)}


def build_detector(
    backbone: str, backbone_args: Mapping[str, Any], classes: int, described: Mapping[str, Any]
) -> nn.Module:
    """Builds a detector from the description of `describe_detector`.

    Raises:
        UsageError: the description is damaged; or see `make_detector`.
    """
    try:
        settings = Settings(**described["settings"])
        kind, frozen_stages = str(described["kind"]), int(described["frozen_stages"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the detector's description is damaged ({error})") from error
    return make_detector(kind, backbone, classes, backbone_args, frozen_stages, settings)


def keypoints_of(described: Mapping[str, Any]) -> Keypoints | None:
    """Returns the keypoints in a checkpoint's description of a detector, if it predicts some.

    Raises:
        UsageError: they are missing or damaged.
    """
    if not has_keypoints(str(described.get("kind"))):
        return None
    try:
        keypoints, count = (
            Keypoints.parse(described["keypoints"]),
            described["settings"]["keypoints"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the detector's description is damaged ({error})") from error
    if len(keypoints.names) != count:
        problem = f"{len(keypoints.names)} names of {count} keypoints"
        raise UsageError(f"the detector's description is damaged ({problem})")
    return keypoints


def nms_iou_of(described: Mapping[str, Any]) -> float:
    """Returns the IoU at which a described detector drops objects; see `Settings`."""
    return float(described["settings"].get("nms_iou", NMS_IOU))


def has_masks(kind: str) -> bool:
    """Whether a kind of detector predicts masks, and needs them in training."""
    return kind in ("mask_rcnn", "cascade_mask_rcnn")


def has_keypoints(kind: str) -> bool:
    """Whether a kind of detector predicts keypoints, and needs them in training."""
    return kind == "keypoint_rcnn"
