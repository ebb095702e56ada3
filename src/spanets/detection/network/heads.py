"""The second stage of two-stage detectors: classes, boxes, masks and keypoints of proposals.

Shape legend: R regions of all images together, K classes without the background (class 0).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import (
    RoIHeads,
    keypointrcnn_inference,
    keypointrcnn_loss,
    maskrcnn_inference,
    maskrcnn_loss,
)
from torchvision.ops import MultiScaleRoIAlign, generalized_box_iou_loss
from torchvision.ops.boxes import clip_boxes_to_image, remove_small_boxes
from torchvision.ops.poolers import initLevelMapper

from spanets.detection.network.batching import Detection, Size, Target, check_finite
from spanets.detection.network.settings import Settings
from spanets.formats.coco.bits import unpack_masks

LEVELS = (2, 3, 4, 5)
"""Regions are pooled from the maps at strides 2^2 to 2^5, depending on their size."""

GIOU_WEIGHT = 10.0


class RegionPool(MultiScaleRoIAlign):
    """torchvision's RoIAlign with fixed scales, which it would infer from the first images.

    Args:
        size: Side of the pooled maps.
    """

    def __init__(self, size: int) -> None:
        super().__init__([str(i) for i in range(len(LEVELS))], size, sampling_ratio=2)
        self.scales = [2.0**-level for level in LEVELS]
        self.map_levels = initLevelMapper(LEVELS[0], LEVELS[-1])


def likeliest(logits: Tensor) -> Tensor:
    """Returns the most likely class other than the background, (R, 1 + K) to (R,)."""
    return logits[:, 1:].argmax(1) + 1


@dataclass
class Samples:
    """Sampled training regions, one tensor per image.

    Attributes:
        boxes: Boxes, (r, 4) each.
        labels: Labels, (r,) each, 0 for the background.
        objects: Index of the best matching object, (r,) each.
        added: Whether the region is the box of an object itself, (r,) each.
    """

    boxes: list[Tensor]
    labels: list[Tensor]
    objects: list[Tensor]
    added: list[Tensor]

    def positive(self) -> tuple[list[Tensor], list[Tensor]]:
        """Returns the boxes of positive regions and their objects, one tensor per image each."""
        kept = [labels > 0 for labels in self.labels]
        boxes = [one[keep] for one, keep in zip(self.boxes, kept, strict=True)]
        return boxes, [one[keep] for one, keep in zip(self.objects, kept, strict=True)]


class BoxStage(RoIHeads):
    """Predicts classes and boxes of regions, with torchvision's matching, sampling and inference.

    Up to a quarter of the sampled regions are positive. Inference uses a score of 0.05 and 100
    detections.

    Args:
        pool: Pools the maps of regions.
        head: Maps (R, channels, 7, 7) to (R, features).
        predictor: Maps (R, features) to logits (R, 1 + K) and deltas (R, 4 (1 + K)).
        iou: Smallest IoU of a positive region with an object.
        std: Standard deviations of the deltas of x, y, width and height.
        giou: Whether the box loss is 10 GIoU on decoded boxes; if not, L1 on deltas.
        settings: Settings, of which `regions` and `nms_iou` are used.
    """

    def __init__(
        self,
        pool: RegionPool,
        head: nn.Module,
        predictor: nn.Module,
        iou: float,
        std: Sequence[float],
        giou: bool,
        settings: Settings,
    ) -> None:
        super().__init__(
            pool,
            head,
            predictor,
            fg_iou_thresh=iou,
            bg_iou_thresh=iou,
            batch_size_per_image=settings.regions,
            positive_fraction=0.25,
            bbox_reg_weights=tuple(1 / value for value in std),
            score_thresh=0.05,
            nms_thresh=settings.nms_iou,
            detections_per_img=100,
        )
        self.giou = giou

    def forward(
        self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: list[Size]
    ) -> tuple[Tensor, Tensor]:
        """Returns logits (R, 1 + K) and deltas (R, 4 (1 + K)) of regions."""
        logits, deltas = self.box_predictor(self.box_head(self.box_roi_pool(maps, boxes, sizes)))
        # In float32 at any precision, because boxes have more digits than float16.
        return logits.float(), deltas.float()

    def sample(self, proposals: list[Tensor], targets: list[Target]) -> Samples:
        """Samples training regions from the proposals and the boxes of objects."""
        objects = [target["boxes"].to(proposals[0]) for target in targets]
        candidates = self.add_gt_proposals(proposals, objects)
        labels = [target["labels"] for target in targets]
        nearest, labels = self.assign_targets_to_proposals(candidates, objects, labels)
        chosen = self.subsample(labels)
        return Samples(
            [boxes[i] for boxes, i in zip(candidates, chosen, strict=True)],
            [of_image[i] for of_image, i in zip(labels, chosen, strict=True)],
            [of_image[i] for of_image, i in zip(nearest, chosen, strict=True)],
            [i >= len(given) for given, i in zip(proposals, chosen, strict=True)],
        )

    def losses(
        self, logits: Tensor, deltas: Tensor, samples: Samples, targets: list[Target]
    ) -> tuple[Tensor, Tensor]:
        """Returns the losses of classes and boxes, each divided by the number of regions."""
        labels = torch.cat(samples.labels)
        positive = labels > 0
        # (R, 4 (1 + K)) -> deltas of the true class, (positives, 4)
        deltas = deltas.unflatten(1, (-1, 4))[positive, labels[positive]]
        regions = torch.cat(samples.boxes)[positive]
        pairs = zip(targets, samples.objects, samples.labels, strict=True)
        truth = torch.cat(
            [target["boxes"].to(deltas)[i[of_image > 0]] for target, i, of_image in pairs]
        )
        if self.giou:
            found = self.box_coder.decode_single(deltas, regions)
            loss = GIOU_WEIGHT * generalized_box_iou_loss(found, truth, reduction="sum")
        else:
            wanted = self.box_coder.encode_single(truth, regions)
            loss = F.l1_loss(deltas, wanted, reduction="sum")
        return F.cross_entropy(logits, labels), loss / len(labels)

    @torch.no_grad()
    def refine(
        self, boxes: list[Tensor], labels: Tensor, deltas: Tensor, sizes: list[Size]
    ) -> list[Tensor]:
        """Returns the boxes of regions after applying the deltas of the given classes (R,)."""
        decoded = self.box_coder.decode(deltas, boxes)  # (R, 1 + K, 4)
        chosen = decoded[torch.arange(len(labels), device=labels.device), labels]
        by_image = chosen.split([len(of_image) for of_image in boxes])
        return [clip_boxes_to_image(one, size) for one, size in zip(by_image, sizes, strict=True)]

    def refine_samples(
        self, samples: Samples, logits: Tensor, deltas: Tensor, sizes: list[Size]
    ) -> list[Tensor]:
        """Returns the next stage's proposals: the refined samples without boxes of objects."""
        labels = torch.cat(samples.labels)
        # Background regions use the deltas of the most likely class.
        labels = torch.where(labels > 0, labels, likeliest(logits))
        pairs = zip(self.refine(samples.boxes, labels, deltas, sizes), samples.added, strict=True)
        kept = [boxes[~added] for boxes, added in pairs]
        return [boxes[remove_small_boxes(boxes, min_size=1e-3)] for boxes in kept]


