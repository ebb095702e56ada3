"""A run and its data: images keep their part, classes their numbers, run folders their place."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from small_runs import call, make_photos
from torch import nn

from spanets.data.run_data import read_run_data, trained_images
from spanets.data.split_list import read_split
from spanets.data.unreadable import Unreadable
from spanets.recipe import load_recipe
from spanets.training.batch_norm import refuse_single_values
from spanets.training.engine import train
from spanets.training.resuming import check_classes
from spanets.training.unreadable_images import UnreadableImages
from spanets_runtime.errors import UsageError, UserError

ONE = ["--trainer.epochs", "1"]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take longer than the training."""
    for name in ("training.report.plot_curves", "classification.report.plot_confusion"):
        monkeypatch.setattr(f"spanets.{name}", lambda *_, **__: None)


@pytest.fixture
def run(photos, small_run, tmp_path) -> tuple[Path, Path]:
    """Photos that may be changed, and the finished run as if made of them."""
    root = Path(shutil.copytree(photos, tmp_path / "photos"))
    out = Path(shutil.copytree(small_run, tmp_path / "run"))
    for path in out.glob("*.ckpt"):
        content = torch.load(path, weights_only=True)
        content["spanets"]["recipe"]["data"]["root"] = str(root)
        torch.save(content, path)
    recipe = (out / "recipe.yaml").read_text()
    (out / "recipe.yaml").write_text(recipe.replace(str(photos), str(root)))
    return root, out


def evaluate(capsys, out: Path, *words) -> tuple[dict, list[str]]:
    command = ["eval", out / "last.ckpt", "--workers", "0", "--json", *words]
    status, printed, said = call(capsys, *command)
    assert status == 0, said
    return json.loads(printed), said.splitlines()


# ---- splits


def test_a_run_lists_its_split(small_run):
    parts = read_split(small_run).parts
    assert sorted(parts.values()) == ["train"] * 12 + ["val"] * 4
    lines = (small_run / "split.csv").read_text().splitlines()
    assert lines[:2] == ["image,part", "cat/0.png,train"]
    assert [name for name in lines if name.endswith("val")] == [
        f"{name}.png,val" for name in ("cat/2", "cat/4", "dog/2", "dog/6")
    ]


def test_evaluation_keeps_to_the_list(run, capsys):
    root, out = run
    before, said = evaluate(capsys, out)
    assert said == []
    (root / "cat/0.png").unlink()
    shutil.copy(root / "dog/0.png", root / "dog/new.png")
    after, said = evaluate(capsys, out)
    assert after["metrics"] == before["metrics"]
    assert after["images"] == 4
    assert said == after["notes"]
    assert said[0].startswith(f"{root}: 1 image is not in {out}/split.csv, left out, such as dog/n")
    assert said[1].startswith(f"{root}: 1 image is gone that {out}/split.csv lists, such as cat/0")


def test_images_that_were_trained_on_are_told(run, tmp_path, capsys):
    root, out = run
    _, (note,) = evaluate(capsys, out, "--data", root)
    assert note.startswith("12 of the 16 images are those that the model was trained on (")
    assert note.endswith("the numbers are too good; leave out --data to measure only the others")
    copy = shutil.copytree(root, tmp_path / "copy")
    _, (note,) = evaluate(capsys, out, "--data", copy)
    assert note.startswith(f"{copy}: 12 of 16 images have names of images that the model was train")
    others = make_photos(tmp_path / "others", cat=2, dog=2)
    for path in list(others.rglob("*.png")):
        path.rename(path.with_name(f"new-{path.name}"))
    assert evaluate(capsys, out, "--data", others)[1] == []


def test_a_run_goes_on_with_its_list(run, capsys):
    root, out = run
    listed = (out / "split.csv").read_bytes()
    shutil.copy(root / "dog/0.png", root / "dog/new.png")
    moved = root.rename(root.with_name("moved"))
    words = ["--data.root", str(moved)]
    train(load_recipe(str(out / "recipe.yaml"), words), out, resume=True)
    said = capsys.readouterr().err
    assert f"{moved}: 1 image is not in {out}/split.csv" in said
    assert (out / "split.csv").read_bytes() == listed
    starts = json.loads((out / "environment.json").read_text())["starts"]
    assert "1 image is not in" in starts[-1]["notes"][0]


