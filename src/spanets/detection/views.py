"""Detects objects in views of an image: tiles, mirror images, scales, corners; merges the results.

Objects of a class whose boxes have an IoU above `nms_iou` are one object; the one with the highest
score stays, with its box, mask and keypoints.

A detector with views needs no more memory than the detector: views are processed one by one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import batched_nms

from spanets.detection import keypoints_of, nms_iou_of
from spanets.detection.network.batching import Detection, Size
from spanets.detection.network.pasting import paste_all
from spanets.detection.network.settings import NMS_IOU
from spanets.training.options import Views
from spanets_runtime.windows import Box, Tiling, corners

MOST_OBJECTS = 100
"""Largest number of objects in an image after merging mirror images and scales, as without."""

HELD, LIKELY = 0.7, 0.5
"""A cut object is dropped if a larger or uncut one of a neighbour holds this share of its box, with
at least this share of its score."""

CUT = "cut"
"""Name, in the detections of a tiled image, of whether an object touches an inner tile border."""


COMBINED = "objects merged"
"""What is done with the results of several views."""

CORNER = 3 / 4
"""Sides of a corner, as a fraction of the image's."""


class Augmented(nn.Module):
    """A detector that merges the detections of several views of an image.

    Args:
        model: A detector in evaluation mode.
        views: The views.
        mirrored: The keypoint that each one becomes in a mirror image; see `Keypoints.mirrored`.
        nms_iou: IoU above which two objects of a class are one; that of the detector.
    """

    def __init__(
        self,
        model: nn.Module,
        views: Views,
        mirrored: Sequence[int] | None = None,
        nms_iou: float = NMS_IOU,
    ) -> None:
        super().__init__()
        self.model, self.views, self.mirrored = model, views, mirrored
        self.nms_iou = nms_iou

    def forward(
        self,
        images: list[Tensor],
        targets: None = None,
        sizes: list[Size] | None = None,
        paste: bool = True,
    ) -> list[Detection]:
        """Returns the detections of each image; see `RegionDetector.forward`."""
        sizes = sizes or [(image.shape[-2], image.shape[-1]) for image in images]
        found = [self._detect(*pair) for pair in zip(images, sizes, strict=True)]
        if paste and found and "masks" in found[0]:
            return [paste_all(*pair) for pair in zip(found, sizes, strict=True)]
        return found

    def _detect(self, image: Tensor, size: Size) -> Detection:
        height, width = image.shape[-2:]
        views = []
        for scale in self.views.scales:
            sides = [max(1, round(side * scale)) for side in (height, width)]
            views += self._detect_both(_resize(image, sides), size)
        for corner in corners(width, height, CORNER) if self.views.corners else ():
            left, top, right, bottom = corner
            enlarged = _resize(image[:, top:bottom, left:right], (height, width))
            for view in self._detect_both(enlarged, (bottom - top, right - left)):
                views.append(_place(view, corner, (width, height), size))
        return _suppress(join(views), self.nms_iou, MOST_OBJECTS)

    def _detect_both(self, image: Tensor, size: Size) -> list[Detection]:
        """Returns the detections in an image and in its mirror image, scaled to a size."""
        (plain,) = self.model([image], sizes=[size], paste=False)
        (mirrored,) = self.model([image.flip(-1)], sizes=[size], paste=False)
        return [plain, mirror(mirrored, size[1], self.mirrored)]


def augment(network: nn.Module, described: Mapping[str, Any], views: Views) -> Augmented:
    """Returns a described detector that merges views, with its keypoints and its NMS."""
    keypoints = keypoints_of(described)
    mirrored = keypoints.mirrored() if keypoints else None
    return Augmented(network, views, mirrored, nms_iou_of(described))


def _place(found: Detection, corner: Box, sides: tuple[int, int], size: Size) -> Detection:
    """Returns the detections of a corner in the whole image, without those that its border cuts.

    The whole image is always a view as well, and shows these objects uncut.

    Args:
        found: Detections in pixels of the corner.
        corner: The corner, in pixels of the network's input.
        sides: Width and height of the network's input.
        size: Height and width of the image to whose pixels the boxes are scaled.
    """
    moved = _move(found, (corner[0], corner[1]))
    whole = ~_touches(moved["boxes"], corner, sides)
    scaled = _move(moved, scale=(size[1] / sides[0], size[0] / sides[1]))
    return {name: value[whole] for name, value in scaled.items()}


def _move(
    found: Detection, by: tuple[float, float] = (0, 0), scale: tuple[float, float] = (1, 1)
) -> Detection:
    """Returns the detections with boxes and keypoints moved in x and y, then scaled."""
    boxes = found["boxes"]
    moved = {"boxes": (boxes + boxes.new_tensor(by * 2)) * boxes.new_tensor(scale * 2)}
    if "keypoints" in found:
        points = found["keypoints"]
        moved["keypoints"] = (points + points.new_tensor([*by, 0])) * points.new_tensor([*scale, 1])
    return {**found, **moved}