class MaskBranch(nn.Module):
    """Predicts masks of 28×28 pixels by four convolutions on 14×14 regions (arXiv 1703.06870).

    Args:
        settings: Settings, of which `channels` and `norm_groups` are used.
        classes: Number of classes without the background.
    """

    def __init__(self, settings: Settings, classes: int) -> None:
        super().__init__()
        channels = settings.channels
        self.pool = RegionPool(14)
        self.head = MaskRCNNHeads(channels, (channels,) * 4, 1, settings.norm_layer)
        self.predictor = MaskRCNNPredictor(channels, channels, 1 + classes)

    def forward(self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: list[Size]) -> Tensor:
        """Returns logits (R, 1 + K, 28, 28)."""
        return self.predictor(self.head(self.pool(maps, boxes, sizes))).float()

    def loss(
        self, maps: dict[str, Tensor], samples: Samples, sizes: list[Size], targets: list[Target]
    ) -> Tensor:
        """Returns the binary cross entropy of the masks of positive regions."""
        boxes, objects = samples.positive()
        masks, labels = [], []
        for i, (target, (_, width)) in enumerate(zip(targets, sizes, strict=True)):
            # Unpack only masks of objects that match a region.
            used, objects[i] = objects[i].unique(return_inverse=True)
            labels.append(target["labels"][used])
            masks.append(_masks_of(target, used, width))
        return maskrcnn_loss(self(maps, boxes, sizes), boxes, masks, labels, objects)


def _masks_of(target: Target, objects: Tensor, width: int) -> Tensor:
    """Returns the masks (n, H, W) of the given objects of a target."""
    if "mask_bits" in target:
        return unpack_masks(target["mask_bits"][objects], width)
    return target["masks"][objects]


