"""spanets train, eval and predict on a folder of images and masks."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from count_opens import assert_opens_once, dense_commands
from opened import restore_model
from pages import check_page
from PIL import Image
from small_runs import answers_of, call, call_without_torch

import spanets_cli
from spanets.backbones.dense import DenseBackbone
from spanets.checkpoint import load_checkpoint
from spanets.recipe import load_recipe
from spanets.segmentation import make_segmenter
from spanets.segmentation.decay import stage_scales
from spanets.segmentation.masks.values import IGNORED
from spanets.segmentation.module import Segmentation, pixel_loss
from spanets.segmentation.predict import MaskPredictor
from spanets.training.engine import train
from spanets.training.groups import group_parameters
from spanets_runtime.errors import UsageError
from spanets_runtime.labels import load_labels

SMALL = {
    "task": "segmentation",
    "model.name": "spanet_nano",
    "model.args": "{depths: [1, 1, 1, 1]}",
    "model.head_args": "{pyramid_channels: 8, channels: 8}",
    "data.resize": "[32, 128]",
    "data.crop": 32,
    "data.workers": 0,
    "optim.batch_size": 2,
    "optim.lr": 0.005,
    "trainer.epochs": 2,
    "trainer.accelerator": "cpu",
}


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory) -> str:
    """A recipe for images whose right half is bright, which is their class; some of it ignored."""
    root = tmp_path_factory.mktemp("halves")
    noise = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3)):
        for folder in ("images", "masks"):
            (root / folder / part).mkdir(parents=True)
        for i in range(count):
            width = 40 + 8 * i
            classes = np.zeros((36, width), np.uint8)
            classes[:, width // 2 :] = 1
            pixels = classes[..., None] * 120 + noise.integers(0, 120, (36, width, 3))
            classes[:3] = IGNORED
            Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / part / f"{i}.png")
            Image.fromarray(classes).save(root / "masks" / part / f"{i}.png")
    (root / "classes.txt").write_text("dark\nbright\n")
    path = root / "halves.yaml"
    path.write_text("\n".join(f"{k}: {v}" for k, v in {**SMALL, "data.root": root}.items()))
    return str(path)


@pytest.fixture(scope="module")
def run_folder(recipe_file, tmp_path_factory):
    """The folder of a finished run; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "halves"
    train(load_recipe(recipe_file), out)
    return out


# ---- the commands


def test_a_run_leaves_what_every_run_leaves(run_folder):
    results = json.loads((run_folder / "results.json").read_text())
    assert set(results["metrics"]) == {"mIoU", "mAcc", "aAcc"}
    assert results["images"] == 3
    counts = np.array(results["confusion"])
    assert counts.sum() == sum((40 + 8 * i) * 33 for i in range(3))  # without the ignored rows
    assert results["metrics"]["aAcc"] == pytest.approx(counts.trace() / counts.sum())
    for name in ("learning_curve.png", "examples.png"):
        assert min(Image.open(run_folder / name).size) > 300
    last = list(csv.DictReader((run_folder / "metrics.csv").open()))[-1]
    for name, value in results["metrics"].items():
        assert float(last[f"val/{name}"]) == pytest.approx(value)


