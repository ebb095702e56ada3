"""Detection from the command line: a run, its evaluation, and what is wrong with wrong ones."""

import csv
import json
import math
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
from count_opens import assert_opens_once, dense_commands
from opened import restore_model
from pages import check_page
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from small_runs import answers_of, call, free_port, member

import spanets_cli
from spanets.checkpoint import load_checkpoint
from spanets.detection.network import pasting
from spanets.detection.network.heads import CascadeHeads
from spanets.detection.predict import ObjectPredictor
from spanets.detection.shapes import CLASSES, write_shapes
from spanets.formats.coco.reader import read_coco
from spanets.formats.coco.rle import decode_runs
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


def test_the_page(run):
    text = check_page(run / "report.html")
    assert "Average precision of boxes" in text and "Average precision of masks" in text
    assert "All 2 images of val were predicted" in text
    assert "measured for models of whole images" in text
    assert f"IMAGE... --out {run / 'found'}" in text


def test_the_checkpoint_is_whole(run):
    info, _ = load_checkpoint(run / "last.ckpt")
    assert info.task == "detection"
    assert info.classes == list(CLASSES)
    model, _ = restore_model(run / "last.ckpt")
    assert isinstance(model.roi_heads, CascadeHeads)
    assert model.rpn._post_nms_top_n == {"training": 30, "testing": 30}


def test_eval_prints_a_table(run, shapes, capsys):
    status, printed, _ = call(capsys, "eval", run / "last.ckpt", "--workers", 0)
    assert status == 0
    first, header, box, mask, *others = printed.splitlines()
    assert first == f"{run}/last.ckpt on val (2 images)"
    assert header.split() == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert (box.split()[0], mask.split()[0]) == ("box", "mask")
    assert others[0].split()[:3] == ["class", "objects", "AP"]
    assert others[-2].startswith("  threshold for best F1: ")
    assert others[-1].startswith("  at a score of ")
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
    assert line.endswith("is not a classifier, segmenter or RetinaNet; bench times only these")


@dense_commands
def test_a_command_reads_the_checkpoint_once(words, boxes_run, shapes, tmp_path, capsys):
    places = {"DATA": shapes, "IMAGES": shapes / "images/val", "OUT": tmp_path}
    assert_opens_once(words, boxes_run / "run" / "last.ckpt", places, capsys)


def test_a_run_from_a_classifiers_weights(boxes_run):
    """Frozen, so that they stay; the report names what was left out."""
    assert "left out: fc.weight, fc.bias" in (boxes_run / "said").read_text()
    model, _ = restore_model(boxes_run / "run" / "last.ckpt")
    theirs = torch.load(boxes_run / "a.pth", weights_only=True)
    assert torch.equal(next(model.backbone.body.parameters()), next(iter(theirs.values())))


@pytest.fixture(scope="module")
def exported_boxes(boxes_run) -> Path:
    """`boxes_run`, exported for one size."""
    pytest.importorskip("onnxruntime")
    path = boxes_run / "boxes.onnx"
    words = ("export", boxes_run / "run" / "last.ckpt", "--out", path, "--size", 64, "--static")
    assert spanets_cli.main([*map(str, words), "--json"]) == 0
    return path


def test_the_exported_run_finds_the_same(boxes_run, exported_boxes, shapes):
    """In onnxruntime; the likeliest boxes, which suppression leaves as they are."""
    checkpoint, file = boxes_run / "run" / "last.ckpt", OnnxFile(exported_boxes)
    assert [output.name for output in file.session.get_outputs()] == ["boxes", "scores"]
    assert (file.task, file.metadata["classes"]) == ("detection", list(CLASSES))
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


