"""Temperature and threshold of a trained classifier, fitted on the run's own validation images.

Temperature scaling (Guo et al., 2017, "On Calibration of Modern Neural Networks") divides the
logits by one number, so it changes the probabilities, but no answer.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from spanets.checkpoint import ModelInfo, store_calibration
from spanets.classification.answers import Answers, calibration_error, read_answers
from spanets.sources import Source
from spanets.training.thresholds import choose_threshold, rates
from spanets_runtime.errors import UsageError, UserError

# 1/T is searched between these; ordinary networks have T from 0.5 to 5.
_LOWEST, _HIGHEST = 1e-3, 1e3


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Returns the temperature with the smallest negative log-likelihood.

    The likelihood is concave in 1/T, so the zero of its derivative is found by bisection.

    Args:
        logits: (N, classes).
        labels: (N,).

    Raises:
        UserError: the likelihood has no maximum, because every image, or none, supports the
            answers.
    """
    logits = logits.double() - logits.double().mean(1, keepdim=True)
    of_truth = logits.gather(1, labels[:, None])[:, 0].mean()

    def slope(inverse: float) -> float:
        expected = ((logits * inverse).softmax(1) * logits).sum(1).mean()
        return float(expected - of_truth)

    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    if not slope(_LOWEST) < 0 < slope(_HIGHEST):
        right = int((logits.argmax(1) == labels).sum())
        raise UserError(
            f"no temperature fits: {right} of {len(labels)} validation images are answered right; "
            "it takes images of both kinds, and better answers than by chance"
        )
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) < 0 else (low, middle)
    return math.exp(-(low + high) / 2)


def calibrate_checkpoint(
    source: Source, logits: Tensor, labels: Tensor, stored: bool = True
) -> dict[str, Any]:
    """Fits a temperature and stores it in the checkpoint's metadata.

    Args:
        source: The checkpoint; its file is replaced atomically.
        logits: (N, classes), of the validation images.
        labels: (N,).
        stored: False only fits: of several processes, one stores it.

    Returns:
        "temperature", "images", and calibration error and mean negative log-likelihood before and
        after: "ece_before", "ece_after", "nll_before", "nll_after".

    Raises:
        UserError: no temperature fits, or the checkpoint cannot be read again or written.
    """
    temperature = fit_temperature(logits, labels)
    found: dict[str, Any] = {"temperature": temperature, "images": len(labels)}
    for when, value in (("before", 1.0), ("after", temperature)):
        scaled = logits.double() / value
        found[f"ece_{when}"] = calibration_error(read_answers(scaled, labels))
        found[f"nll_{when}"] = float(nn.functional.cross_entropy(scaled, labels))
    assert source.path is not None
    if stored:
        store(source.path, found)
    return found


def store(path: Path, calibration: Mapping[str, Any]) -> None:
    """Writes a calibration into a checkpoint's metadata, atomically.

    Raises:
        UserError: the checkpoint cannot be read or written.
    """
    store_calibration(path, calibration)


def temperature_of(info: ModelInfo, word: str) -> float:
    """Returns the temperature of a calibrated model.

    Raises:
        UsageError: it has none.
        UserError: it is damaged.
    """
    if not info.calibration:
        raise UsageError(
            f"--calibrated: {word} has no temperature; fit one with: spanets eval CHECKPOINT "
            "--calibrate"
        )
    value = info.calibration.get("temperature")
    if not isinstance(value, float) or not _LOWEST <= value <= _HIGHEST:
        raise UserError(f"{word}: damaged, its temperature is {value!r}; fit it again")
    return value


# ---- thresholds of two classes


def recommend_threshold(answers: Answers, precision: float | None = None) -> dict[str, Any]:
    """Returns the threshold on the second class's probability with the best F1, or a precision.

    An image is of the second class if its probability is at least the threshold. The threshold lies
    in the middle between two images, so that rounding moves none of them across.

    Args:
        answers: Answers of a model of two classes.
        precision: The smallest precision wanted; of the thresholds that have it, the one with the
            largest recall is chosen. None chooses the best F1.

    Returns:
        "threshold", or None if there is none; "precision", "recall", "f1" there, and "images".
        Without one, "precision" is the best that there is.
    """
    positive = answers.truth == 1
    found = choose_threshold(answers.of_second, positive, int(positive.sum()), precision)
    return {**found, "images": len(answers)}


def temper(probability: float, temperature: float) -> float:
    """Returns the calibrated probability of one of two classes."""
    if probability in (0.0, 1.0):
        return probability
    odds = (probability / (1 - probability)) ** (1 / temperature)
    return odds / (1 + odds)


def rates_at(answers: Answers, threshold: float) -> dict[str, float]:
    """Returns precision, recall and F1 of the second class at a threshold."""
    chosen, positive = answers.of_second >= threshold, answers.truth == 1
    return rates(int((chosen & positive).sum()), int(chosen.sum()), int(positive.sum()))


# ---- networks around a network


class Tempered(nn.Module):
    """A classifier whose logits are divided by a temperature."""

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, classes)."""
        return self.model(images) / self.temperature
