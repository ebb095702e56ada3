"""What is measured of a segmenter, all of it from one confusion matrix of pixels."""

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from spanets.segmentation.masks.values import IGNORED


def make_confusion(classes: int, shared: bool = False) -> MulticlassConfusionMatrix:
    """Makes the count of pixels by true (rows) and predicted class; `IGNORED` is left out.

    It takes classes of pixels (H, W), predicted and true, and adds up whole numbers: how images
    are divided into batches and processes changes nothing.

    Args:
        classes: Two or more.
        shared: Whether several processes have a share of the images each.
    """
    return MulticlassConfusionMatrix(
        classes, ignore_index=IGNORED, validate_args=False, sync_on_compute=shared
    )


def class_ious(confusion: Tensor) -> Tensor:
    """Returns each class's intersection over union, NaN where it has neither truth nor guess.

    Args:
        confusion: Pixels by true and predicted class, (classes, classes).
    """
    counts = confusion.double()
    both = counts.diagonal()
    return both / (counts.sum(0) + counts.sum(1) - both)


def summarise(confusion: Tensor) -> dict[str, float]:
    """Returns mIoU, mAcc and aAcc of a confusion matrix.

    mIoU is the mean over classes of intersection over union, mAcc of the share of a class's pixels
    that are found, aAcc the share of all pixels. What is undefined, as of a class that no image
    has, is left out of the means; without any they are NaN.
    """
    counts = confusion.double()
    recalls = counts.diagonal() / counts.sum(1)
    return {
        "mIoU": torch.nanmean(class_ious(confusion)).item(),
        "mAcc": torch.nanmean(recalls).item(),
        "aAcc": (counts.diagonal().sum() / counts.sum()).item(),
    }