def test_what_an_exported_detector_is_not_for(boxes_run, exported_boxes, shapes, refused, tmp_path):
    path, checkpoint = exported_boxes, boxes_run / "run" / "last.ckpt"
    line = refused(2, "predict", path, shapes / "images" / "val")
    assert line.startswith(f"{path} is exported for detection, whose predictions need more than")
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
    files = sorted([*names, again, "predictions.json", "detections.json"])
    assert sorted(p.name for p in out.iterdir()) == files
    assert load_image(out / again).size == load_image(twin).size
    truth = json.loads((out / "predictions.json").read_text())
    folder = Path(truth["info"]["folder"])
    named = [folder / image["file_name"] for image in truth["images"]]
    assert named == [*images, twin]
    assert [image["overlay"] for image in truth["images"]] == [*names, again]
    assert [entry["name"] for entry in truth["categories"]] == list(CLASSES)
    found = truth["annotations"]
    assert found
    assert all(0 < one["score"] < 1 for one in found)
    mask = found[0]["segmentation"]
    assert decode_runs(mask["counts"], *mask["size"]).shape == (64, 64)
    COCO(str(out / "predictions.json"))  # COCO's own reader takes it
    ours = read_coco(out / "predictions.json", folder)
    annotations = [a for image in ours.images for a in image.annotations]
    assert ours.classes == list(CLASSES)
    assert [image.path for image in ours.images] == named
    assert [a.area for a in annotations] == [one["area"] for one in found]
    for one in found:
        mask = one["segmentation"]
        assert one["area"] == decode_runs(mask["counts"], *mask["size"]).sum()
    assert any(one["area"] != one["bbox"][2] * one["bbox"][3] for one in found)


