"""A linear probe: logistic regression on frozen vectors, measured on held-out images.

Shape legend: `N` training images, `D` numbers in a vector, `C` classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spanets.embedding.holdout import CHOOSING_FRACTION, HeldOut, Rows, divide, hold_out, score
from spanets.embedding.vectors import Embeddings, blocks_of
from spanets_runtime.progress import progress

PENALTIES = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Tried strengths of the L2 penalty, strongest first, so that each fit starts near its end."""

DEFAULT_PENALTY = 1e-1
"""Penalty if there are no images to choose it with."""

MAX_ITERATIONS = 500

_IN_MEMORY = 2**25  # numbers of standardized training vectors that are kept, 256 MiB


@dataclass(frozen=True)
class Probe:
    """A fitted probe.

    Attributes:
        labels: Class numbers of the outputs (C,).
        weight, bias: Weights (C, D) and bias (C,) for standardized vectors.
        mean, std: Mean and standard deviation of the training vectors (D,).
        converged: Whether the optimizer reached its tolerance.
    """

    labels: Rows
    weight: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor
    converged: bool

    def logits(self, vectors: NDArray[np.float32]) -> Tensor:
        """Returns logits (N, C), float64, of vectors (N, D)."""
        inputs = (torch.from_numpy(vectors).double() - self.mean) / self.std
        return inputs @ self.weight.mT + self.bias


def fit_probe(
    embeddings: Embeddings, rows: Rows, penalty: float, start: Probe | None = None
) -> Probe:
    """Fits a multinomial logistic regression in float64, by L-BFGS on all images at once.

    It minimizes the mean cross-entropy plus penalty / 2 times the squared weights, without the
    bias. That is scikit-learn's `LogisticRegression(C=1 / (penalty * N))` on standardized vectors.

    Args:
        embeddings: The embeddings.
        rows: Rows of the training images, of two classes or more.
        penalty: Strength of the L2 penalty.
        start: Probe of the same images to start from.
    """
    labels, targets = np.unique(embeddings.labels[rows], return_inverse=True)
    if start is None:
        mean, std = _moments(embeddings.vectors, rows)
        weight = torch.zeros(len(labels), embeddings.dimensions, dtype=torch.float64)
        bias = torch.zeros(len(labels), dtype=torch.float64)
    else:
        mean, std, weight, bias = start.mean, start.std, start.weight.clone(), start.bias.clone()
    problem = _Problem(embeddings.vectors, rows, torch.from_numpy(targets), mean, std, penalty)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=MAX_ITERATIONS,
        history_size=20,
        tolerance_grad=1e-7,
        tolerance_change=1e-13,
        line_search_fn="strong_wolfe",
    )
    optimizer.step(lambda: problem.evaluate(weight, bias))
    assert weight.grad is not None
    problem.evaluate(weight, bias)
    converged = float(weight.grad.abs().max()) < 1e-4
    return Probe(labels.astype(np.intp), weight, bias, mean, std, converged)


class _Problem:
    """The loss of the probe and its gradient, summed over blocks of images."""

    def __init__(
        self,
        vectors: NDArray[np.float32],
        rows: Rows,
        targets: Tensor,
        mean: Tensor,
        std: Tensor,
        penalty: float,
    ) -> None:
        self.vectors, self.rows, self.targets = vectors, rows, targets
        self.mean, self.std, self.penalty = mean, std, penalty
        is_small = len(rows) * vectors.shape[1] <= _IN_MEMORY
        self.kept = list(self._read()) if is_small else None

    def _read(self) -> Iterator[tuple[Tensor, Tensor]]:
        for place, found in blocks_of(self.vectors, self.rows):
            inputs = torch.from_numpy(found).double().sub_(self.mean).div_(self.std)
            yield inputs, self.targets[place]

    def evaluate(self, weight: Tensor, bias: Tensor) -> float:
        """Returns the loss and sets the gradients, which are written out to need no graph."""
        count = len(self.rows)
        loss = float(self.penalty / 2 * weight.square().sum())
        weight.grad, bias.grad = self.penalty * weight, torch.zeros_like(bias)
        for inputs, targets in self.kept if self.kept is not None else self._read():
            log_shares = (inputs @ weight.mT + bias).log_softmax(1)
            loss -= float(log_shares.gather(1, targets[:, None]).sum()) / count
            errors = log_shares.exp()
            errors[torch.arange(len(targets)), targets] -= 1
            weight.grad += errors.mT @ inputs / count
            bias.grad += errors.sum(0) / count
        return loss


