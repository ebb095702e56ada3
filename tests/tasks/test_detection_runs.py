"""Detection from the command line: a run, its evaluation, and what is wrong with wrong ones."""

import json
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import pytest
import torch
from pycocotools.coco import COCO
from small_runs import call, free_port, member

import spanets_cli
from spanets.checkpoint import load_checkpoint, restore_model
from spanets.data.coco.rle import decode_runs
from spanets.data.shapes import CLASSES, write_shapes
from spanets.detection.heads import CascadeHeads
from spanets.predict.objects import ObjectPredictor
from spanets_runtime.images import FORMATS, load_image
from spanets_runtime.onnx import OnnxFile

# A detector of a tenth of a million parameters, images of 64 pixels.
SMALL = {
    "task": "detection",
    "model.name": "test_resnet",
    "model.head": "mask_rcnn",
    "model.channels": 16,
    "model.features": 32,
    "model.regions": 16,
    "model.proposals": 30,
    "model.anchor_scale": 4,
    "data.train_images": "images/train",
    "data.train_annotations": "annotations/train.json",
    "data.val_images": "images/val",
    "data.val_annotations": "annotations/val.json",
    "data.short_side": 64,
    "data.long_side": 64,
    "data.train_short_sides": "[64, 64]",
    "data.workers": 0,
    "optim.batch_size": 4,
    "optim.warmup_updates": 2,
    "optim.lr": 1e-3,
    "trainer.accelerator": "cpu",
    "trainer.epochs": 2,
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    """Eight images for training, two for validation."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, 10, 64, 0)
    return root


@pytest.fixture(scope="module")
def recipe(shapes, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("recipes") / "small.yaml"
    sections: dict[str, dict] = {}
    lines = []
    for key, value in {**SMALL, "data.root": shapes}.items():
        section, _, name = key.rpartition(".")
        (sections.setdefault(section, {}) if section else sections)[name] = value
    for section, values in sections.items():
        lines.append(f"{section}: {values}" if isinstance(values, str) else f"{section}:")
        if isinstance(values, dict):
            lines += [f"  {name}: {value}" for name, value in values.items()]
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "small"
    assert spanets_cli.main(["train", recipe, "--out", str(out)]) == 0
    return out


def test_two_processes(recipe, process, tmp_path):
    """Each validates on its share; the first one, alone then, measures the last weights."""
    out, port = tmp_path / "run", free_port()
    words = ["train", recipe, "--trainer.devices", "2", "--trainer.epochs", "1", "--out", str(out)]
    runs = [process(member(rank, 2, port, lambda: spanets_cli.main(words))) for rank in range(2)]
    for one in runs:
        status, _, said = one.wait()
        assert status == 0, said
    assert json.loads((out / "results.json").read_text())["images"] == 2


def test_a_run(run):
    results = json.loads((run / "results.json").read_text())
    assert results["epochs"] == 2
    assert results["images"] == 2
    assert set(results["metrics"]) >= {"box_ap", "box_ap50", "mask_ap", "mask_ap_small"}
    header = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    losses = ("classifier", "box_reg", "mask", "objectness", "rpn_box_reg")
    assert {f"train/loss_{name}" for name in losses} <= set(header)
    assert {"train/loss", "train/lr", "val/box_ap", "val/mask_ap"} <= set(header)
    assert (run / "learning_curve.png").is_file()


def test_the_checkpoint_is_whole(run):
    card, _ = load_checkpoint(run / "last.ckpt")
    assert card.task == "detection"
    assert card.classes == list(CLASSES)
    model, _ = restore_model(run / "last.ckpt")
    assert isinstance(model.roi_heads, CascadeHeads)
    assert model.rpn._post_nms_top_n == {"training": 30, "testing": 30}


def test_eval_prints_a_table(run, shapes, capsys):
    status, printed, _ = call(capsys, "eval", run / "last.ckpt", "--workers", 0)
    assert status == 0
    first, header, box, mask = printed.splitlines()
    assert first == f"{run}/last.ckpt on val (2 images)"
    assert header.split() == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert (box.split()[0], mask.split()[0]) == ("box", "mask")
    status, printed, _ = call(
        capsys, "eval", run / "last.ckpt", "--workers", 0, "--data", shapes, "--json"
    )
    results = json.loads(printed)
    assert status == 0
    assert results["metrics"] == json.loads((run / "results.json").read_text())["metrics"]


@pytest.fixture(scope="module")
def boxes_run(recipe, tmp_path_factory) -> Path:
    """RetinaNet on a classifier of another number of classes, `a.pth`; `said` is the report."""
    import timm

    folder = tmp_path_factory.mktemp("boxes")
    torch.manual_seed(0)
    classifier = timm.create_model("test_resnet", num_classes=7)
    torch.save(classifier.state_dict(), folder / "a.pth")
    words = ("--model.weights", folder / "a.pth", "--trainer.epochs", 1, "--optim.lr", 1e-2)
    words += ("--optim.warmup_updates", 0)
    words += ("--model.head", "retinanet", "--model.frozen_stages", 4, "--out", folder / "run")
    with redirect_stderr(StringIO()) as said:
        assert spanets_cli.main(["train", recipe, *map(str, words)]) == 0
    (folder / "said").write_text(said.getvalue())
    return folder


def test_retinanets_are_timed(boxes_run, run, refused, capsys):
    path = boxes_run / "run" / "last.ckpt"
    status, printed, said = call(capsys, "bench", path, "--size", 64, "--rounds", 1, "--json")
    assert status == 0, said
    (row,) = json.loads(printed)["rows"]
    assert row["latency_ms"] > 0 and row["macs"] > 0
    line = refused(2, "bench", run / "last.ckpt")
    assert line.endswith("is none of the classifiers, segmenters and RetinaNets that bench times")


def test_a_run_from_a_classifiers_weights(boxes_run):
    """Frozen, so that they stay; the report names what was left out."""
    assert "left out: fc.weight, fc.bias" in (boxes_run / "said").read_text()
    model, _ = restore_model(boxes_run / "run" / "last.ckpt")
    theirs = torch.load(boxes_run / "a.pth", weights_only=True)
    assert torch.equal(next(model.backbone.body.parameters()), next(iter(theirs.values())))


def test_the_exported_run_finds_the_same(boxes_run, shapes, capsys):
    """In onnxruntime, of one size; the likeliest boxes, which suppression leaves as they are."""
    pytest.importorskip("onnxruntime")
    checkpoint, path = boxes_run / "run" / "last.ckpt", boxes_run / "boxes.onnx"
    words = ("export", checkpoint, "--out", path, "--size", 64, "--static", "--json")
    status, printed, said = call(capsys, *words)
    assert status == 0, said
    assert json.loads(printed)["outputs"] == ["boxes", "scores"]
    file = OnnxFile(path)
    assert (file.task, file.told["classes"]) == ("detection", list(CLASSES))
    predictor = ObjectPredictor(checkpoint, device="cpu")
    predictor.model.score_thresh = 0
    image = load_image(sorted((shapes / "images" / "val").iterdir())[0])
    boxes, scores = (
        torch.from_numpy(x)[0] for x in file.run(predictor.preprocess(image)[None].numpy())
    )
    found = predictor.find(image)
    first = scores.flatten().argmax()
    place, label = divmod(int(first), scores.shape[1])
    assert label + 1 == found["labels"][0]
    # a rounding of sixty-four pixels in float32, after a network
    torch.testing.assert_close(boxes[place], found["boxes"][0], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(scores.max(), found["scores"][0], atol=1e-5, rtol=1e-4)


def test_what_an_exported_detector_is_not_for(boxes_run, shapes, refused, tmp_path):
    pytest.importorskip("onnxruntime")
    path, checkpoint = boxes_run / "boxes.onnx", boxes_run / "run" / "last.ckpt"
    line = refused(2, "predict", path, shapes / "images" / "val")
    assert line.startswith(f"{path} is an exported detector, which gives the boxes and scores of")
    assert line.endswith("predict with the checkpoint it was exported from")
    words = ("export", checkpoint, "--out", tmp_path / "a.onnx", "--dtype", "int8")
    for more in ((), ("--calibration", shapes / "images")):
        line = refused(2, *words, *more)
        assert line.startswith("--dtype int8 is for classifiers and segmenters, and ")
        assert f"{checkpoint} is a detector" in line


def test_predict_writes_coco_json_and_pictures(run, shapes, tmp_path, capsys):
    """A folder and a file of the same name in another one, and a file that is no image."""
    images = sorted((shapes / "images" / "val").iterdir())
    twin = tmp_path / images[0].name
    twin.write_bytes(images[0].read_bytes())
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    out = tmp_path / "out"
    words = (images[0].parent, twin, broken, "--out", out, "--score", 0.06)
    status, printed, said = call(capsys, "predict", run / "last.ckpt", *words)
    assert status == 1
    assert said == f"spanets: {broken}: not an image, or none of {', '.join(FORMATS)}\n"
    assert len(printed.splitlines()) == 3
    names = [f"{path.stem}-overlay.jpg" for path in images]
    again = f"{images[0].stem}-2-overlay.jpg"
    assert sorted(p.name for p in out.iterdir()) == sorted([*names, again, "predictions.json"])
    assert load_image(out / again).size == load_image(twin).size
    truth = json.loads((out / "predictions.json").read_text())
    assert [image["file_name"] for image in truth["images"]] == [str(p) for p in (*images, twin)]
    assert [entry["name"] for entry in truth["categories"]] == list(CLASSES)
    found = truth["annotations"]
    assert found
    assert all(0 < one["score"] < 1 for one in found)
    mask = found[0]["segmentation"]
    assert decode_runs(mask["counts"], *mask["size"]).shape == (64, 64)
    COCO(str(out / "predictions.json"))  # COCO's own reader takes it


def test_predict_prints_json(run, shapes, capsys):
    image = sorted((shapes / "images" / "val").iterdir())[0]
    words = ("predict", run / "last.ckpt", image, "--json")
    status, printed, _ = call(capsys, *words, "--score", 0)
    (entry,) = json.loads(printed)
    assert status == 0
    assert entry["image"] == str(image)
    assert entry["predictions"]
    for one in entry["predictions"]:
        assert set(one) == {"label", "score", "box", "segmentation"}
        x, y, width, height = one["box"]
        assert min(x, y) >= 0
        assert x + width <= 64.001  # a rounding of 64 in float32
        assert y + height <= 64.001
    status, printed, _ = call(capsys, *words, "--score", 1)
    assert json.loads(printed) == [{"image": str(image), "predictions": []}]


def test_scores_out_of_range(run, refused):
    said = refused(2, "predict", run / "last.ckpt", "a.png", "--score", 1.5)
    assert said.startswith("argument --score: 1.5 is no number from 0 to 1")


def test_mistakes(recipe, refused, tmp_path):
    out = ("--out", tmp_path / "run")
    said = refused(2, "train", recipe, *out, "--model.head", "retinanett")
    assert "model.head is 'retinanett', allowed: retinanet" in said
    said = refused(2, "train", recipe, *out, "--model.channels", 16, "--model.norm_groups", 5)
    assert said == "model.norm_groups is 5, must divide 16"
    said = refused(2, "train", recipe, *out, "--optim.layer_decay", 0.9)
    assert said.startswith("optim.layer_decay needs a backbone whose parameters are named")
    said = refused(2, "train", recipe, *out, "--trainer.compile", "true")
    assert said.startswith("trainer.compile does not go with detectors")
    said = refused(2, "train", recipe, *out, "--trainer.precision", "bf16-true")
    assert said.startswith("trainer.precision is bf16-true, in which boxes are off")
    said = refused(2, "train", recipe, *out, "--optim.min_lr", 0.1)
    assert said == "optim.min_lr is 0.1, must be 0 for detectors"
    said = refused(2, "train", recipe, *out, "--optim.warmup_epochs", 1)
    assert said.endswith("and optim.warmup_updates 2; one must be 0")
    said = refused(2, "train", recipe, *out, "--model.name", "vit_tiny_patch16_224")
    assert "has no map at stride 4" in said
    said = refused(1, "train", recipe, *out, "--data.train_annotations", "nothing.json")
    assert "nothing.json: cannot be read (No such file" in said


def test_damaged_descriptions(run, refused, tmp_path):
    content = torch.load(run / "last.ckpt", weights_only=True)
    for head, said in (
        ({}, "the detector's description is damaged"),
        ({"kind": "mask_rcnn", "frozen_stages": 0, "settings": {"channels": 10**9}}, "channels"),
        ({"kind": "no", "frozen_stages": 0, "settings": {}}, "detector is 'no', allowed:"),
    ):
        content["spanets"]["head"] = head
        torch.save(content, tmp_path / "a.ckpt")
        assert said in refused(1, "eval", tmp_path / "a.ckpt")