def test_an_old_run_writes_its_list_when_it_goes_on(run, capsys):
    root, out = run
    listed = (out / "split.csv").read_bytes()
    (out / "split.csv").unlink()
    before, (note,) = evaluate(capsys, out)
    assert note.startswith(f"{out}: has no split.csv, so the split of {root} is drawn again; it is")
    assert before["metrics"] == pytest.approx(
        json.loads((out / "results.json").read_text())["metrics"]
    )
    train(load_recipe(str(out / "recipe.yaml")), out, resume=True)
    assert (out / "split.csv").read_bytes() == listed


def test_an_old_run_whose_images_are_fewer(run, refused):
    root, out = run
    (out / "split.csv").unlink()
    for number in range(2):
        (root / f"cat/{number}.png").unlink()
    line = refused(1, "eval", out / "last.ckpt", "--workers", "0")
    assert line.startswith(f"{out} has no split.csv, and {root} has changed since that run began (")
    assert "(it trained on 12 to 15 images, now they are 10)" in line
    with pytest.raises(UserError, match="or start a new run"):
        train(load_recipe(str(out / "recipe.yaml")), out, resume=True)


def test_how_many_images_a_checkpoint_was_trained_on(small_run, small_recipe):
    content = torch.load(small_run / "last.ckpt", weights_only=True)
    recipe = load_recipe(small_recipe)
    assert trained_images(content, recipe) == range(12, 16)
    recipe.optim.batch_size, recipe.trainer.accumulate = 8, 2
    assert trained_images(content, recipe) == range(12, 20)
    assert trained_images({}, recipe) is None


def test_what_is_known_of_a_run(small_run):
    info = type("ModelInfo", (), {"classes": ["cat"], "head": {}, "recipe": {}})
    run_data = read_run_data(small_run, info, {})
    assert run_data.started is not None and not run_data.is_new
    (none := read_run_data(small_run / "tensorboard", info, {}))
    assert (none.split, none.started) == (None, None)


def test_what_was_unreadable_is_forgotten_with_the_numbers(tmp_path):
    """Another image has the number of one that is gone."""
    from spanets.data.samples import Samples

    def part(count: int) -> Unreadable:
        return Unreadable(
            Samples([Path(f"{i}.png") for i in range(count)], [0] * count, ["a"]), 0.5
        )

    before = UnreadableImages(tmp_path, {"train": part(4)})
    before.reasons["train"] = {3: "damaged"}
    state = before.state_dict()
    same, fewer = (UnreadableImages(tmp_path, {"train": part(count)}) for count in (4, 3))
    same.load_state_dict(state)
    fewer.load_state_dict(state)
    assert same.reasons == {"train": {3: "damaged"}}
    assert fewer.reasons == {"train": {}}


# ---- classes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / "cat").rename(root / "zebra"), "'cat' is missing, 'zebra' is new"),
        (lambda root: shutil.copytree(root / "cat", root / "ant"), "'ant' is new"),
        (lambda root: (root / "cat").rename(root / "Cat"), "'cat' is missing, 'Cat' is new"),
    ],
)
def test_a_run_keeps_its_classes(change, said, run, refused):
    root, out = run
    change(root)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    line = refused(1, "train", out / "recipe.yaml", "--out", out, "--resume")
    assert line == (
        f"{out}/last.ckpt: was trained on other classes than the data set has now: {said}; "
        "restore the classes, or start a new run with another --out"
    )
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()} == before


def test_classes_are_compared_in_order():
    check_classes(["a", "b"], ["a", "b"], Path("x"))
    check_classes(None, ["a"], None)
    with pytest.raises(
        UserError, match=r"x: was trained .* in another order: number 0 is 'b', not"
    ):
        check_classes(["a", "b"], ["b", "a"], Path("x"))


def test_a_new_class_does_not_stop_evaluation(run, capsys):
    root, out = run
    shutil.copytree(root / "cat", root / "ant")
    found, (note,) = evaluate(capsys, out)
    assert found["images"] == 4
    assert note.startswith(f"{root}: 8 images are not in {out}/split.csv")


# ---- run folders among images


def test_a_run_folder_among_the_images(small_recipe, tmp_path, monkeypatch, refused, capsys):
    root = make_photos(tmp_path / "photos", cat=8, dog=8)
    monkeypatch.chdir(root)
    words = ["train", small_recipe, "--data.root", ".", *ONE]
    line = refused(2, *words)
    assert line == (
        "--out runs/small: lies in ., whose folders are classes of images; choose a folder "
        "outside, or one whose name begins with a dot"
    )
    assert not Path("runs").exists()
    # Of a run that is there it is known what it is.
    assert call(capsys, *words, "--out", ".runs/a")[0] == 0
    Path(".runs").rename("runs")
    status, printed, said = call(capsys, *words, "--out", "runs/a", "--resume")
    assert status == 0
    assert ".: left out, because it holds a run: runs" in said
    assert "recall of runs" not in printed


