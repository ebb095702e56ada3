"""Calibration, thresholds and averaged answers, against plain definitions and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from spanets.classification.answers import (
    BINS,
    Answers,
    calibration_error,
    read_answers,
    reliability,
)
from spanets.classification.calibration import (
    Tempered,
    fit_temperature,
    rates_at,
    recommend_threshold,
    temper,
)
from spanets.classification.evaluation import measure_answers
from spanets.classification.views import CORNER, Averaged, find_views
from spanets.training.options import Views
from spanets_runtime.errors import UserError


def draw(count: int, classes: int, scale: float = 3.0, seed: int = 0):
    """Returns logits, and labels drawn from the probabilities of logits / scale."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator) * 4
    labels = torch.multinomial((logits / scale).softmax(1), 1, generator=generator)[:, 0]
    return logits, labels


def plain_ece(logits, labels) -> float:
    """The definition: over bins, share of images times |accuracy - confidence|."""
    total = 0.0
    probabilities = logits.double().softmax(1)
    for i in range(BINS):
        inside = [
            (float(p.max()), int(p.argmax()) == int(label))
            for p, label in zip(probabilities, labels, strict=True)
            if i / BINS < float(p.max()) <= (i + 1) / BINS
        ]
        if inside:
            confidence = sum(c for c, _ in inside) / len(inside)
            accuracy = sum(right for _, right in inside) / len(inside)
            total += len(inside) / len(labels) * abs(confidence - accuracy)
    return total


@pytest.mark.parametrize("classes", [2, 3, 20])
def test_calibration_error_is_that_of_the_definition(classes):
    logits, labels = draw(500, classes)
    answers = read_answers(logits, labels)
    assert calibration_error(answers) == pytest.approx(plain_ece(logits, labels), abs=1e-9)
    assert sum(b["images"] for b in reliability(answers)) == 500


def test_calibration_error_without_images_or_numbers():
    assert np.isnan(calibration_error(Answers()))
    broken = read_answers(torch.full((2, 2), float("nan")), torch.tensor([0, 1]))
    assert np.isnan(calibration_error(broken))


@pytest.mark.parametrize("classes", [2, 5])
def test_metrics_are_those_of_scikit_learn(classes):
    logits, labels = draw(300, classes)

    class Table(torch.nn.Module):
        def forward(self, images):
            return logits[images.long()]

    rows = torch.arange(300.0)
    loader = [(rows[i : i + 64], labels[i : i + 64]) for i in range(0, 300, 64)]
    found, answers = measure_answers(Table(), loader, [str(i) for i in range(classes)])
    measured, probabilities = found["metrics"], logits.double().softmax(1).numpy()
    truth, predicted = labels.numpy(), logits.argmax(1).numpy()
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(truth, predicted),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(truth, predicted),
        "f1": sklearn_metrics.f1_score(truth, predicted, average="macro"),
        "loss": sklearn_metrics.log_loss(truth, probabilities, labels=range(classes)),
        "auroc": sklearn_metrics.roc_auc_score(truth, probabilities[:, 1])
        if classes == 2
        else sklearn_metrics.roc_auc_score(truth, probabilities, multi_class="ovr"),
    }
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, abs=1e-6), name
    confusion = sklearn_metrics.confusion_matrix(truth, predicted)
    assert (np.array(found["confusion"]) == confusion).all()
    np.testing.assert_array_equal(answers.predicted, predicted)
    np.testing.assert_allclose(answers.of_truth, probabilities[np.arange(300), truth])


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_is_found(scale):
    logits, labels = draw(4000, 4, scale)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(scale, rel=0.1)  # labels are drawn at random

    def loss(value: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits.double() / value, labels))

    assert loss(found) <= min(loss(0.99 * found), loss(1.01 * found))


def test_no_temperature_fits_answers_that_are_all_right():
    logits = torch.eye(3) * 4
    with pytest.raises(UserError, match="3 of 3 validation images are answered right"):
        fit_temperature(logits, torch.arange(3))
    with pytest.raises(UserError, match="no temperature fits"):
        fit_temperature(-logits, torch.arange(3))


