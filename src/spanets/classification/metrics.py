"""What is measured of a classifier."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)
from torchmetrics.utilities import dim_zero_cat

# AUROC keeps every prediction until the epoch ends: no burden for the data sets that people
# bring, but one for ImageNet, whose results are never quoted in it.
MAX_AUROC_CLASSES = 100


def metrics_for(classes: int, shared: bool = False) -> MetricCollection:
    """Makes the metrics of a data set with this many classes, all in one pass.

    Accuracy (top-1; top-5 from six classes up), macro F1, AUROC, and the confusion matrix (rows:
    truth). All take probabilities (B, classes) and labels (B,).

    Args:
        classes: Two or more.
        shared: Whether several processes have a share of the images each.
    """
    every: dict[str, Any] = {"sync_on_compute": shared}
    metrics: dict[str, Any] = {"accuracy": MulticlassAccuracy(classes, average="micro", **every)}
    if classes > 5:
        metrics["accuracy_top5"] = MulticlassAccuracy(classes, 5, average="micro", **every)
    metrics["f1"] = MulticlassF1Score(classes, average="macro", **every)
    if classes <= MAX_AUROC_CLASSES:
        metrics["auroc"] = AUROC(classes, **every)
    metrics["confusion"] = MulticlassConfusionMatrix(classes, **every)
    return MetricCollection(metrics, compute_groups=False)


class AUROC(MulticlassAUROC):
    """AUROC of the second of two classes, or of more the mean of each against the rest.

    A class that no image has, or that all have, has none: it is left out of the mean, where
    torchmetrics would count it as zero. Without any the result is NaN.
    """

    def __init__(self, classes: int, **every: Any) -> None:
        super().__init__(classes, average=None, **every)

    def compute(self) -> Tensor:  # type: ignore[override]
        """Returns a scalar."""
        of_class = super().compute()  # (classes,)
        counts = torch.bincount(dim_zero_cat(self.target), minlength=self.num_classes)
        defined = (counts > 0) & (counts < counts.sum())
        if self.num_classes == 2:
            defined[0] = False
        return of_class[defined].mean()


def update_metrics(metrics: MetricCollection, logits: Tensor, labels: Tensor) -> None:
    """Adds logits (B, classes) and labels (B,)."""
    metrics.update(logits.float().softmax(1), labels)
