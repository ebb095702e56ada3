"""The ADE20K recipes against the tables of the papers and the released scripts."""

import pytest

from spanets.recipe import list_recipes, load_recipe

# Head, drop path, learning rate, batch, weight decay, power, decay layers, epochs.
TABLE = {
    "semantic_fpn_spanet_small": ("semantic_fpn", 0.1, 2e-4, 16, 1e-4, 0.9, None, 64),
    "semantic_fpn_spanet_medium": ("semantic_fpn", 0.2, 2e-4, 16, 1e-4, 0.9, None, 64),
    "semantic_fpn_spanetv2_s18_pure": ("semantic_fpn", 0.2, 2e-4, 32, 1e-4, 0.9, None, 64),
    "semantic_fpn_spanetv2_s18_hybrid": ("semantic_fpn", 0.15, 2e-4, 32, 1e-4, 0.9, None, 64),
    "semantic_fpn_spanetv2_s36_pure": ("semantic_fpn", 0.3, 2e-4, 32, 1e-4, 0.9, None, 64),
    "semantic_fpn_spanetv2_s36_hybrid": ("semantic_fpn", 0.3, 2e-4, 32, 1e-4, 0.9, None, 64),
    "upernet_spanetv2_s18_pure": ("upernet", 0.2, 1e-4, 16, 0.05, 1.0, 7, 127),
    "upernet_spanetv2_s18_hybrid": ("upernet", 0.15, 1e-4, 16, 0.05, 1.0, 7, 127),
    "upernet_spanetv2_s36_pure": ("upernet", 0.3, 1e-4, 16, 0.05, 1.0, 11, 127),
    "upernet_spanetv2_s36_hybrid": ("upernet", 0.3, 1e-4, 16, 0.05, 1.0, 11, 127),
}
TRAINING_IMAGES = 20_210


def test_every_row_of_the_papers_has_a_recipe():
    assert {f"ade20k/{name}" for name in TABLE} == {
        name for name in list_recipes() if name.startswith("ade20k/")
    }


@pytest.mark.parametrize("name", TABLE)
def test_settings(name):
    head, drop_path, lr, batch, weight_decay, power, layers, epochs = TABLE[name]
    recipe = load_recipe(f"ade20k/{name}")
    assert name == f"{head}_{recipe.model.name}"
    assert recipe.model.args == {"drop_path_rate": drop_path}
    assert recipe.model.head == head
    optim, data = recipe.optim, recipe.data
    assert (optim.lr, optim.batch_size, optim.weight_decay) == (lr, batch, weight_decay)
    assert (optim.power, optim.min_lr, optim.clip_grad) == (power, 0, None)
    decay = (None, 4) if layers is None else (0.9, layers)
    assert (optim.stage_decay, optim.decay_layers) == decay
    warmup = (1500, 1e-6 * lr) if head == "upernet" else (0, 1e-6)
    assert (optim.warmup_updates, optim.warmup_lr) == pytest.approx(warmup)
    assert (data.layout, data.resize, data.scale) == ("ade20k", (512, 2048), (0.5, 2.0))
    assert (data.crop, data.crop_share, data.hflip, data.photometric) == (512, 0.75, 0.5, True)
    assert data.test == ("slide" if head == "upernet" else "whole")
    assert data.slide == (341, 512)
    assert recipe.trainer.epochs == epochs
    mixed = recipe.model.name.startswith("spanetv2")
    assert recipe.trainer.precision == ("16-mixed" if mixed else "32-true")


@pytest.mark.parametrize(
    ("name", "updates"),
    [
        ("semantic_fpn_spanet_small", 80_000),
        ("semantic_fpn_spanetv2_s18_pure", 40_000),
        ("upernet_spanetv2_s18_pure", 160_000),
    ],
)
def test_epochs_make_the_updates_of_the_papers(name, updates):
    recipe = load_recipe(f"ade20k/{name}")
    an_epoch = TRAINING_IMAGES // recipe.optim.batch_size
    assert an_epoch * (recipe.trainer.epochs - 1) < updates <= an_epoch * recipe.trainer.epochs
