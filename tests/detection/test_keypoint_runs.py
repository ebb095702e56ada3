"""Keypoints from the command line: a run, its evaluation, predictions and what it refuses."""

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from small_runs import call

import spanets_cli
from spanets.checkpoint import load_checkpoint
from spanets.detection import figures
from spanets.detection.figures import FIGURE, write_figures
from spanets.detection.task import DetectionTask
from spanets.formats.coco.reader import read_coco
from spanets.formats.reading import read_objects
from spanets.recipe import load_recipe
from spanets_runtime.errors import UsageError

# A detector of a tenth of a million parameters, images of 64 pixels.
SMALL = {
    "model.name": "test_resnet",
    "model.channels": 16,
    "model.features": 32,
    "model.regions": 16,
    "model.proposals": 30,
    "model.box_convolutions": "null",
    "model.keypoint_convolutions": 1,
    "model.keypoint_channels": 16,
    "data.short_side": 64,
    "data.long_side": 64,
    "data.train_short_sides": "[64, 64]",
    "data.workers": 0,
    "optim.warmup_updates": 2,
    "optim.milestones": "[5, 6]",
    "trainer.accelerator": "cpu",
    "trainer.epochs": 2,
    "trainer.val_every": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eight images for training, two for validation."""
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    root = tmp_path_factory.mktemp("data") / "figures"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "load_photographs", lambda part: [Image.fromarray(noise)])
        write_figures(root, 10, 64, 0)
    return root


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "small"
    keys = [word for key, value in SMALL.items() for word in (f"--{key}", value)]
    words = ("train", "figures_keypoint_rcnn", *keys, "--data.root", folder, "--out", out)
    assert spanets_cli.main([*map(str, words)]) == 0
    return out


def test_a_run(run):
    metrics = json.loads((run / "results.json").read_text())["metrics"]
    assert set(metrics) >= {"box_ap", "keypoint_ap", "keypoint_ap_medium", "keypoint_ar"}
    assert "mask_ap" not in metrics
    header = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/loss_keypoint", "val/keypoint_ap"} <= set(header)
    assert (
        "keypoints: 7, pairs of left and right by name: 2" in (run / "environment.json").read_text()
    )
    info, _ = load_checkpoint(run / "last.ckpt")
    assert info.head["keypoints"] == FIGURE.describe()
    assert info.head["settings"]["keypoints"] == 7


def test_eval_prints_a_table(run, capsys):
    status, printed, said = call(capsys, "eval", run / "last.ckpt", "--workers", 0, "--tta")
    assert status == 0, said
    _, header, box, second, keypoint, *_ = printed.splitlines()
    assert header.split() == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert second.split() == ["AP", "AP50", "AP75", "APm", "APl", "AR"]
    assert (box.split()[0], keypoint.split()[0]) == ("box", "keypoint")


def peer_ap(truth: Path, found: Path) -> float:
    with redirect_stdout(StringIO()):
        coco = COCO(str(truth))
        keys = ("image_id", "category_id", "keypoints", "score")
        results = [{k: one[k] for k in keys} for one in json.loads(found.read_text())]
        evaluation = COCOeval(coco, coco.loadRes(results), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.full(7, 0.05)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        coco.loadRes(str(found))  # the file as it is
    return evaluation.stats[0]


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_predictions(run, folder, tmp_path, capsys):
    """The files are COCO's, are measured as `eval` measured them, and name the keypoints."""
    truth, out = folder / "annotations" / "val.json", tmp_path / "out"
    words = (folder / "images" / "val", "--out", out, "--annotations", truth, "--json")
    status, printed, said = call(capsys, "predict", run / "last.ckpt", *words, "--score", 0.06)
    assert (status, said) == (0, "")
    metrics = json.loads((run / "results.json").read_text())["metrics"]
    assert metrics["keypoint_ap"] == pytest.approx(
        peer_ap(truth, out / "detections.json"), abs=1e-6
    )
    written = json.loads((out / "predictions.json").read_text())
    named = json.loads(truth.read_text())["categories"]
    assert written["categories"] == named
    assert written["annotations"]
    again = read_coco(out / "predictions.json", folder / "images" / "val", keypoints=True)
    assert again.keypoints == FIGURE
    assert len(list(out.glob("*-overlay.jpg"))) == 2
    found = [one for image in json.loads(printed) for one in image["predictions"]]
    assert found
    for one in found:
        assert [point["name"] for point in one["keypoints"]] == list(FIGURE.names)
        assert all(set(point) == {"name", "x", "y", "score"} for point in one["keypoints"])


def test_tiles(run, folder, capsys):
    image = sorted((folder / "images" / "val").iterdir())[0]
    words = (image, "--tile", 48, "--overlap", 16, "--score", 0.06, "--json")
    status, printed, said = call(capsys, "predict", run / "last.ckpt", *words)
    assert status == 0, said
    (answer,) = json.loads(printed)
    for one in answer["predictions"]:
        assert all(-1 <= point[axis] <= 65 for point in one["keypoints"] for axis in "xy")


def test_what_it_is_not_for(run, tmp_path, refused):
    line = refused(2, "export", run / "last.ckpt", "--out", tmp_path / "a.onnx")
    assert "of detectors only retinanet can be exported" in line


@pytest.mark.page
def test_the_page(run, folder, tmp_path, capsys):
    status, _, said = call(capsys, "report", run)
    assert status == 0, said
    text = (run / "report.html").read_text()
    assert "Average precision of keypoints" in text


@pytest.fixture
def people(folder, tmp_path) -> Path:
    """COCO's own layout: objects in one file of a part, people with keypoints in another."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    for part in ("train", "val"):
        (root / f"{part}2017").symlink_to(folder / "images" / part)
        content = json.loads((folder / "annotations" / f"{part}.json").read_text())
        place = root / "annotations" / f"person_keypoints_{part}2017.json"
        place.write_text(json.dumps(content))
        content["categories"] = [{"id": 1, "name": "thing"}, {"id": 2, "name": "other"}]
        for annotation in content["annotations"]:
            del annotation["keypoints"], annotation["num_keypoints"]
        (root / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(content))
    return root


def parts_of(root: Path, keypoints: bool):
    found, _ = read_objects(root, ("train", "val"), root / "annotations" / "train.json", keypoints)
    return found


def test_files_for_keypoints_are_found_where_keypoints_are_wanted(people):
    train, val = parts_of(people, keypoints=True)
    assert (train.classes, len(train.images), len(val.images)) == (["figure"], 8, 2)
    assert train.keypoints is not None
    note = "read person_keypoints_train2017.json, person_keypoints_val2017.json, not instances_"
    assert any(note in line for line in train.notes)
    train, _ = parts_of(people, keypoints=False)
    assert train.classes == ["thing", "other"]
    assert any("read instances_train2017.json" in line for line in train.notes)


def test_files_for_keypoints_have_boxes_too(people):
    for path in (people / "annotations").glob("instances_*"):
        path.unlink()
    train, _ = parts_of(people, keypoints=False)
    assert train.classes == ["figure"]
    assert not any(" not " in line for line in train.notes)


@pytest.mark.parametrize(
    ("head", "metric", "known"),
    [
        ("keypoint_rcnn", "keypoint_ap", "keypoint_ap, box_ap"),
        ("mask_rcnn", "box_ap", "box_ap, mask_ap"),
        ("retinanet", "box_ap", "box_ap"),
    ],
)
def test_the_metric_that_selects_the_best_epoch(head, metric, known):
    recipe = load_recipe("figures_keypoint_rcnn", ["--model.head", head])
    assert DetectionTask(recipe).score == f"val/{metric}"
    recipe.trainer.metric = "accuracy"
    with pytest.raises(UsageError, match=f"trainer.metric is 'accuracy', allowed: {known}"):
        DetectionTask(recipe)