def test_the_page(run_folder, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert call(capsys, "report", run_folder, "--workers", 0, "--out", out)[0] == 0
    text = check_page(out)
    assert "IoU by class" in text
    assert "truth prediction" in text
    assert "All 3 images of val were predicted" in text


def test_eval(run_folder, recipe_file, capsys):
    status, printed, _ = call(capsys, "eval", run_folder / "last.ckpt", "--json", "--workers", 0)
    assert status == 0
    found = json.loads(printed)
    results = json.loads((run_folder / "results.json").read_text())
    assert found["metrics"] == results["metrics"]
    assert list(found["iou"]) == ["dark", "bright"]
    root = os.path.dirname(recipe_file)
    _, printed, _ = call(capsys, "eval", run_folder / "last.ckpt", "--data", root, "--workers", 0)
    assert f"mIoU           {found['metrics']['mIoU']:.4f}" in printed
    assert f"IoU of bright: {found['iou']['bright']:.4f}" in printed


@dense_commands
def test_a_command_reads_the_checkpoint_once(words, run_folder, recipe_file, tmp_path, capsys):
    data = Path(recipe_file).parent
    places = {"DATA": data, "IMAGES": data / "images/val", "OUT": tmp_path}
    assert_opens_once(words, run_folder / "last.ckpt", places, capsys)


def test_predict(run_folder, recipe_file, capsys, tmp_path):
    images = os.path.join(os.path.dirname(recipe_file), "images/val")
    words = ["predict", run_folder / "last.ckpt", images, "--out", tmp_path / "found"]
    status, printed, _ = call(capsys, *words, "--json")
    assert status == 0
    found = json.loads(printed)
    assert [len(entry) for entry in found] == [4, 4, 4]
    for i, entry in enumerate(found):
        mask = Image.open(entry["mask"])
        assert mask.size == Image.open(entry["overlay"]).size == (40 + 8 * i, 36)
        numbers = np.asarray(mask)
        for told in entry["classes"]:
            share = (numbers == ["dark", "bright"].index(told["label"])).mean()
            assert share == pytest.approx(told["share"])
        assert sum(told["share"] for told in entry["classes"]) == pytest.approx(1)


@pytest.mark.parametrize("batch", [2, 4, 7])
def test_the_batch_changes_nothing(run_folder, batch, capsys):
    words = ["eval", run_folder / "last.ckpt", "--json", "--workers", 0, "--batch", batch]
    status, printed, _ = call(capsys, *words)
    assert status == 0
    results = json.loads((run_folder / "results.json").read_text())
    assert json.loads(printed)["confusion"] == results["confusion"]


def test_neither_does_the_order(run_folder, recipe_file, capsys, tmp_path):
    """The images of validation under names that sort the other way."""
    root = Path(recipe_file).parent
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for i in range(3):
            shutil.copy(root / kind / f"val/{i}.png", tmp_path / kind / f"{9 - i}.png")
    words = ["eval", run_folder / "last.ckpt", "--json", "--workers", 0, "--data", tmp_path]
    status, printed, _ = call(capsys, *words)
    assert status == 0
    results = json.loads((run_folder / "results.json").read_text())
    assert json.loads(printed)["confusion"] == results["confusion"]  # and without classes.txt


def test_training_evaluation_and_prediction_see_the_same(run_folder, recipe_file, tmp_path):
    """Pixel by pixel; that of the exported file is in tests/runtime/onnx/test_segmenter.py."""
    root = Path(recipe_file).parent
    images = sorted((root / "images/val").iterdir())
    predictor = MaskPredictor(run_folder / "last.ckpt", "cpu")
    confusion = np.zeros((2, 2), int)
    for image, found in zip(images, predictor(images, tmp_path), strict=True):
        truth, guess = load_labels(root / "masks/val" / image.name), load_labels(found.mask)
        known = truth != IGNORED
        np.add.at(confusion, (truth[known], guess[known]), 1)
    results = json.loads((run_folder / "results.json").read_text())
    assert confusion.tolist() == results["confusion"]
    last = list(csv.DictReader((run_folder / "metrics.csv").open()))[-1]
    accuracy = confusion.trace() / confusion.sum()
    assert float(last["val/aAcc"]) == pytest.approx(accuracy, abs=1e-6)


def test_a_run_keeps_what_it_was_told(run_folder):
    results = json.loads((run_folder / "results.json").read_text())
    assert results["notes"] == ["val: 8.3% of the pixels of 3 masks are ignored (255)"]
    (start,) = json.loads((run_folder / "environment.json").read_text())["starts"]
    assert start["notes"] == [
        "train: 8.3% of the pixels of 6 masks are ignored (255)",
        "val: 8.3% of the pixels of 3 masks are ignored (255)",
    ]


def test_black_and_white_masks(run_folder, recipe_file, capsys, tmp_path, monkeypatch):
    """Refused; learnt as the recipe says; evaluated so, and predicted as in the training masks."""
    monkeypatch.setattr("spanets.segmentation.report.plot_examples", lambda *_: None)
    root = tmp_path / "data"
    shutil.copytree(Path(recipe_file).parent, root)
    for path in (root / "masks").rglob("*.png"):
        numbers = load_labels(path)
        Image.fromarray(np.where(numbers == 1, 255, 0).astype(np.uint8)).save(path)
    words = ["train", recipe_file, "--data.root", root, "--out", tmp_path / "run"]
    words += ["--trainer.epochs", 1]
    status, _, said = call(capsys, *words)
    assert status == 1 and "set data.mask_values to binary if it is 'bright'" in said
    assert call(capsys, *words, "--data.mask_values", "binary")[0] == 0
    checkpoint = tmp_path / "run/last.ckpt"
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert sum(results["confusion"][1]) == sum(33 * (20 + 4 * i) for i in range(3))
    words = ["eval", checkpoint, "--json", "--workers", 0, "--data"]
    _, printed, _ = call(capsys, *words, root)
    assert json.loads(printed)["confusion"] == results["confusion"]
    status, _, said = call(capsys, "eval", run_folder / "last.ckpt", "--data", root)
    assert status == 1 and "save it as 1, or train with data.mask_values binary" in said
    words = ["predict", checkpoint, root / "images/val", "--out", tmp_path / "found", "--json"]
    (first, *_) = json.loads(call(capsys, *words)[1])
    assert set(np.unique(load_labels(first["mask"]))) <= {0, 255}


def test_what_cannot_be_used_is_found_before_a_run(recipe_file, refused, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(Path(recipe_file).parent, root)
    Image.new("L", (4, 4)).save(root / "masks/val/1.png")
    (root / "images/train/5.png").write_bytes(b"")
    line = refused(1, "train", recipe_file, "--data.root", root, "--out", tmp_path / "run")
    assert (
        f"2 of 9 images or their masks cannot be used: {root}/images/train/5.png: the file" in line
    )
    assert f"{root}/masks/val/1.png: 4x4 pixels, but its image" in line
    assert not (tmp_path / "run/metrics.csv").exists()


def test_thin_images(run_folder, recipe_file, capsys, tmp_path):
    """They are measured and predicted, and the others as if they were not there."""
    root = tmp_path / "data"
    shutil.copytree(Path(recipe_file).parent, root)
    for name, size in (("a", (2, 4000)), ("b", (3000, 2)), ("c", (1, 1)), ("d", (1, 60_000))):
        Image.new("RGB", size[::-1]).save(root / f"images/val/{name}.png")
        Image.new("L", size[::-1]).save(root / f"masks/val/{name}.png")
    words = ["eval", run_folder / "last.ckpt", "--json", "--workers", 0, "--data", root]
    status, printed, said = call(capsys, *words)
    assert status == 0, said
    results = json.loads((run_folder / "results.json").read_text())
    extra = np.array(json.loads(printed)["confusion"]) - results["confusion"]
    assert extra[0].sum() == 8000 + 6000 + 1 + 60_000 and not extra[1].any()
    words = ["predict", run_folder / "last.ckpt", root / "images/val", "--out", tmp_path / "found"]
    status, printed, _ = call(capsys, *words)
    assert (status, len(printed.splitlines())) == (0, 7)


def test_class_names_of_earlier_versions(run_folder, capsys, tmp_path):
    """They kept the byte-order mark."""
    content = torch.load(run_folder / "last.ckpt", weights_only=True)
    content["spanets"]["classes"][0] = "\ufeffdark"
    torch.save(content, tmp_path / "old.ckpt")
    words = ["eval", tmp_path / "old.ckpt", "--json", "--workers", 0, "--trust-recipe"]
    status, printed, said = call(capsys, *words)
    assert status == 0, said
    assert list(json.loads(printed)["iou"]) == ["\ufeffdark", "bright"]


@pytest.mark.parametrize("more", [(), pytest.param(("--backend", "onnx"), marks=pytest.mark.slow)])
def test_segmenters_are_timed(more, run_folder, capsys):
    path = run_folder / "last.ckpt"
    words = ("bench", path, "--size", "64", "--rounds", "1", "--json", *more)
    status, printed, said = call(capsys, *words)
    assert status == 0, said
    (row,) = json.loads(printed)["rows"]
    assert row["model"] == str(path)
    assert row["latency_ms"] > 0 and row["macs"] > 0


def test_training_steps_are_those_of_classifiers(run_folder, refused):
    path = run_folder / "last.ckpt"
    line = refused(2, "bench", path, "--train")
    assert line == f"{path} is for segmentation; --train times training steps of classifiers"


@pytest.fixture(scope="module")
def larger_run(recipe_file, tmp_path_factory):
    """A run on images of 64 pixels, the least that exported segmenters see."""
    out = tmp_path_factory.mktemp("runs") / "larger"
    words = ["--data.resize", "[64, 128]", "--trainer.epochs", "4"]
    train(load_recipe(recipe_file, words), out)
    return out


@pytest.fixture(scope="module")
def exported(larger_run, tmp_path_factory):
    """The run as an ONNX file."""
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("exported") / "halves.onnx"
    words = ["export", larger_run / "last.ckpt", "--out", path, "--size", 96]
    assert spanets_cli.main([str(word) for word in words]) == 0
    return path


@pytest.mark.slow  # tests/runtime/onnx/test_segmenter.py has what comes after the network
def test_the_exported_run_finds_the_same_without_torch(
    larger_run, exported, recipe_file, capsys, tmp_path
):
    images = os.path.join(os.path.dirname(recipe_file), "images/val")
    words = ["predict", larger_run / "last.ckpt", images, "--out", tmp_path / "ours", "--json"]
    _, printed, _ = call(capsys, *words)
    words = ["predict", exported, images, "--out", tmp_path / "theirs", "--json"]
    status, without_torch, _ = call_without_torch(*words)
    assert status == 0
    for ours, theirs in zip(json.loads(printed), json.loads(without_torch), strict=True):
        assert ours["image"] == theirs["image"]
        masks = [np.asarray(Image.open(entry["mask"])) for entry in (ours, theirs)]
        assert (masks[0] == masks[1]).mean() > 0.999  # where two classes are equal but for rounding
        assert len(np.unique(masks[0])) == 2  # so that the test could fail
        shares = [{one["label"]: one["share"] for one in e["classes"]} for e in (ours, theirs)]
        assert shares[0] == pytest.approx(shares[1], abs=1e-3)


@pytest.mark.slow
def test_int8(larger_run, recipe_file, capsys, tmp_path):
    """Masks of 8 bits are those of 32 but for a few pixels at the edge."""
    pytest.importorskip("onnxruntime")
    root = os.path.dirname(recipe_file)
    export = ["export", larger_run / "last.ckpt", "--out", tmp_path / "m.onnx", "--size", 96]
    export += ["--dtype", "int8"]
    status, _, said = call(capsys, *export, "--calibration", f"{root}/images/train")
    assert status == 0, said
    masks = []
    for source in (larger_run / "last.ckpt", tmp_path / "m.onnx"):
        words = ["predict", source, f"{root}/images/val/2.png", "--out", tmp_path / source.stem]
        call(capsys, *words)
        masks.append(np.asarray(Image.open(tmp_path / source.stem / "2.png")))
    assert (masks[0] == masks[1]).mean() > 0.9


def test_eval_writes_mistakes(run_folder, capsys, tmp_path):
    words = ["eval", run_folder / "last.ckpt", "--workers", 0, "--errors", tmp_path]
    status, printed, said = call(capsys, *words, "--json")
    assert status == 0, said
    found = json.loads(printed)
    rows = list(csv.DictReader((tmp_path / "images.csv").open(newline="")))
    assert [row["image"] for row in rows] == ["0.png", "1.png", "2.png"]
    counts = np.array(found["confusion"])
    pixels = [int(row["pixels"]) for row in rows]
    assert sum(pixels) == counts.sum()
    right = sum(float(row["accuracy"]) * n for row, n in zip(rows, pixels, strict=True))
    assert right == pytest.approx(counts.trace(), abs=0.01)
    assert list(rows[0])[-2:] == ["iou of dark", "iou of bright"]
    page = (tmp_path / "errors.html").read_text()
    assert page.count("<img") == 9
    assert "<script" not in page and '="http' not in page
    assert f"mistakes: {tmp_path / 'errors.html'}" in call(capsys, *words, "--tta")[1]


def test_tiles_and_views(run_folder, recipe_file, capsys, tmp_path):
    image = os.path.join(os.path.dirname(recipe_file), "images/val/2.png")
    shown = {}
    for name, words in {
        "whole": [],
        "one": ["--tile", 56],
        "tiles": ["--tile", 32, "--overlap", 8],
        "views": ["--tta-scales", 1, 1.5, "--tta-crops"],
    }.items():
        out = tmp_path / name
        status, _, said = call(
            capsys, "predict", run_folder / "last.ckpt", image, "--out", out, *words
        )
        assert status == 0, said
        shown[name] = np.asarray(Image.open(out / "2.png"))
    assert np.array_equal(shown["whole"], shown["one"])
    assert shown["tiles"].shape == shown["views"].shape == shown["whole"].shape
    views = "each image and its mirror image, at scales 1, 1.5; the same of its four corners"
    assert said == f"probabilities averaged over 12 views: {views}\n"


def test_predicting_badly(run_folder, refused, capsys, tmp_path):
    line = refused(2, "predict", run_folder / "last.ckpt", "x.png")
    assert line.endswith("finds masks: name a folder for them with --out DIR")
    names = [tmp_path / folder / "a.png" for folder in "xy"]
    for name in names:
        name.parent.mkdir()
        Image.new("RGB", (40, 40)).save(name)
    words = ["predict", run_folder / "last.ckpt", names[0], tmp_path / "no.png", names[1]]
    status, printed, said = call(capsys, *words, "--out", tmp_path)
    assert status == 1
    assert said == f"spanets: {tmp_path}/no.png: no such file\n"
    assert [line.split()[1] for line in printed.splitlines()] == [
        f"{tmp_path}/a.png",
        f"{tmp_path}/a-2.png",
    ]


def test_int8_of_a_fixed_size_is_refused(run_folder, refused, tmp_path):
    words = ["export", run_folder / "last.ckpt", "--out", tmp_path / "m.onnx", "--static"]
    line = refused(2, *words, "--dtype", "int8", "--calibration", tmp_path)
    assert line == "--dtype int8 of a segmenter needs free sizes; leave out --static"


def test_commands_for_classifiers_refuse_it(run_folder, photos, refused, tmp_path):
    checkpoint = run_folder / "last.ckpt"
    line = refused(1, "explain", checkpoint, "x.png", "--out", tmp_path)
    assert line == f"{checkpoint}: is for segmentation; this command takes classifiers"
    line = refused(1, "analyze", checkpoint, "--images", photos, "--out", tmp_path)
    assert line == f"{checkpoint}: is for segmentation; this command takes classifiers"


def test_data_of_other_classes_is_refused(run_folder, refused, tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            image = Image.new("L" if folder == "masks" else "RGB", (40, 40))
            image.save(tmp_path / folder / f"{name}.png")
    (tmp_path / "classes.txt").write_text("sea\nland\n")
    line = refused(1, "eval", run_folder / "last.ckpt", "--data", tmp_path)
    assert "its classes are sea, land, those of" in line
    assert line.endswith("dark, bright")


def test_a_batch_of_one_is_refused(recipe_file, tmp_path):
    with pytest.raises(UsageError, match="batch norm needs two"):
        train(load_recipe(recipe_file, ["--optim.batch_size", "1"]), tmp_path / "run")


# ---- training


def test_it_learns(recipe_file, tmp_path, monkeypatch):
    monkeypatch.setattr("spanets.segmentation.report.plot_examples", lambda *_: None)
    words = ["--trainer.epochs", "10", "--trainer.val_every", "10", "--data.photometric", "false"]
    results = train(load_recipe(recipe_file, words), tmp_path / "run")
    assert results["metrics"]["mIoU"] > 0.6  # half the pixels each: a constant has 0.25


def test_upernet_windows_and_stage_decay(recipe_file, tmp_path, monkeypatch):
    """One run of all that UPerNet's recipes have; the learning rates of each update."""
    monkeypatch.setattr("spanets.segmentation.report.plot_examples", lambda *_: None)
    seen = []
    step = Segmentation.training_step

    def record(self, batch, batch_idx):
        groups = self.trainer.optimizers[0].param_groups
        seen.append({round(group["lr_scale"], 9): group["lr"] for group in groups})
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Segmentation, "training_step", record)
    words = [
        "--model.head",
        "upernet",
        "--model.head_args",
        "{channels: 8}",
        "--data.test",
        "slide",
    ]
    words += ["--data.slide", "[32, 40]", "--optim.stage_decay", "0.5", "--optim.power", "1"]
    words += ["--optim.warmup_updates", "2", "--optim.warmup_lr", "0", "--optim.lr", "0.04"]
    train(load_recipe(recipe_file, words), tmp_path / "run")
    factors = [0, 0.5, 1, 0.75, 0.5, 0.25]  # two to warm up, four to fall
    assert [row[1.0] for row in seen] == pytest.approx([0.04 * factor for factor in factors])
    assert set(seen[2]) == {1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125}
    assert seen[2][0.03125] == pytest.approx(0.04 / 32)
    model, info = restore_model(tmp_path / "run/last.ckpt")
    assert info.head == {"kind": "upernet", "args": {"channels": 8}, "frozen_stages": 0}
    assert model.auxiliary is not None


@pytest.mark.slow  # the engine's own tests resume in every run
def test_resuming_changes_nothing(recipe_file, tmp_path, monkeypatch):
    monkeypatch.setattr("spanets.segmentation.report.plot_examples", lambda *_: None)
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    train(load_recipe(recipe_file), whole)
    step = Segmentation.training_step

    def stop(self, batch, batch_idx):
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Segmentation, "training_step", stop)
        with pytest.raises(Exception, match="stopped"):
            train(load_recipe(recipe_file), halved)
    train(load_recipe(recipe_file), halved, resume=True)
    first, second = (load_checkpoint(folder / "last.ckpt")[1] for folder in (whole, halved))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_starting_from_a_classifier(recipe_file, tmp_path, monkeypatch):
    monkeypatch.setattr("spanets.segmentation.report.plot_examples", lambda *_: None)
    import timm

    classifier = timm.create_model("spanet_nano", depths=(1, 1, 1, 1), num_classes=7)
    torch.save(classifier.state_dict(), tmp_path / "nano.pth")
    words = ["--model.weights", str(tmp_path / "nano.pth"), "--model.frozen_stages", "4"]
    train(load_recipe(recipe_file, [*words, "--trainer.epochs", "1"]), tmp_path / "run")
    found = load_checkpoint(tmp_path / "run/last.ckpt")[1]
    for key, value in classifier.stages.state_dict().items():
        assert torch.equal(found[f"backbone.net.model.stages.{key}"], value)


# ---- parts


@pytest.mark.parametrize("name", ["spanetv2_nano_pure", "convnext_atto", "resnet18"])
def test_stages_decay_on_any_backbone(name):
    with torch.device("meta"):
        model = make_segmenter("semantic_fpn", DenseBackbone(name), 3, {"pyramid_channels": 8})
    scale_of = stage_scales(model, 0.5, layers=4)
    groups = group_parameters(model, 0.1, scale_of)
    assert {group["lr_scale"] for group in groups} == {0.5**i for i in range(6)}
    counted = sum(p.numel() for group in groups for p in group["params"])
    assert counted == sum(p.numel() for p in model.parameters())
    heads = [scale_of(key) for key, _ in model.named_parameters() if not key.startswith("backbone")]
    assert set(heads) == {1.0}
    first = next(key for key, _ in model.named_parameters())
    assert scale_of(first) == 0.5**5


def test_stages_and_downsamplings():
    with torch.device("meta"):
        model = make_segmenter("semantic_fpn", DenseBackbone("spanet_nano"), 3)
    scale_of = stage_scales(model, 0.9, layers=7)  # the released S18 recipe's
    stages = "backbone.net.model.stages"
    assert scale_of(f"{stages}.0.blocks.1.mlp.fc1.weight") == pytest.approx(0.9**7)
    assert scale_of(f"{stages}.3.blocks.0.norm1.weight") == pytest.approx(0.9**4)
    assert scale_of(f"{stages}.3.downsample.conv.weight") == pytest.approx(0.9**8)
    assert scale_of("backbone.net.model.output_norms.2.weight") == 1


def test_ignored_pixels_add_nothing_to_the_loss():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    masks = torch.randint(0, 3, (2, 4, 4))
    whole = pixel_loss(logits, masks)
    assert whole.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, masks).item())
    masks[1] = IGNORED
    half = torch.nn.functional.cross_entropy(logits[:1], masks[:1]) / 2
    assert pixel_loss(logits, masks).item() == pytest.approx(half.item())
    masks[:] = IGNORED
    pixel_loss(logits, masks).backward()
    assert not logits.grad.any()  # nor is anything NaN


def test_processes_share_an_evaluation(run_folder, process, capsys, tmp_path):
    """Three images for two processes: the pixels of each count once."""
    words = ["eval", run_folder / "last.ckpt", "--json", "--errors"]
    _, alone, _ = call(capsys, *words, tmp_path / "1")
    alone = alone.replace(f"{tmp_path}/1", f"{tmp_path}/2")
    first, second = answers_of(process, 2, *words, tmp_path / "2")
    assert first[:2] == (0, alone), first
    tables = [sorted((tmp_path / name).glob("*.csv")) for name in "12"]
    assert tables[0]
    assert [one.read_bytes() for one in tables[0]] == [one.read_bytes() for one in tables[1]]
    assert second == (0, "", "")


def test_masks_are_no_rows(run_folder, refused, tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    words = ["predict", run_folder / "last.ckpt", tmp_path / "a.png", "--table", tmp_path / "a.csv"]
    assert "is for classifiers and detectors; " in refused(2, *words)
    assert os.listdir(tmp_path) == ["a.png"]
