"""Metrics of segmentation, all computed from one confusion matrix of pixels."""

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from spanets.segmentation.masks.values import IGNORED


def make_confusion(classes: int, shared: bool = False) -> MulticlassConfusionMatrix:
    """Makes a confusion matrix of pixels, rows the true class, without `IGNORED` pixels.

    Its `update` takes predicted and true classes, (H, W). It adds integers, so that the result does
    not depend on the division into batches and processes.

    Args:
        classes: Number of classes, two or more.
        shared: Whether several processes measure different images.
    """
    return MulticlassConfusionMatrix(
        classes, ignore_index=IGNORED, validate_args=False, sync_on_compute=shared
    )


def class_ious(confusion: Tensor) -> Tensor:
    """Returns the IoU of each class, NaN for a class without true or predicted pixels.

    Args:
        confusion: Pixels by true and predicted class, (classes, classes).
    """
    counts = confusion.double()
    both = counts.diagonal()
    return both / (counts.sum(0) + counts.sum(1) - both)


def summarise(confusion: Tensor) -> dict[str, float]:
    """Returns mIoU, mAcc and aAcc of a confusion matrix.

    mIoU is the mean over classes of the intersection over union, mAcc the mean over classes of the
    recall, and aAcc the accuracy over all pixels. Means leave out classes for which the value is
    undefined; they are NaN if it is undefined for all.
    """
    counts = confusion.double()
    recalls = counts.diagonal() / counts.sum(1)
    return {
        "mIoU": torch.nanmean(class_ious(confusion)).item(),
        "mAcc": torch.nanmean(recalls).item(),
        "aAcc": (counts.diagonal().sum() / counts.sum()).item(),
    }
