"""Class weights and focal loss, against their definitions and torch's own functions."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from spanets.classification.losses import ClassLoss, class_weights, describe_weights
from spanets.classification.recipe import ClassificationOptim
from spanets_runtime.errors import UsageError

COUNTS = [90, 9, 1]


def logits_and_labels(classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(16, classes, generator=generator),
        torch.randint(classes, (16,), generator=generator),
    )


def soft(labels: torch.Tensor, classes: int) -> torch.Tensor:
    return 0.8 * F.one_hot(labels, classes) + 0.2 / classes


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_weights_it_is_torchs_cross_entropy(smoothing):
    logits, labels = logits_and_labels()
    for targets in (labels, soft(labels, 3)):
        expected = F.cross_entropy(logits, targets, label_smoothing=smoothing)
        torch.testing.assert_close(ClassLoss()(logits, targets, smoothing), expected)


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 7.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_loss_with_gamma_0_is_the_cross_entropy(weights, smoothing):
    logits, labels = logits_and_labels()
    for targets in (labels, soft(labels, 3)):
        focal = ClassLoss(weights, gamma=0.0)(logits, targets, smoothing)
        torch.testing.assert_close(focal, ClassLoss(weights)(logits, targets, smoothing))


def test_two_classes_agree_with_torchvisions_binary_focal_loss():
    logits, labels = logits_and_labels(2)
    binary = logits[:, 1] - logits[:, 0]
    expected = sigmoid_focal_loss(binary, labels.float(), alpha=-1, gamma=2, reduction="mean")
    torch.testing.assert_close(ClassLoss(gamma=2.0)(logits, labels), expected)


def test_an_image_counts_by_its_own_class_alone():
    logits, labels = logits_and_labels()
    loss = ClassLoss([0.5, 1.0, 7.0])
    parts = [loss(logits[i : i + 1], labels[i : i + 1]) for i in range(len(labels))]
    torch.testing.assert_close(loss(logits, labels), torch.stack(parts).mean())


@pytest.mark.parametrize("kind", ["balanced", "effective"])
@pytest.mark.parametrize("counts", [COUNTS, [5, 5], [3, 0, 9], [1]])
def test_the_mean_weight_of_the_images_is_1(kind, counts):
    weights = class_weights(ClassificationOptim(class_weights=kind), counts)
    assert sum(n * w for n, w in zip(counts, weights, strict=True)) / sum(counts) == pytest.approx(
        1
    )
    assert all((w > 0) == (n > 0) for n, w in zip(counts, weights, strict=True))
    order = sorted((n, -w) for n, w in zip(counts, weights, strict=True) if n)
    assert order == sorted(order, key=lambda pair: (pair[0], pair[1]))


def test_formulas():
    balanced = class_weights(ClassificationOptim(class_weights="balanced"), COUNTS)
    assert balanced == pytest.approx([100 / (3 * n) for n in COUNTS])
    optim = ClassificationOptim(class_weights="effective", effective_beta=0.9)
    raw = [(1 - 0.9) / (1 - 0.9**n) for n in COUNTS]
    ratio = [a / b for a, b in zip(class_weights(optim, COUNTS), raw, strict=True)]
    assert ratio == pytest.approx([ratio[0]] * 3)
    assert class_weights(ClassificationOptim(class_weights=[1.0, 0.0, 3.0]), COUNTS) == [1, 0, 3]
    assert class_weights(ClassificationOptim(), COUNTS) is None


@pytest.mark.parametrize("given", [[1.0, 2.0], [0.0, 0.0, 0.0]])
def test_wrong_lists_are_refused(given):
    with pytest.raises(UsageError, match=r"optim\.class_weights has . numbers, must have one for"):
        class_weights(ClassificationOptim(class_weights=given), COUNTS)


def test_the_line_names_the_heaviest_and_the_lightest_of_many_classes():
    classes = [f"c{i}" for i in range(20)]
    line = describe_weights([float(i) for i in range(20)], classes, [1] * 20)
    assert line.startswith("class weights: c19 19 (1 images), ")
    assert "12 others" in line
    assert line.endswith("c0 0 (1 images)")


@pytest.mark.parametrize("gamma", [None, 2.0])
def test_image_weights_multiply_the_loss_of_each_image(gamma):
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    weights = torch.tensor([0.0, 2.0, 1.0, 1.5, 0.5, 1.0])
    loss = ClassLoss([1.0, 2.0, 0.5], gamma)
    each = torch.stack([loss(logits[i : i + 1], targets[i : i + 1], 0.1) for i in range(6)])
    found = loss(logits, targets, 0.1, weights)
    torch.testing.assert_close(found, (each * weights).mean())
