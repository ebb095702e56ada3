"""Metrics against values computed by hand."""

import math

import pytest
import torch

from spanets.classification.metrics import MAX_AUROC_CLASSES, metrics_for, update_metrics

# torchmetrics' word for what is undefined.
pytestmark = pytest.mark.filterwarnings("ignore:No (posi|nega)tive samples")


def measured(probabilities, labels) -> dict[str, float]:
    probabilities = torch.tensor(probabilities)
    metrics = metrics_for(probabilities.shape[1])
    half = len(labels) // 2
    for part in (slice(half), slice(half, None)):  # two batches
        update_metrics(metrics, probabilities[part].log(), torch.tensor(labels[part]))
    values = metrics.compute()
    return {k: v.tolist() if k == "confusion" else v.item() for k, v in values.items()}


def test_two_classes():
    values = measured([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]], [0, 0, 1, 1])
    assert values["accuracy"] == 0.75
    assert values["confusion"] == [[2, 0], [1, 1]]  # rows: truth
    # F1 of the classes: 2·2/(2·2+1) and 2·1/(2·1+1).
    assert values["f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    # Of the four pairs of a positive and a negative, one is in the wrong order: 0.3 < 0.4.
    assert values["auroc"] == pytest.approx(3 / 4)
    assert "accuracy_top5" not in values


def test_many_classes_against_the_rest():
    values = measured(
        [[0.5, 0.3, 0.2], [0.4, 0.5, 0.1], [0.3, 0.6, 0.1], [0.1, 0.3, 0.6]], [0, 0, 1, 2]
    )
    # Every positive is above every negative of its class but one: class 1 has 0.6 over 0.5.
    assert values["auroc"] == pytest.approx(1)
    assert values["accuracy"] == 0.75


def test_a_class_without_images_is_left_out():
    three = measured(
        [[0.9, 0.05, 0.05], [0.6, 0.3, 0.1], [0.7, 0.2, 0.1], [0.2, 0.7, 0.1]], [0, 0, 1, 1]
    )
    assert three["auroc"] == pytest.approx(3 / 4)
    assert three["confusion"][2] == [0, 0, 0]


def test_one_class_alone_has_no_auroc():
    assert math.isnan(measured([[0.9, 0.1], [0.2, 0.8]], [1, 1])["auroc"])
    assert math.isnan(measured([[0.9, 0.05, 0.05], [0.2, 0.7, 0.1]], [0, 0])["auroc"])


def test_top5_from_six_classes_up():
    probabilities = torch.tensor([[0.05, 0.1, 0.15, 0.2, 0.24, 0.26]] * 2).tolist()
    values = measured(probabilities, [0, 1])
    assert values["accuracy"] == 0
    assert values["accuracy_top5"] == 0.5


def test_auroc_is_left_out_where_it_would_keep_too_much():
    assert "auroc" in metrics_for(MAX_AUROC_CLASSES)
    assert "auroc" not in metrics_for(MAX_AUROC_CLASSES + 1)
