"""Metrics of classification."""

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

# AUROC keeps all predictions of an epoch in memory. ImageNet's would be too many, and its results
# are not reported as AUROC.
MAX_AUROC_CLASSES = 100


def metrics_for(classes: int, shared: bool = False) -> MetricCollection:
    """Makes the metrics of a data set with this many classes.

    These are accuracy (top-1; top-5 from six classes), macro F1, AUROC (up to 100 classes) and the
    confusion matrix (rows: truth). `update` takes probabilities (B, classes) and labels (B,).

    Args:
        classes: Number of classes, two or more.
        shared: Whether several processes measure different images.
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


def recalls(confusion: Tensor) -> list[float | None]:
    """Returns the recall of each class from a confusion matrix; None for a class without images."""
    rows = confusion.double()
    return [float(row[i] / row.sum()) if row.sum() else None for i, row in enumerate(rows)]


def balanced_accuracy(confusion: Tensor) -> float:
    """Returns the mean recall of the classes that have images, NaN if none has."""
    defined = [recall for recall in recalls(confusion) if recall is not None]
    return sum(defined) / len(defined) if defined else float("nan")


class AUROC(MulticlassAUROC):
    """AUROC of the second of two classes, or the mean of each class against the rest.

    AUROC is undefined for a class that no image or every image has. The mean leaves such classes
    out, while torchmetrics counts them as zero. It is NaN if no class is defined.
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
    """Updates the metrics with logits (B, classes) and labels (B,)."""
    metrics.update(logits.float().softmax(1), labels)
