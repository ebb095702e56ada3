"""Loss and optimizer, against their definitions."""

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from spanets.checkpoint import ModelInfo
from spanets.classification.module import Classification
from spanets.data.image_level.transforms import standardize
from spanets.data.sampler import seed_sample
from spanets.recipe import parse_recipe
from spanets.weights.classifiers import classifier_names
from spanets_runtime.errors import UsageError


def make_task(model: str = "test_convnext", **values) -> Classification:
    info = ModelInfo(model, {}, ["a", "b", "c"], {}, {}, "0")
    network = timm.create_model(model, num_classes=3)
    return Classification(network, info, parse_recipe(values), steps_per_epoch=5)


# ---- optimizer


def test_weight_decay_spares_biases_and_one_dimensional_parameters():
    task = make_task("test_resnet", optim={"weight_decay": 0.3})
    (optimizer,), _ = task.configure_optimizers()
    decays = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    named = dict(task.model.named_parameters())
    assert len(decays) == len(named)
    for name, parameter in named.items():
        spared = parameter.ndim <= 1 or name.endswith("bias")
        assert decays[id(parameter)] == (0 if spared else 0.3), name


def test_layer_decay():
    task = make_task("test_vit", optim={"layer_decay": 0.5, "lr": 1.0})
    (optimizer,), _ = task.configure_optimizers()
    scales = {id(p): g["lr_scale"] for g in optimizer.param_groups for p in g["params"]}
    assert scales[id(task.model.head.weight)] == 1
    assert scales[id(task.model.patch_embed.proj.weight)] < 0.5


@pytest.mark.parametrize("name", ["adamw", "muon", "lamb"])
@pytest.mark.parametrize("layer_decay", [None, 0.5])
@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "spanetv2_nano_pure"])
def test_the_head_learns_at_its_own_rate(model, name, layer_decay):
    values = {"name": name, "lr": 0.1, "head_lr": 0.4, "layer_decay": layer_decay}
    task = make_task(model, optim={**values, "warmup_epochs": 0})
    (optimizer,), _ = task.configure_optimizers()
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    (head,) = classifier_names(task.model)  # the last layer: the one that is new for new classes
    of_head = {id(p) for p in task.model.get_submodule(head).parameters()}
    own = dict(task.model.named_parameters())
    assert len(rates) == len(own)
    for parameter in own.values():
        rate = rates[id(parameter)]
        if id(parameter) in of_head:
            assert rate == pytest.approx(0.4)
        else:
            assert rate <= 0.1 if layer_decay else rate == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "said"),
    [("adamww", "did you mean 'adamw'"), ("adahessian", "needs second derivatives")],
)
def test_optimizers_that_cannot_be_used(name, said):
    with pytest.raises(UsageError, match=said):
        make_task(optim={"name": name}).configure_optimizers()


# ---- loss


def quiet(task: Classification) -> Classification:
    """A task that can take a step without a trainer."""
    task.log = lambda *_, **__: None
    task._learning_rate = lambda: 0.0
    return task.eval()  # no drop path


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return pixels, torch.tensor([0, 2, 1, 1])


def see(task: Classification, pixels: Tensor) -> Tensor:
    """What the network sees of pixels."""
    return standardize(pixels, task.recipe.data)


def test_loss_of_labels(batch):
    task = quiet(make_task())
    logs = task(see(task, batch[0])).log_softmax(1)
    expected = -logs[range(4), batch[1]].mean()
    torch.testing.assert_close(task.training_step(batch, 0), expected)


def test_label_smoothing(batch):
    task = quiet(make_task(optim={"label_smoothing": 0.3}))
    targets = F.one_hot(batch[1], 3) * 0.7 + 0.1
    expected = -(task(see(task, batch[0])).log_softmax(1) * targets).sum(1).mean()
    torch.testing.assert_close(task.training_step(batch, 0), expected)


def test_soft_targets(batch):
    task = quiet(make_task())
    targets = torch.tensor([[0.2, 0.3, 0.5], [1, 0, 0], [0, 0.5, 0.5], [0.1, 0.8, 0.1]])
    expected = -(task(see(task, batch[0])).log_softmax(1) * targets).sum(1).mean()
    torch.testing.assert_close(task.training_step((batch[0], targets), 0), expected)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixing(kind, mode, batch):
    """Images and targets are mixed alike, and smoothed once."""
    values = {kind: 1.0, "mix_mode": mode}
    task = quiet(make_task(data=values, optim={"label_smoothing": 0.3}))
    np.random.seed(0)
    images, targets = task.mixing(see(task, batch[0]), batch[1])
    assert not torch.equal(images, see(task, batch[0]))
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    torch.testing.assert_close(targets.min(), torch.tensor(0.1))
    expected = -(task(images).log_softmax(1) * targets).sum(1).mean()
    np.random.seed(0)
    torch.testing.assert_close(task.training_step(batch, 0), expected)


def test_images_are_erased_before_they_are_mixed(batch):
    data = {"random_erasing": 0.5, "erasing_mode": "pixel", "mixup": 1.0}
    task = quiet(make_task(data=data))
    seed_sample(0)
    images, targets = task.mixing(see(task, batch[0]), batch[1])
    expected = -(task(images).log_softmax(1) * targets).sum(1).mean()
    seed_sample(0)
    torch.testing.assert_close(task.training_step(batch, 0), expected)
    assert task.training_step(batch, 0) != expected  # it draws anew


def test_soft_targets_are_not_mixed():
    with pytest.raises(UsageError, match=r"data\.soft_targets cannot be combined with"):
        make_task(data={"soft_targets": True, "mixup": 0.5})