def _resize(image: Tensor, size: Sequence[int]) -> Tensor:
    if image.shape[-2:] == torch.Size(size):
        return image
    return F.interpolate(image[None], list(size), mode="bilinear", antialias=True)[0]


def mirror(found: Detection, width: int, mirrored: Sequence[int] | None = None) -> Detection:
    """Returns the detections of a mirror image in the image of this width.

    Args:
        found: The detections.
        width: Width of the image.
        mirrored: The keypoint that each one is in the image; None keeps them.
    """
    left, top, right, bottom = found["boxes"].unbind(1)
    boxes = torch.stack([width - right, top, width - left, bottom], 1)
    own = {"masks": found["masks"].flip(-1)} if "masks" in found else {}
    if "keypoints" in found:
        x, y, visible = found["keypoints"].unbind(2)
        order = list(range(x.shape[1])) if mirrored is None else list(mirrored)
        own["keypoints"] = torch.stack([width - x, y, visible], 2)[:, order]
        own["keypoints_scores"] = found["keypoints_scores"][:, order]
    return {**found, "boxes": boxes, **own}


def join(views: Sequence[Detection]) -> Detection:
    """Returns the detections of all views, in order of falling score."""
    joined = {name: torch.cat([view[name] for view in views]) for name in views[0]}
    order = joined["scores"].argsort(descending=True, stable=True)
    return {name: value[order] for name, value in joined.items()}


def _suppress(found: Detection, nms_iou: float, most: int | None = None) -> Detection:
    """Returns the detections without those that an equal or better one covers."""
    # In double precision: `batched_nms` moves classes apart by adding large numbers.
    boxes, scores = found["boxes"].double(), found["scores"].double()
    kept = batched_nms(boxes, scores, found["labels"], nms_iou)[:most]
    return {name: value[kept] for name, value in found.items()}


# ---- tiles


def find_tiled(
    find: Callable[[Image.Image], Detection],
    image: Image.Image,
    tiling: Tiling,
    nms_iou: float = NMS_IOU,
) -> Detection:
    """Returns the detections of an image, found tile by tile.

    An object that an inner border cuts is dropped if a neighbour holds it whole. An object that is
    larger than the overlap may stay cut, perhaps in several parts; `CUT` marks such objects.

    Args:
        find: Returns the detections of an image, in its pixels, with masks relative to the boxes.
        image: An RGB image.
        tiling: The tiles.
        nms_iou: IoU above which two objects of a class are one; that of the detector.
    """
    tiles = tiling.tiles(*image.size)
    if len(tiles) == 1:
        found = find(image)
        return {**found, CUT: torch.zeros_like(found["labels"], dtype=torch.bool)}
    views = []
    for tile in tiles:
        view = find(image.crop(tile))
        view = _move(view, (tile[0], tile[1]))
        views.append({**view, CUT: _touches(view["boxes"], tile, image.size)})
    return _suppress(join(_drop_cut(views, tiles)), nms_iou)


def _touches(boxes: Tensor, tile: Box, size: tuple[int, int]) -> Tensor:
    """Whether each box reaches a border of its tile that is not one of the image, (N,)."""
    near = max(2.0, (tile[2] - tile[0]) / 100)  # predicted boxes end a little before the border
    is_cut = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for i, limit in enumerate((0, 0, *size)):
        if tile[i] != limit:
            is_cut |= (boxes[:, i] - tile[i]).abs() <= near
    return is_cut


def _drop_cut(views: Sequence[Detection], tiles: Sequence[Box]) -> list[Detection]:
    """Returns the detections of each tile without cut ones that a neighbour holds whole."""
    left = []
    for view, tile in zip(views, tiles, strict=True):
        held = torch.zeros_like(view[CUT])
        for other, place in zip(views, tiles, strict=True):
            if place != tile and _overlap(tile, place):
                held |= _held(view, other)
        kept = ~(view[CUT] & held)
        left.append({name: value[kept] for name, value in view.items()})
    return left


def _overlap(one: Box, other: Box) -> bool:
    return all(max(one[i], other[i]) < min(one[i + 2], other[i + 2]) for i in (0, 1))


def _held(view: Detection, other: Detection) -> Tensor:
    """Whether a larger or uncut object of the same class in another view holds each, (N,)."""
    boxes, others = view["boxes"], other["boxes"]
    starts = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    ends = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    inside = (ends - starts).clamp(min=0).prod(2)  # (N, M)
    areas, larger = ((b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, others))
    holds = (inside >= HELD * areas[:, None]) & ((larger[None] > areas[:, None]) | ~other[CUT])
    holds &= view["labels"][:, None] == other["labels"][None]
    holds &= other["scores"][None] >= LIKELY * view["scores"][:, None]
    return holds.any(1)
