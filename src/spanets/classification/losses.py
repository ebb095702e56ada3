"""Training losses of classification, perhaps weighted by class."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spanets.classification.recipe import ClassificationOptim
from spanets_runtime.errors import UsageError


class ClassLoss(nn.Module):
    """The training loss, a mean over the images of a batch.

    Weights of the classes do not rescale the mean: an image counts by its own class alone, not by
    the others in its batch.

    Args:
        weights: Weight of each class, or None.
        gamma: γ of the focal loss; None is the cross entropy.
        is_ordinal: Whether to take the squared earth mover's distance instead.
    """

    weights: Tensor | None

    def __init__(
        self,
        weights: Sequence[float] | None = None,
        gamma: float | None = None,
        is_ordinal: bool = False,
    ) -> None:
        super().__init__()
        tensor = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        # Part of the recipe, not of the weights, so checkpoints do not carry it.
        self.register_buffer("weights", tensor, persistent=False)
        self.gamma = gamma
        self.is_ordinal = is_ordinal

    def forward(
        self,
        logits: Tensor,
        targets: Tensor,
        smoothing: float = 0.0,
        image_weights: Tensor | None = None,
    ) -> Tensor:
        """Returns a scalar.

        Args:
            logits: (B, classes).
            targets: Labels (B,), or probabilities (B, classes).
            smoothing: Fraction of the targets that is spread over all classes.
            image_weights: Weight of each image (B,), or None. They do not rescale the mean either.
        """
        losses = self._losses(logits, targets, smoothing)
        return (losses if image_weights is None else losses * image_weights).mean()

    def _losses(self, logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        """Returns the loss of each image (B,)."""
        if self.gamma is None and not self.is_ordinal:
            return F.cross_entropy(
                logits, targets, self.weights, reduction="none", label_smoothing=smoothing
            )
        classes = logits.shape[1]
        if targets.ndim == 1:
            targets = F.one_hot(targets, classes)
        targets = targets * (1 - smoothing) + smoothing / classes
        if self.is_ordinal:
            return self._earth_movers(logits, targets)
        assert self.gamma is not None
        log_p = logits.log_softmax(1)
        # Lin et al., 2017, Eq. 4, summed over the classes of a soft target.
        terms = targets * (1 - log_p.exp()) ** self.gamma * -log_p
        if self.weights is not None:
            terms = terms * self.weights
        return terms.sum(1)

    def _earth_movers(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the squared distance of the cumulative distributions (B,), Hou et al., Eq. 3."""
        gaps = (logits.softmax(1) - targets).cumsum(1)  # (B, classes)
        distances = (gaps**2).sum(1)
        return distances if self.weights is None else distances * (targets * self.weights).sum(1)


def make_loss(optim: ClassificationOptim, counts: Sequence[int]) -> ClassLoss:
    """Returns the loss of a recipe.

    Args:
        optim: The section `optim`.
        counts: Number of training images of each class.

    Raises:
        UsageError: a list of weights of another length, or without a positive one.
    """
    gamma = optim.focal_gamma if optim.loss == "focal" else None
    return ClassLoss(class_weights(optim, counts), gamma, optim.loss == "ordinal")


def class_weights(optim: ClassificationOptim, counts: Sequence[int]) -> list[float] | None:
    """Returns the weight of each class, or None.

    "balanced" is N / (C n), with N images, C classes, and n images of a class. "effective" is the
    inverse of the effective number (1 - βⁿ) / (1 - β). Both are scaled so that the mean over the
    training images is 1, which keeps the learning rate's meaning. A class without images gets 0.
    """
    kind = optim.class_weights
    if kind is None:
        return None
    if isinstance(kind, list):
        if len(kind) != len(counts) or not any(kind):
            raise UsageError(
                f"optim.class_weights has {len(kind)} numbers, must have one for each of the "
                f"{len(counts)} classes, and one above 0"
            )
        return kind
    beta = optim.effective_beta
    sizes = [float(n) if kind == "balanced" else (1 - beta**n) / (1 - beta) for n in counts]
    raw = [1 / size if size else 0.0 for size in sizes]
    mean = sum(n * weight for n, weight in zip(counts, raw, strict=True)) / sum(counts)
    return [weight / mean for weight in raw]


def describe_weights(
    weights: Sequence[float], classes: Sequence[str], counts: Sequence[int]
) -> str:
    """Returns a line with the weight and the number of training images of each class."""
    rows = sorted(zip(weights, classes, counts, strict=True), key=lambda row: -row[0])
    shown = [f"{name} {weight:.3g} ({n} images)" for weight, name, n in rows]
    if len(shown) > 8:
        shown = [*shown[:4], f"{len(shown) - 8} others", *shown[-4:]]
    return f"class weights: {', '.join(shown)}"