# ---- what is measured of a folder with parts, or of one class


def test_a_folder_with_parts_is_measured_by_one(small_run, photos, tmp_path, capsys):
    root = tmp_path / "parted"
    for name in ("Train", "validation"):
        shutil.copytree(photos, root / name)
    shutil.rmtree(root / "validation/dog")
    found, notes = evaluate(capsys, small_run, "--data", root)
    note, of_names = notes
    assert "6 of 8 images have names of images that the model was trained on" in of_names
    assert found["data"] == f"{root}/validation"
    assert found["images"] == 8
    assert found["metrics"]["auroc"] is None
    assert note.startswith("4 of the") is False
    assert f"{root}: has parts, of which validation is measured; name {root}/Train to" in note


def test_one_class_is_measured(small_run, photos, tmp_path, capsys):
    shutil.copytree(photos / "dog", tmp_path / "test/dog")
    found, _ = evaluate(capsys, small_run, "--data", tmp_path / "test")
    assert found["images"] == 8
    assert found["metrics"]["auroc"] is None
    assert found["metrics"]["accuracy"] is not None


# ---- batches of one


@pytest.mark.parametrize(
    ("name", "size", "batch", "is_refused"),
    [
        ("resnet18", 32, 1, True),
        ("resnet18", 32, 2, False),
        ("resnet18", 33, 1, False),  # two by two pixels before the head
        ("test_convnext", 32, 1, False),  # layer norm
    ],
)
def test_batch_norm_needs_two_values(name, size, batch, is_refused):
    model = timm.create_model(name, num_classes=2).train()
    image = torch.zeros(1, 3, size, size)
    if is_refused:
        with pytest.raises(UsageError, match=r"one image, so .* \(layer4\.0\.bn1\) sees one value"):
            refuse_single_values(model, image, batch)
    else:
        refuse_single_values(model, image, batch)
        model(image.repeat(batch, 1, 1, 1))  # and so says torch
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_batch_norm_of_vectors():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4))
    with pytest.raises(UsageError, match=r"batch norm \(2\) sees one value a channel"):
        refuse_single_values(model, torch.zeros(1, 3, 2, 2), 1)


def test_a_run_with_batches_of_one(small_recipe, tmp_path, refused):
    words = ["train", small_recipe, "--model.name", "resnet18", "--optim.batch_size", "1"]
    line = refused(2, *words, "--out", tmp_path / "new")
    assert line.startswith("the batch on one device is one image, so the model's batch norm (")
    assert "raise optim.batch_size or data.image_size" in line
    assert not (tmp_path / "new").exists()


# ---- other tasks


def test_segmenters_keep_split_and_classes(tmp_path, capsys, monkeypatch):
    root, noise = tmp_path / "set", np.random.default_rng(0)
    for number in range(8):
        for folder, shape in (("images", (32, 32, 3)), ("masks", (32, 32))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            high = 256 if folder == "images" else 2
            pixels = noise.integers(0, high, shape).astype(np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{number}.png")
    (root / "classes.txt").write_text("sky\nsea\n")
    monkeypatch.setattr("spanets.segmentation.task.SegmentationTask.pictures", lambda *_: {})
    words = ["--task", "segmentation"]
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"task: segmentation\nmodel: {{name: spanet_nano}}\n"
        f"data: {{root: {root}, crop: 32, resize: [32, 32], workers: 0}}\n"
        "optim: {batch_size: 2}\ntrainer: {epochs: 1, accelerator: cpu, logger: none}\n"
    )
    del words
    out = tmp_path / "run"
    train(load_recipe(str(recipe)), out)
    assert set(read_split(out).parts) == {f"images/{number}.png" for number in range(8)}
    before, said = evaluate(capsys, out)
    for folder in ("images", "masks"):
        shutil.copy(root / folder / "0.png", root / folder / "a.png")
    after, said = evaluate(capsys, out)
    assert after["metrics"] == before["metrics"]
    assert said[0].startswith(f"{root}: 1 image is not in {out}/split.csv, left out, such as ima")
    (root / "classes.txt").write_text("sea\nsky\n")
    with pytest.raises(UserError, match="in another order: number 0 is 'sea', not 'sky'"):
        train(load_recipe(str(recipe)), out, resume=True)
