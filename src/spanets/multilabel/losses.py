"""Training losses of several labels an image."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spanets.multilabel.recipe import MultilabelOptim
from spanets_runtime.errors import UsageError


class LabelLoss(nn.Module):
    """Binary cross entropy, or the asymmetric loss: a mean over the labels of each image.

    Args:
        optim: The section `optim`.
        weights: Weight of the images with each label in its loss, or None.
    """

    weights: Tensor | None

    def __init__(self, optim: MultilabelOptim, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.is_asymmetric = optim.loss == "asymmetric"
        self.gammas, self.margin = (optim.gamma_pos, optim.gamma_neg), optim.margin
        self.smoothing = optim.label_smoothing
        tensor = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        # Part of the recipe, not of the weights, so checkpoints do not carry it.
        self.register_buffer("weights", tensor, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the loss of each image (B,), for logits and targets (B, labels)."""
        if self.is_asymmetric:
            return self._asymmetric(logits, targets).mean(1)
        targets = targets * (1 - self.smoothing) + self.smoothing / 2
        losses = F.binary_cross_entropy_with_logits(
            logits, targets, pos_weight=self.weights, reduction="none"
        )
        return losses.mean(1)

    def _asymmetric(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the loss of each label (B, labels): Ridnik et al., 2021, Eq. 7."""
        positive, negative = self.gammas
        shifted = (logits.sigmoid() - self.margin).clamp(min=0)  # p_m of Eq. 5
        present = (1 - logits.sigmoid()) ** positive * -F.logsigmoid(logits)
        if self.weights is not None:
            present = present * self.weights
        # Without a margin, -log(1 - p) is exact also where p rounds to 1.
        log_absent = F.logsigmoid(-logits) if not self.margin else torch.log1p(-shifted)
        absent = shifted**negative * -log_absent
        return targets * present + (1 - targets) * absent


def positive_weights(
    optim: MultilabelOptim, counts: Sequence[int], images: int
) -> list[float] | None:
    """Returns the weight of the images with each label, or None.

    Args:
        optim: The section `optim`.
        counts: Number of training images with each label.
        images: Number of training images.

    Raises:
        UsageError: a list of weights of another length.
    """
    kind = optim.pos_weight
    if isinstance(kind, list):
        if len(kind) != len(counts):
            raise UsageError(
                f"optim.pos_weight has {len(kind)} numbers, must have one for each of the "
                f"{len(counts)} labels"
            )
        return kind
    if kind is None:
        return None
    return [(images - n) / n if 0 < n < images else 1.0 for n in counts]


def describe_weights(weights: Sequence[float], names: Sequence[str]) -> str:
    """Returns a line with the weight of the images with each label."""
    rows = sorted(zip(weights, names, strict=True), key=lambda row: -row[0])
    shown = [f"{name} {weight:.3g}" for weight, name in rows]
    if len(shown) > 8:
        shown = [*shown[:4], f"{len(shown) - 8} others", *shown[-4:]]
    return f"weights of the images with a label: {', '.join(shown)}"
