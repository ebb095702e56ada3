"""The COCO recipes against the tables of the papers and the released scripts."""

import pytest
import torch

from spanets.detection import PAPERS, make_detector
from spanets.detection.decay import count_layers
from spanets.detection.task import DetectionTask
from spanets.recipe import list_recipes, load_recipe

# Learning rate, images an update, layer decay.
V1 = {"retinanet": (1e-4, 16, None), "mask_rcnn": (2e-4, 8, None)}
V2 = {"mask_rcnn": (1e-4, 16, 0.95), "cascade_mask_rcnn": (2e-4, 16, 0.7)}

NAMES = [
    *(f"{head}_spanet_{size}_1x" for head in V1 for size in ("small", "medium")),
    *(
        f"{head}_spanetv2_{size}_{form}_3x"
        for head in V2
        for size in ("s18", "s36")
        for form in ("pure", "hybrid")
    ),
]


def test_every_run_of_the_papers_has_a_recipe():
    assert sorted(f"coco/{name}" for name in NAMES) == [
        name for name in list_recipes() if name.startswith("coco/")
    ]


@pytest.mark.parametrize("name", NAMES)
def test_settings(name):
    head, _, backbone = name.removesuffix("_1x").removesuffix("_3x").partition("_spanet")
    first = name.endswith("1x")
    recipe = load_recipe(f"coco/{name}")
    lr, batch, decay = (V1 if first else V2)[head]
    assert recipe.task == "detection"
    assert (recipe.model.head, recipe.model.name) == (head, f"spanet{backbone}")
    assert (recipe.model.frozen_stages, recipe.model.sizes()) == (0, {})  # the papers' sizes
    drop_path = 0.0 if first else {"pure": 0.2, "hybrid": 0.15}[name.split("_")[-2]]
    assert recipe.model.args == {"drop_path_rate": drop_path}
    optim, data, trainer = recipe.optim, recipe.data, recipe.trainer
    assert (optim.name, optim.lr, optim.batch_size, optim.layer_decay) == (
        "adamw", lr, batch, decay,
    )  # fmt: skip
    assert optim.warmup_lr == pytest.approx(lr / 1000)
    assert (optim.weight_decay, optim.clip_grad) == (1e-4 if first else 0.05, None)
    assert optim.warmup_updates == (500 if first else 1000)
    assert optim.milestones == ((8, 11) if first else (27, 33))
    assert trainer.epochs == (12 if first else 36)
    assert trainer.precision == ("32-true" if first else "16-mixed")
    assert (data.short_side, data.long_side, data.hflip) == (800, 1333, 0.5)
    assert data.train_short_sides == ((800, 800) if first else (480, 800))
    assert (data.train_crop, data.keep_empty) == (not first, False)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("retinanet_spanet_small_1x", None),
        ("mask_rcnn_spanetv2_s18_pure_3x", 6),
        ("cascade_mask_rcnn_spanetv2_s36_hybrid_3x", 9),
    ],
)
def test_the_learning_rate_over_a_run(name, layers):
    """Warm-up, two steps down, and a factor a layer."""
    recipe = load_recipe(f"coco/{name}")
    plan = DetectionTask(recipe)
    with torch.device("meta"):
        head = recipe.model.head
        model = make_detector(head, recipe.model.name, 80, settings=PAPERS[head])
    plan.check_model(model, 80)
    updates = 7330  # COCO's 117,266 images with objects in batches of 16
    task = plan.make_module(model, plan.make_info(["a"] * 80), updates)
    (optimizer,), (schedule,) = task.configure_optimizers()
    groups = optimizer.param_groups
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    assert {g["weight_decay"] for g in groups} == {0.0, recipe.optim.weight_decay}
    assert all(p.ndim > 1 for g in groups if g["weight_decay"] for p in g["params"])
    rates = []
    first, second = recipe.optim.milestones
    warm = recipe.optim.warmup_updates
    for update in (0, warm // 2, warm, first * updates - 2, first * updates, second * updates):
        schedule["scheduler"].step_update(update)
        rates.append(max(g["lr"] for g in groups) / recipe.optim.lr)
    assert rates == pytest.approx([0.001, 0.5005, 1, 1, 0.1, 0.01])
    scales = {round(g["lr"] / max(g["lr"] for g in groups), 6) for g in groups}
    decay = recipe.optim.layer_decay
    expected = [1.0] if layers is None else [decay**i for i in range(layers + 2)]
    assert sorted(scales) == pytest.approx(sorted(expected), rel=1e-3)
    if layers is not None:
        assert count_layers(name for name, _ in model.named_parameters()) == layers