def peer_ap(truth: Path, found: Path, kind: str) -> float:
    with redirect_stdout(StringIO()):
        coco = COCO(str(truth))
        results = [
            {k: v for k, v in one.items() if k != ("bbox" if kind == "segm" else "segmentation")}
            for one in json.loads(found.read_text())
        ]
        evaluation = COCOeval(coco, coco.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        coco.loadRes(str(found))  # the file as it is
    return evaluation.stats[0]


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_predictions_are_measured_as_eval_measures_them(run, shapes, tmp_path, capsys):
    """With the data set's numbers, by pycocotools; validation in training had the same."""
    truth, out = shapes / "annotations" / "val.json", tmp_path / "out"
    words = (shapes / "images" / "val", "--out", out, "--annotations", truth)
    status, _, said = call(capsys, "predict", run / "last.ckpt", *words)
    assert (status, said) == (0, "")
    metrics = json.loads((run / "results.json").read_text())["metrics"]
    last = list(csv.DictReader((run / "metrics.csv").open()))[-1]
    for name, kind in (("box_ap", "bbox"), ("mask_ap", "segm")):
        expected = peer_ap(truth, out / "detections.json", kind)
        assert metrics[name] == pytest.approx(expected, abs=1e-6)
        assert float(last[f"val/{name}"]) == pytest.approx(expected, abs=1e-6)
    listed = json.loads(truth.read_text())
    written = json.loads((out / "predictions.json").read_text())
    keys = ("id", "file_name", "width", "height")
    assert [[image[k] for k in keys] for image in written["images"]] == [
        [image[k] for k in keys] for image in listed["images"]
    ]


def renumbered(truth: Path, path: Path, **names: str) -> dict:
    """The file with other numbers, some below zero, other names, and no annotations."""
    content = json.loads(truth.read_text())
    for number, image in enumerate(content["images"]):
        image["id"] = 2**40 if number else -3
        image["file_name"] = names.get("prefix", "") + image["file_name"]
    for number, category in enumerate(content["categories"]):
        category["id"] = 10 * number - 5
    del content["annotations"]
    path.write_text(json.dumps(content))
    return content


def test_numbers_of_a_listing(run, shapes, refused, tmp_path, capsys):
    """A file without annotations, as those of COCO's test images are."""
    listing, out = tmp_path / "test.json", tmp_path / "out"
    content = renumbered(shapes / "annotations" / "val.json", listing, prefix="images\\val\\")
    extra = tmp_path / "extra.png"
    first = sorted((shapes / "images" / "val").iterdir())[0]
    extra.write_bytes(first.read_bytes())
    images = shapes / "images" / "val"
    words = ("predict", run / "last.ckpt", images, extra, first, "--out", out)
    status, printed, said = call(capsys, *words, "--annotations", listing)
    assert status == 1
    assert said.splitlines() == [
        f"spanets: {extra}: is not listed in {listing}",
        f"spanets: {first}: has the number -3 of {first}",
    ]
    assert len(printed.splitlines()) == 2
    found = json.loads((out / "detections.json").read_text())
    assert {one["image_id"] for one in found} == {-3, 2**40}
    assert {one["category_id"] for one in found} <= {c["id"] for c in content["categories"]}
    line = refused(2, *words[:3], "--annotations", listing)
    assert line == "--annotations sets the ids in the files of --out; add --out DIR"
    line = refused(1, *words, "--annotations", tmp_path / "none.json")
    assert "none.json: cannot be read (No such file" in line


def test_classes_have_the_training_datas_numbers(recipe, shapes, tmp_path, capsys):
    data, numbers = {}, [7, -9, 2**40, 11, 12, 13]
    for part in ("train", "val"):
        content = json.loads((shapes / "annotations" / f"{part}.json").read_text())
        ids = {c["id"]: n for c, n in zip(content["categories"], numbers, strict=False)}
        for category in content["categories"]:
            category["id"] = ids[category["id"]]
        for annotation in content["annotations"]:
            annotation["category_id"] = ids[annotation["category_id"]]
        for entry in content["images"]:
            entry["id"] = -entry["id"]
        for annotation in content["annotations"]:
            annotation |= {"image_id": -annotation["image_id"], "id": -annotation["id"]}
        data[part] = tmp_path / f"{part}.json"
        data[part].write_text(json.dumps(content))
    words = [w for part in data for w in (f"--data.{part}_annotations", str(data[part]))]
    status, _, said = call(
        capsys, "train", recipe, "--trainer.epochs", 1, *words, "--out", tmp_path / "run"
    )
    assert status == 0, said
    out = tmp_path / "out"
    images = shapes / "images" / "val"
    call(capsys, "predict", tmp_path / "run" / "last.ckpt", images, "--out", out)
    written = json.loads((out / "predictions.json").read_text())
    assert [category["id"] for category in written["categories"]] == numbers[
        : len(written["categories"])
    ]
    assert {one["category_id"] for one in written["annotations"]} <= set(numbers)


def test_checkpoints_without_numbers_count_from_one(run, shapes, tmp_path, capsys):
    """As those of earlier versions; damaged ones likewise."""
    content = torch.load(run / "last.ckpt", weights_only=True)
    image, path = sorted((shapes / "images" / "val").iterdir())[0], tmp_path / "a.ckpt"
    for ids in (None, [1, 1, 1, 1], ["x"] * 4, 5):
        content["spanets"]["head"].pop("category_ids", None)
        if ids is not None:
            content["spanets"]["head"]["category_ids"] = ids
        torch.save(content, path)
        status, _, said = call(capsys, "predict", path, image, "--out", tmp_path / "out")
        assert status == 0, said
        written = json.loads((tmp_path / "out" / "predictions.json").read_text())
        assert [category["id"] for category in written["categories"]] == [1, 2, 3, 4]


def test_what_is_anothers_is_not_written_over(run, shapes, refused, tmp_path, capsys):
    out, image = tmp_path / "out", sorted((shapes / "images" / "val").iterdir())[0]
    words, overlay = (
        ("predict", run / "last.ckpt", image, "--out", out),
        f"{image.stem}-overlay.jpg",
    )
    out.mkdir()
    (out / overlay).write_text("mine")
    for _ in range(2):  # the second time over what the first has left
        assert call(capsys, *words)[0] == 0
        assert (out / overlay).read_text() == "mine"
        assert sorted(p.name for p in out.iterdir()) == [
            f"{image.stem}-2-overlay.jpg",
            overlay,
            "detections.json",
            "predictions.json",
        ]
    for name, text in (
        ("predictions.json", (shapes / "annotations" / "val.json").read_text()),
        ("detections.json", '{"mine": 1}'),
    ):
        kept = (out / name).read_text()
        (out / name).write_text(text)
        line = refused(2, *words)
        assert line == f"{out / name} is no earlier result of predict; choose another --out"
        assert (out / name).read_text() == text
        (out / name).write_text(kept)


def test_an_image_that_fails_costs_no_other(run, shapes, tmp_path):
    """Whatever goes wrong, what was found before is written."""
    images = sorted((shapes / "images" / "val").iterdir())
    predictor, seen = ObjectPredictor(run / "last.ckpt", device="cpu"), []
    find = predictor.find

    def fail_second(image):
        seen.append(image)
        if len(seen) == 2:
            raise MemoryError
        return find(image)

    predictor.find = fail_second
    with pytest.raises(MemoryError):
        list(predictor(images, out=tmp_path))
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert [image["file_name"] for image in written["images"]] == [images[0].name]


def test_a_broken_detector_is_told(run, shapes, tmp_path, capsys):
    """As a broken classifier is; it does not find nothing, which would look like an answer."""
    content = torch.load(run / "last.ckpt", weights_only=True)
    key = next(key for key in content["state_dict"] if key.endswith("cls_logits.bias"))
    content["state_dict"][key].fill_(math.nan)
    torch.save(content, tmp_path / "broken.ckpt")
    image = sorted((shapes / "images" / "val").iterdir())[0]
    told = "the model's output is NaN or infinite; its weights may be broken"
    status, printed, said = call(capsys, "predict", tmp_path / "broken.ckpt", image, "--json")
    assert (status, said) == (1, f"spanets: {image}: {told}\n")
    assert json.loads(printed) == [{"image": str(image), "predictions": []}]
    status, _, said = call(capsys, "eval", tmp_path / "broken.ckpt", "--data", shapes)
    assert (status, said.splitlines()[-1]) == (1, f"spanets: {told}")


def test_images_of_a_few_rows_or_columns(run, tmp_path, capsys):
    sizes = [(4000, 2), (2, 3000), (1, 1), (1000, 1), (64, 64)]
    for width, height in sizes:
        Image.new("RGB", (width, height)).save(tmp_path / f"{width}x{height}.png")
    status, printed, said = call(capsys, "predict", run / "last.ckpt", tmp_path, "--score", 0.01)
    assert (status, said) == (0, "")
    assert len(printed.splitlines()) == len(sizes)


def test_masks_are_made_above_the_score_alone(run, shapes, monkeypatch):
    made = []
    paste = pasting.paste_masks_in_image
    monkeypatch.setattr(
        pasting, "paste_masks_in_image", lambda *given: made.append(given) or paste(*given)
    )
    predictor = ObjectPredictor(run / "last.ckpt", device="cpu")
    image = sorted((shapes / "images" / "val").iterdir())[0]
    (every,) = predictor([image], min_score=0)
    assert len(made) == len(every.objects) > 3
    made.clear()
    score = every.objects[2]["score"]
    (likely,) = predictor([image], min_score=score)
    assert likely.objects == [one for one in every.objects if one["score"] >= score]
    assert len(made) == len(likely.objects)


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


def test_eval_writes_mistakes(run, capsys, tmp_path, refused):
    words = ["eval", run / "last.ckpt", "--workers", 0, "--errors", tmp_path, "--precision", 0.5]
    status, printed, said = call(capsys, *words, "--json", "--score", 0.02)
    assert status == 0, said
    found = json.loads(printed)
    assert set(found["by_class"]) == {"box", "mask"}
    assert set(found["by_class"]["box"]) == set(found["classes"])
    assert len(found["thresholds"]) == 2 * (1 + len(found["classes"]))
    rows = list(csv.DictReader((tmp_path / "detections.csv").open(newline="")))
    likely = [row for row in rows if row["score"] and float(row["score"]) >= 0.02]
    missed = [row for row in rows if not row["score"]]
    counts = found["mistakes"]
    assert counts.pop("score") == 0.02
    for kind, count in counts.items():
        chosen = missed if kind == "missed" else likely
        assert count == sum(row["kind"] == kind for row in chosen), kind
    page = (tmp_path / "errors.html").read_text()
    assert page.count("<h2>") >= len(counts) - 1
    assert "<script" not in page and '="http' not in page
    assert call(capsys, *words)[0] == 0  # its own files are replaced
    (tmp_path / "detections.csv").write_text("mine")
    assert refused(1, *words).startswith(f"{tmp_path / 'detections.csv'}: already exists")


def test_eval_merges_views(run, capsys):
    words = ["eval", run / "last.ckpt", "--workers", 0, "--tta-scales", 0.75, 1, "--tta-crops"]
    status, printed, said = call(capsys, *words)
    assert status == 0, said
    views = "each image and its mirror image, at scales 0.75, 1; the same of its four corners"
    assert f"  objects merged over 12 views: {views}" in printed.splitlines()


def test_predict_in_tiles(run, shapes, capsys, tmp_path):
    image = sorted((shapes / "images" / "val").iterdir())[0]
    words = ["predict", run / "last.ckpt", image, "--score", 0.01, "--json"]
    whole = json.loads(call(capsys, *words)[1])[0]
    (same,) = json.loads(call(capsys, *words, "--tile", 64)[1])
    assert same == {**whole, "cut": 0}
    words += ["--tile", 40, "--tta", "--out", tmp_path]
    status, printed, said = call(capsys, *words)
    assert status == 0
    assert said == "objects merged over 2 views: each image and its mirror image\n"
    (found,) = json.loads(printed)
    for one in found["predictions"]:
        x, y, width, height = one["box"]
        assert min(x, y) >= 0 and max(x + width, y + height) <= 64.001
        assert one["segmentation"]["size"] == [64, 64]
    assert found["cut"] >= 0
    assert COCO(tmp_path / "predictions.json").anns


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
    said = refused(2, "train", recipe, *out, "--optim.min_lr", 0.0001)
    assert said == "optim.min_lr is 0.0001, must be 0 for detectors"
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
        (
            {"kind": "mask_rcnn", "frozen_stages": 0, "settings": {"channels": 10**9}},
            "1000000000, allowed",
        ),
        ({"kind": "no", "frozen_stages": 0, "settings": {}}, "detector is 'no', allowed:"),
    ):
        content["spanets"]["head"] = head
        torch.save(content, tmp_path / "a.ckpt")
        assert said in refused(1, "eval", tmp_path / "a.ckpt")


def test_processes_share_an_evaluation(run, process, capsys, tmp_path):
    """Two images for three processes: the last one has none."""
    words = ["eval", run / "last.ckpt", "--workers", 0, "--batch", 1, "--json", "--errors"]
    _, alone, _ = call(capsys, *words, tmp_path / "1")
    alone = alone.replace(f"{tmp_path}/1", f"{tmp_path}/2")
    first, *others = answers_of(process, 3, *words, tmp_path / "2")
    assert first[:2] == (0, alone), first
    tables = [sorted((tmp_path / name).glob("*.csv")) for name in "12"]
    assert tables[0]
    assert [one.read_bytes() for one in tables[0]] == [one.read_bytes() for one in tables[1]]
    assert [one[:2] for one in others] == [(0, "")] * 2


def test_a_table_of_objects(run, shapes, tmp_path, capsys):
    words = ["predict", run / "last.ckpt", shapes / "images/val", "--score", "0.01"]
    _, out, _ = call(capsys, *words, "--json")
    status, _, said = call(capsys, *words, "--table", tmp_path / "a.jsonl")
    assert status == 0, said
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert rows == [{**one, "error": None} for one in json.loads(out)]
    assert rows[0]["predictions"]
