"""The ImageNet recipes against the tables of the papers and the released scripts."""

import pytest
import timm
import torch

import spanets
from spanets.checkpoint import ModelInfo
from spanets.classification.data import make_mixing
from spanets.classification.module import Classification
from spanets.data.image_level.transforms import train_transform
from spanets.recipe import list_recipes, load_recipe
from spanets.training.optim import make_optimizer

# Drop path, optimizer, clipping, evaluation crop.
TABLE = {
    "spanet_small": (0.1, "adamw", None, 0.9),
    "spanet_medium": (0.2, "adamw", None, 0.9),
    "spanet_mediumx": (0.3, "adamw", None, 0.9),
    "spanet_base": (0.3, "adamw", None, 0.95),
    "spanet_basex": (0.5, "adamw", None, 0.95),
    "spanetv2_s18_pure": (0.2, "adamw", None, 1.0),
    "spanetv2_s18_hybrid": (0.15, "lamb", None, 1.0),
    "spanetv2_s36_pure": (0.3, "adamw", None, 1.0),
    "spanetv2_s36_hybrid": (0.3, "lamb", None, 1.0),
    "spanetv2_m36_pure": (0.4, "adamw", None, 1.0),
    "spanetv2_m36_hybrid": (0.4, "lamb", None, 1.0),
    "spanetv2_b36_pure": (0.6, "adamw", None, 1.0),
    "spanetv2_b36_hybrid": (0.6, "lamb", 1.0, 1.0),
}
# Batch, learning rate of each optimizer, warm-up epochs, precision.
FAMILIES = {
    "spanet": (1024, {"adamw": 1e-3}, 5, "32-true"),
    "spanetv2": (4096, {"adamw": 4e-3, "lamb": 8e-3}, 20, "16-mixed"),
}


def test_every_variant_of_the_papers_has_a_recipe():
    every = (name.partition("/") for name in list_recipes())
    named = {name for folder, _, name in every if folder == "imagenet"}
    assert named == TABLE.keys()
    ours = {"nano", "tiny"}
    assert named == {name for name in spanets.list_models() if not ours & set(name.split("_"))}


@pytest.mark.parametrize("name", TABLE)
def test_settings(name):
    drop_path, optimizer, clip, crop = TABLE[name]
    batch, rates, warmup, precision = FAMILIES[name.split("_")[0]]
    recipe = load_recipe(f"imagenet/{name}")
    assert recipe.model.name == name
    assert recipe.model.args == {"drop_path_rate": drop_path}
    assert (recipe.seed, recipe.model.weights) == (42, None)

    optim = recipe.optim
    assert (optim.name, optim.lr, optim.clip_grad) == (optimizer, rates[optimizer], clip)
    assert optim.batch_size == optim.lr_batch_size == batch
    assert (optim.weight_decay, optim.layer_decay, optim.ema_decay) == (0.05, None, None)
    assert (optim.warmup_epochs, optim.warmup_lr, optim.min_lr) == (warmup, 1e-6, 1e-5)
    assert (optim.cooldown_epochs, optim.label_smoothing) == (10, 0.1)
    assert (recipe.trainer.epochs, recipe.trainer.precision) == (300, precision)

    data = recipe.data
    assert (data.source, data.image_size, data.crop_pct) == ("folder", 224, crop)
    assert (data.interpolation, data.train_interpolation) == ("bicubic", "random")
    assert data.scale == (0.08, 1.0)
    assert data.ratio == pytest.approx((3 / 4, 4 / 3))
    assert (data.hflip, data.vflip, data.color_jitter) == (0.5, 0.0, 0.0)
    assert data.auto_augment == "rand-m9-mstd0.5-inc1"
    assert (data.random_erasing, data.erasing_mode) == (0.25, "pixel")
    assert (data.mixup, data.cutmix, data.mix_prob) == (0.8, 1.0, 1.0)
    assert (data.mix_switch_prob, data.mix_mode) == (0.5, "batch")


@pytest.mark.parametrize("name", TABLE)
def test_parts_can_be_made(name):
    """Transform, mixing, model and optimizer: what would stop a run on its first day."""
    recipe = load_recipe(f"imagenet/{name}")
    train_transform(recipe.data)
    assert make_mixing(recipe.data, recipe.optim.label_smoothing, 1000) is not None
    model = timm.create_model(name, device="meta", **recipe.model.args)
    info = ModelInfo(name, {}, ["a"] * 1000, {}, {}, "0")
    task = Classification(model, info, recipe, steps_per_epoch=1251)
    (optimizer,), (schedule,) = task.configure_optimizers()
    assert type(optimizer).__name__.lower() == recipe.optim.name
    counted = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(counted) == len(list(model.parameters()))
    peaks = []
    for epoch in (0, recipe.optim.warmup_epochs, recipe.trainer.epochs):
        schedule["scheduler"].step_update(round(epoch * 1251))
        peaks.append(max(group["lr"] for group in optimizer.param_groups))
    assert peaks[0] == pytest.approx(recipe.optim.warmup_lr)
    assert peaks[1] == pytest.approx(recipe.optim.lr, rel=0.02)
    assert peaks[2] == pytest.approx(recipe.optim.min_lr)


@pytest.mark.parametrize("optimizer", ["lamb", "muon"])
def test_optimizers_lower_the_loss_of_every_kind_of_part(optimizer):
    """Filters of three dimensions, gates of one number, attention and convolutions."""
    torch.manual_seed(0)
    model = timm.create_model("spanetv2_nano_hybrid", num_classes=2, scaled_gate=True, img_size=64)
    recipe = load_recipe("imagenet/spanetv2_s18_hybrid", ["--optim.name", optimizer])
    recipe.optim.lr_batch_size = None
    optim = make_optimizer(model, recipe.optim)
    for group in optim.param_groups:
        group["lr"] = 5e-3
    x, y = torch.randn(8, 3, 64, 64), torch.arange(8) % 2
    losses = []
    for _ in range(8):
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