def _moments(vectors: NDArray[np.float32], rows: Rows) -> tuple[Tensor, Tensor]:
    """Returns mean and deviation (D,) of the rows; the deviation of a constant is 1."""
    total = np.zeros(vectors.shape[1])
    for _, found in blocks_of(vectors, rows):
        total += found.sum(0, dtype=np.float64)
    mean = total / len(rows)
    square = np.zeros_like(mean)
    for _, found in blocks_of(vectors, rows):
        square += np.square(found - mean).sum(0)
    std = np.sqrt(square / len(rows))
    std[std <= 1e-7 * np.maximum(1e-30, np.abs(mean))] = 1
    return torch.from_numpy(mean), torch.from_numpy(std)


def measure_probe(embeddings: Embeddings) -> dict[str, Any]:
    """Fits a probe on the training images and measures it on the held-out ones.

    The penalty is the one of `PENALTIES` with the lowest cross-entropy on images that are not held
    out: the part "val" if "test" is held out, else a fifth of the training images. The probe is
    then fitted to all training images.

    Returns:
        See `score`, with "penalty" and "chosen_on" (number of images).

    Raises:
        UserError: see `hold_out`.
    """
    split = hold_out(embeddings)
    penalty, chosen_on = _choose_penalty(embeddings, split)
    probe = fit_probe(embeddings, split.train, penalty)
    predicted = np.empty(len(split.held_out), np.intp)
    for place, found in blocks_of(embeddings.vectors, split.held_out):
        predicted[place] = probe.labels[probe.logits(found).argmax(1).numpy()]
    measured = score(embeddings, split, predicted)
    if not chosen_on:
        measured["notes"].append(
            f"the probe's penalty is {penalty}: there are too few images to choose it"
        )
    if not probe.converged:
        measured["notes"].append(f"the probe did not converge in {MAX_ITERATIONS} iterations")
    return {"penalty": penalty, "chosen_on": chosen_on, **measured}


def _choose_penalty(embeddings: Embeddings, split: HeldOut) -> tuple[float, int]:
    """Returns the penalty, and the number of images that chose it."""
    train, choosing = split.train, split.choosing
    if not len(choosing):
        train, choosing = divide(embeddings, split.train, CHOOSING_FRACTION, "choosing")
    labels = embeddings.labels
    choosing = choosing[np.isin(labels[choosing], labels[train])]
    if not len(choosing) or len(np.unique(labels[train])) < 2:
        return DEFAULT_PENALTY, 0
    probe, losses = None, []
    for penalty in progress(PENALTIES, "probe"):
        probe = fit_probe(embeddings, train, penalty, probe)
        losses.append(_cross_entropy(embeddings, choosing, probe))
        if len(losses) > 2 and losses[-1] > losses[-2] > losses[-3]:
            break  # weaker penalties overfit more
    return PENALTIES[int(np.argmin(losses))], len(choosing)


def _cross_entropy(embeddings: Embeddings, rows: Rows, probe: Probe) -> float:
    total = 0.0
    for place, found in blocks_of(embeddings.vectors, rows):
        targets = np.searchsorted(probe.labels, embeddings.labels[rows[place]])
        logits = probe.logits(found)
        total += float(
            torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets), reduction="sum")
        )
    return total / len(rows)