def test_thresholds_are_the_best_of_scikit_learns_curve():
    logits, labels = draw(200, 2)
    answers = read_answers(logits, labels)
    scores = logits.double().softmax(1)[:, 1].numpy()
    precision, recall, thresholds = sklearn_metrics.precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)

    best = recommend_threshold(answers)
    assert best["f1"] == pytest.approx(f1.max(), abs=1e-9)
    chosen = scores >= best["threshold"]
    assert sklearn_metrics.f1_score(labels, chosen) == pytest.approx(best["f1"], abs=1e-9)

    at = recommend_threshold(answers, 0.9)
    assert at["recall"] == pytest.approx(recall[:-1][precision[:-1] >= 0.9].max(), abs=1e-9)
    assert rates_at(answers, at["threshold"])["precision"] == pytest.approx(at["precision"])
    assert at["precision"] >= 0.9
    assert not set(thresholds) & {best["threshold"], at["threshold"]}  # between two images


def test_thresholds_that_do_not_exist():
    wrong = read_answers(torch.tensor([[0.0, 9.0], [9.0, 0.0]]), torch.tensor([0, 1]))
    found = recommend_threshold(wrong, 0.9)
    assert (found["threshold"], found["precision"]) == (None, 0.5)
    none = read_answers(torch.randn(3, 2), torch.zeros(3, dtype=torch.long))
    assert recommend_threshold(none)["threshold"] is None


def test_a_calibrated_threshold_chooses_the_same_images():
    logits, _ = draw(100, 2)
    raw, scaled = (value.double().softmax(1)[:, 1] for value in (logits, logits / 2.5))
    assert ((raw >= 0.3) == (scaled >= temper(0.3, 2.5))).all()
    assert (temper(0.0, 2), temper(1.0, 2)) == (0, 1)


def test_averaged_and_tempered_networks():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 4 * 4, 3))
    images = torch.randn(5, 3, 4, 4)
    mirrored = Averaged(network, Views())
    expected = (network(images).softmax(1) + network(images.flip(-1)).softmax(1)) / 2
    torch.testing.assert_close(mirrored(images).softmax(1), expected)
    torch.testing.assert_close(mirrored(images.flip(-1)), mirrored(images))
    torch.testing.assert_close(Tempered(network, 2.0)(images), network(images) / 2)


def test_views_are_scaled_images_enlarged_corners_and_mirror_images():
    images = torch.arange(2 * 3 * 32 * 48, dtype=torch.float32).reshape(2, 3, 32, 48)
    views = list(find_views(images, Views((1.0, 0.5), corners=True)))
    sizes = [tuple(view.shape[2:]) for view in views]
    assert sizes == [(32, 48)] * 2 + [(16, 24)] * 2 + [(32, 48)] * 8
    assert torch.equal(views[0], images)
    for plain, mirrored in zip(views[::2], views[1::2], strict=True):
        assert torch.equal(plain.flip(-1), mirrored)
    # A corner of a constant image is the constant; of a ramp, its mean lies towards the corner.
    high, wide = round(32 * CORNER), round(48 * CORNER)
    corners = [
        images[..., a:b, c:d]
        for a, b in ((0, high), (32 - high, 32))
        for c, d in ((0, wide), (48 - wide, 48))
    ]
    for corner, view in zip(corners, views[4::2], strict=True):
        torch.testing.assert_close(view.mean((2, 3)), corner.mean((2, 3)), rtol=1e-3, atol=1.0)


def test_the_average_over_views_is_that_of_probabilities():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 3)
    )
    images, views = torch.randn(5, 3, 16, 16), Views((1.0, 1.5), corners=True)
    wanted = torch.stack([network(view).softmax(1) for view in find_views(images, views)]).mean(0)
    torch.testing.assert_close(Averaged(network, views)(images).exp(), wanted)
    assert "12 views" in views.describe("probabilities averaged")
