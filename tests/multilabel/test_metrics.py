"""Metrics and losses of several labels an image, against scikit-learn and the papers' formulas."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from spanets.multilabel.losses import LabelLoss, positive_weights
from spanets.multilabel.metrics import average_precision, best_threshold, measure, rates
from spanets.multilabel.recipe import MultilabelOptim
from spanets.multilabel.strata import stratify
from spanets_runtime.tags import sigmoid


def draw(seed: int, images: int = 60, labels: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Draws logits, with ties, and truth; no image has the last label."""
    noise = np.random.default_rng(seed)
    truth = (noise.random((images, labels)) < 0.3).astype(float)
    truth[:, -1] = 0
    return np.round(noise.normal(truth, 1.5), 1), truth


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    logits, truth = draw(seed)
    thresholds = [0.3, 0.5, 0.7, 0.4, 0.5]
    found, rows = measure(logits, sigmoid(logits), truth, thresholds)
    present = [0, 1, 2, 3]
    expected = metrics.average_precision_score(truth[:, present], logits[:, present])
    assert found["map"] == pytest.approx(expected, abs=1e-9)
    chosen = sigmoid(logits) >= thresholds
    for average in ("micro", "macro"):
        labels = present if average == "macro" else None
        expected = metrics.f1_score(truth, chosen, average=average, labels=labels, zero_division=0)
        assert found[f"f1_{average}"] == pytest.approx(expected, abs=1e-9)
    for i, row in enumerate(rows):
        given = (truth[:, i], chosen[:, i])
        expected = metrics.precision_recall_fscore_support(
            *given, average="binary", zero_division=0
        )
        assert [row["precision"], row["recall"], row["f1"]] == pytest.approx(expected[:3])
        assert row["images"] == truth[:, i].sum()
    assert math.isnan(rows[-1]["ap"])


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_is_better(seed):
    logits, truth = draw(seed)
    probabilities = sigmoid(logits)
    for i in range(4):
        threshold = best_threshold(probabilities[:, i], truth[:, i])
        best = rates(probabilities[:, i] >= threshold, truth[:, i])["f1"]
        tried = [rates(probabilities[:, i] >= t, truth[:, i])["f1"] for t in probabilities[:, i]]
        assert best == pytest.approx(max(tried))
        assert np.abs(probabilities[:, i] - threshold).min() > 1e-6
    assert best_threshold(probabilities[:, 4], truth[:, 4]) is None


def test_average_precision_of_equal_scores_is_the_share_of_positives():
    assert average_precision(np.zeros(8), np.arange(8) % 4 == 0) == 0.25


def test_the_asymmetric_loss_is_the_binary_cross_entropy_without_its_parameters():
    logits, truth = (torch.tensor(x, dtype=torch.float32) for x in draw(0))
    optim = MultilabelOptim(loss="asymmetric", gamma_pos=0, gamma_neg=0, margin=0)
    expected = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1)
    assert torch.allclose(LabelLoss(optim)(logits, truth), expected, atol=1e-6)


def test_the_asymmetric_loss_is_the_papers():
    optim = MultilabelOptim(loss="asymmetric", gamma_pos=1, gamma_neg=4, margin=0.05)
    logits = torch.tensor([[0.3, -0.7], [-4.0, 30.0]], requires_grad=True)
    truth = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    losses = LabelLoss(optim)(logits, truth)
    p, q = torch.tensor([0.3, -0.7]).sigmoid().tolist()
    expected = -(1 - p) * math.log(p) - (q - 0.05) ** 4 * math.log(1 - q + 0.05)
    assert losses[0].item() == pytest.approx(expected / 2, rel=1e-5)
    losses.sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[1, 0] == 0  # a probability below the margin costs nothing


def test_balanced_weights():
    optim = MultilabelOptim(pos_weight="balanced")
    assert positive_weights(optim, [10, 25, 0, 100], 100) == [9, 3, 1, 1]


def test_rare_combinations_are_pooled():
    values = np.zeros((20, 3))
    values[:10, 0] = 1  # ten of one combination
    values[10, :] = 1  # one of each of others
    values[11, 1] = 1
    strata = stratify(values)
    assert strata[:10] == ["0"] * 10
    assert strata[10] == strata[11] == "rare"
    assert strata[12:] == [""] * 8


def test_sigmoid_of_large_logits():
    assert sigmoid(np.array([-1e4, 0, 1e4])).tolist() == [0, 0.5, 1]