class KeypointBranch(nn.Module):
    """Predicts a heatmap of 56×56 for each keypoint, by convolutions on 14×14 regions.

    Source: Mask R-CNN, arXiv 1703.06870, section 5. The heatmaps are the same for all classes.

    Args:
        settings: Settings, of which `channels`, `norm_groups` and those of keypoints are used.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        width = settings.keypoint_channels
        layers = (width,) * settings.keypoint_convolutions
        self.pool = RegionPool(14)
        # torchvision's KeypointRCNNHeads has the same layers, and no norm.
        self.head = MaskRCNNHeads(settings.channels, layers, 1, settings.norm_layer)
        self.predictor = KeypointRCNNPredictor(width, settings.keypoints)

    def forward(self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: list[Size]) -> Tensor:
        """Returns logits (R, keypoints, 56, 56)."""
        logits = self.predictor(self.head(self.pool(maps, boxes, sizes)))
        return logits.float().contiguous()  # torchvision's loss needs NCHW in memory as well

    def loss(
        self, maps: dict[str, Tensor], samples: Samples, sizes: list[Size], targets: list[Target]
    ) -> Tensor:
        """Returns the cross entropy over the pixels of each labelled keypoint's heatmap.

        Of positive regions; keypoints outside of them, or without a label, do not count.
        """
        boxes, objects = samples.positive()
        points = [target["keypoints"] for target in targets]
        return keypointrcnn_loss(self(maps, boxes, sizes), boxes, points, objects)

    def detect(
        self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: list[Size]
    ) -> Iterator[dict[str, Tensor]]:
        """Yields the keypoints of each image's boxes, (N, keypoints, 3), and their scores."""
        logits = self(maps, boxes, sizes)
        check_finite([logits])
        for points, scores in zip(*keypointrcnn_inference(logits, boxes), strict=True):
            yield {"keypoints": points, "keypoints_scores": scores}


class CascadeHeads(nn.Module):
    """Box stages that each refine the boxes of the previous one; Mask R-CNN has a single stage.

    Source: Cascade R-CNN, arXiv 1906.09756. In training, each stage samples regions at its own IoU.
    In evaluation, logits and mask probabilities are averaged over stages, and the last stage gives
    the boxes.

    Args:
        stages: The box stages.
        masks: The mask branch of each stage, or none at all.
        weights: The loss weight of each stage.
        keypoints: The keypoint branch of the last stage, or None.
    """

    def __init__(
        self,
        stages: Sequence[BoxStage],
        masks: Sequence[MaskBranch],
        weights: Sequence[float],
        keypoints: KeypointBranch | None = None,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.masks = nn.ModuleList(masks) if masks else None
        self.weights = tuple(weights)
        self.keypoints = keypoints

    def losses(
        self,
        maps: dict[str, Tensor],
        proposals: list[Tensor],
        sizes: list[Size],
        targets: list[Target],
    ) -> dict[str, Tensor]:
        """Returns the weighted losses of every stage by name."""
        losses: dict[str, Tensor] = {}
        for i, (stage, weight) in enumerate(zip(self._stages(), self.weights, strict=True)):
            samples = stage.sample(proposals, targets)
            logits, deltas = stage(maps, samples.boxes, sizes)
            of_classes, of_boxes = stage.losses(logits, deltas, samples, targets)
            number = f"{i + 1}" if len(self.stages) > 1 else ""
            losses[f"loss_classifier{number}"] = weight * of_classes
            losses[f"loss_box_reg{number}"] = weight * of_boxes
            if self.masks is not None:
                of_masks = self.masks[i].loss(maps, samples, sizes, targets)  # type: ignore[operator]
                losses[f"loss_mask{number}"] = weight * of_masks
            if self.keypoints is not None and stage is self.stages[-1]:
                losses["loss_keypoint"] = self.keypoints.loss(maps, samples, sizes, targets)
            proposals = stage.refine_samples(samples, logits, deltas, sizes)
        return losses

    def detect(
        self, maps: dict[str, Tensor], proposals: list[Tensor], sizes: list[Size]
    ) -> list[Detection]:
        """Returns the detections of each image, with masks (N, 1, 28, 28) relative to the boxes.

        Keypoints are in pixels of the image.
        """
        boxes, every = proposals, []
        *earlier, last = self._stages()
        for stage in earlier:
            logits, deltas = stage(maps, boxes, sizes)
            boxes = stage.refine(boxes, likeliest(logits), deltas, sizes)
            every.append(logits)
        logits, deltas = last(maps, boxes, sizes)
        mean = torch.stack([*every, logits]).mean(0)
        check_finite([mean, deltas])
        found = last.postprocess_detections(mean, deltas, boxes, sizes)
        detections = [
            {"boxes": b, "scores": s, "labels": k} for b, s, k in zip(*found, strict=True)
        ]
        boxes, labels = [one["boxes"] for one in detections], [one["labels"] for one in detections]
        if self.masks is not None:
            by_stage = [maskrcnn_inference(head(maps, boxes, sizes), labels) for head in self.masks]
            for one, *masks in zip(detections, *by_stage, strict=True):
                one["masks"] = torch.stack(masks).mean(0)
                check_finite([one["masks"]])
        if self.keypoints is not None:
            points = self.keypoints.detect(maps, boxes, sizes)
            detections = [{**one, **own} for one, own in zip(detections, points, strict=True)]
        return detections

    def _stages(self) -> list[BoxStage]:
        return list(self.stages)  # type: ignore[arg-type]
