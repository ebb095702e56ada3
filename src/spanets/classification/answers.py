"""What a classifier answered to each image: for calibration, thresholds and the page of errors."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

BINS = 15
"""Number of equal-width bins of the largest probability for the calibration error (ECE)."""


@dataclass
class Answers:
    """Collected answers to N images, in order; probabilities are float64.

    Attributes:
        truth, predicted: Class numbers.
        confidence: Probability of the predicted class.
        of_truth: Probability of the true class.
        margin: Difference of the two largest probabilities.
    """

    truth: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    predicted: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    confidence: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    of_truth: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    margin: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each answer is right."""
        return self.predicted == self.truth

    @property
    def of_second(self) -> NDArray[np.float64]:
        """Probability of the second of two classes."""
        return np.where(self.predicted == 1, self.confidence, 1 - self.confidence)

    @classmethod
    def joined(cls, batches: list["Answers"]) -> "Answers":
        """Returns the answers of all batches, in order."""
        if not batches:
            return cls()
        return cls(*(np.concatenate([vars(b)[name] for b in batches]) for name in vars(cls())))


def read_answers(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Answers:
    """Returns the answers of logits (B, two classes or more) to images with labels (B,)."""
    probabilities = (logits.double() / temperature).softmax(1)
    top, classes = probabilities.topk(2, 1)
    of_truth = probabilities.gather(1, labels[:, None])[:, 0]
    found = (labels, classes[:, 0], top[:, 0], of_truth, top[:, 0] - top[:, 1])
    return Answers(*(values.cpu().numpy() for values in found))


def reliability(answers: Answers) -> list[dict[str, float | int | None]]:
    """Returns, for each bin of the largest probability, its images, confidence and accuracy.

    A bin is open below and closed above. Confidence and accuracy are means, None without images.
    """
    places = np.clip(np.ceil(answers.confidence * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    sums = [np.bincount(places, v, BINS) for v in (answers.confidence, answers.right)]
    return [
        {
            "low": i / BINS,
            "high": (i + 1) / BINS,
            "images": int(counts[i]),
            "confidence": float(sums[0][i] / counts[i]) if counts[i] else None,
            "accuracy": float(sums[1][i] / counts[i]) if counts[i] else None,
        }
        for i in range(BINS)
    ]


def calibration_error(answers: Answers) -> float:
    """Returns the expected calibration error: the mean gap of the bins, weighted by their images.

    It is NaN without images, or if a probability is NaN.
    """
    if not len(answers) or not np.isfinite(answers.confidence).all():
        return float("nan")
    gaps = [
        b["images"] * abs(b["confidence"] - b["accuracy"])  # type: ignore[operator]
        for b in reliability(answers)
        if b["images"]
    ]
    return float(sum(gaps) / len(answers))
