"""COCO's average precisions against pycocotools, and what they may not depend on."""

import contextlib
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from spanets.detection.matching import add_missed, count_kinds, match, recommend
from spanets.detection.metrics import NAMES, DetectionMetrics
from spanets.formats.coco.filling import fill
from spanets.formats.coco.objects import Annotation, CocoData, CocoImage, to_coco
from spanets.formats.coco.rle import encode_runs
from spanets_runtime.errors import UserError

SIZE = (200, 240)
IDS = [3, 7, 90]


def random_box(rng) -> list[float]:
    x, y = rng.uniform(0, SIZE[1] - 12), rng.uniform(0, SIZE[0] - 12)
    return [x, y, rng.uniform(x + 10, SIZE[1]), rng.uniform(y + 10, SIZE[0])]


def ellipse(box) -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    centre, half = np.add(box[2:], box[:2]) / 2, np.subtract(box[2:], box[:2]) / 2
    return ((x - centre[0]) / half[0]) ** 2 + ((y - centre[1]) / half[1]) ** 2 <= 1


def annotate(number: int, box, label: int, crowd: bool) -> Annotation:
    mask = ellipse(box)
    runs = {"size": list(SIZE), "counts": encode_runs(mask)}
    return Annotation(number, label, tuple(box), float(mask.sum()), crowd, runs)


def random_data(rng, images: int = 12) -> CocoData:
    """Images with up to six objects, one in five a crowd; annotation 0 is among them."""
    numbers = iter(range(1000))
    return CocoData(
        [
            CocoImage(
                10 * i + 1,
                Path(f"{i}.png"),
                *SIZE[::-1],
                tuple(
                    annotate(next(numbers), random_box(rng), int(rng.integers(1, 4)), crowd)
                    for crowd in rng.random(rng.integers(0, 7)) < 0.2
                ),
            )
            for i in range(images)
        ],
        ["a", "b", "c"],
        IDS,
    )


def mask_of(annotation: Annotation) -> np.ndarray:
    return fill(annotation.segmentation, SIZE, np.eye(2, 3), SIZE)


def with_every_form(data: CocoData) -> CocoData:
    """Masks as polygons, compressed and uncompressed run lengths, in turn."""

    def other_form(annotation: Annotation) -> Annotation:
        left, top, right, bottom = annotation.box
        mask = np.asfortranarray(mask_of(annotation))
        text = {"size": list(SIZE), "counts": coco_mask.encode(mask)["counts"].decode()}
        diamond = [left, (top + bottom) / 2, (left + right) / 2, top, right, bottom]
        forms = [annotation.segmentation, text, [diamond]]
        return replace(annotation, segmentation=forms[annotation.id % 3])

    images = [
        replace(image, annotations=tuple(other_form(a) for a in image.annotations))
        for image in data.images
    ]
    return replace(data, images=images)


def random_found(rng, image: CocoImage) -> dict[str, torch.Tensor]:
    """The objects, moved a little, some missed, some twice or wrong; and some at random."""
    boxes, labels = [], []
    for annotation in image.annotations:
        for _ in range(rng.integers(0, 3)):
            moved = np.add(annotation.box, rng.normal(0, 3, 4))
            boxes.append(np.clip(moved, 0, SIZE[::-1] * 2))
            labels.append(annotation.label if rng.random() < 0.8 else int(rng.integers(1, 4)))
    boxes += [random_box(rng) for _ in range(rng.integers(0, 3))]
    labels += rng.integers(1, 4, len(boxes) - len(labels)).tolist()
    boxes = np.array(boxes).reshape(-1, 4)
    keep = (boxes[:, 2:] - boxes[:, :2] > 1).all(1)
    masks = np.array([ellipse(box) for box in boxes[keep]], float).reshape(-1, 1, *SIZE)
    return {
        "boxes": torch.tensor(boxes[keep], dtype=torch.float32),
        "labels": torch.tensor(np.array(labels, int)[keep]),
        # Of two digits, so that there are equal ones.
        "scores": torch.tensor(rng.integers(5, 100, keep.sum()) / 100, dtype=torch.float32),
        "masks": torch.tensor(masks, dtype=torch.float32),
    }


def peer(data: CocoData, results: list[dict], kind: str, category: int | None = None) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = to_coco(data)
        truth.createIndex()
        left_out = "bbox" if kind == "segm" else "segmentation"
        found = [{k: v for k, v in result.items() if k != left_out} for result in results]
        evaluation = COCOeval(truth, truth.loadRes(found), kind)
        if category is not None:
            evaluation.params.catIds = [category]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def targets_of(images) -> list[dict[str, torch.Tensor]]:
    return [{"image_id": torch.tensor(image.id)} for image in images]


def measured(data, found, order=None, batch=5) -> dict[str, float]:
    metrics = DetectionMetrics(data, masks=True)
    order = range(len(found)) if order is None else order
    for start in range(0, len(found), batch):
        chosen = list(order)[start : start + batch]
        metrics.update(targets_of(data.images[i] for i in chosen), [found[i] for i in chosen])
    return metrics.compute()


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    data = random_data(rng)
    return data, [random_found(rng, image) for image in data.images]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_as_pycocotools_measures(seed):
    rng = np.random.default_rng(seed)
    data = with_every_form(random_data(rng))
    found = [random_found(rng, image) for image in data.images]
    assert any(a.crowd for image in data.images for a in image.annotations)
    metrics = DetectionMetrics(data, masks=True)
    metrics.update(targets_of(data.images), found)
    results = [result for image in metrics.results.values() for result in image]
    values = metrics.compute()
    for name, kind in (("box", "bbox"), ("mask", "segm")):
        expected = list(peer(data, results, kind).stats[:6])
        assert 0.05 < expected[0] < 0.95  # a case that tells something
        for key, value in zip(NAMES, expected, strict=True):
            # The same arithmetic in another order: 1e-9 is far above its rounding.
            assert values[f"{name}_{key}"] == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("ids", [IDS, [90, 3, 7]])
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_each_class_and_size_as_pycocotools_measures(seed, ids):
    rng = np.random.default_rng(seed)
    data = replace(random_data(rng), category_ids=ids, classes=["a", "b", "c"])
    metrics = DetectionMetrics(data, masks=True)
    metrics.update(targets_of(data.images), [random_found(rng, image) for image in data.images])
    results = [result for image in metrics.results.values() for result in image]
    for name, kind in (("box", "bbox"), ("mask", "segm")):
        measured = metrics.measure()[name].by_class
        for label, category in zip("abc", ids, strict=True):
            expected = peer(data, results, kind, category).stats[:6]
            for key, value in zip(NAMES, expected, strict=True):
                found = measured[label][key]
                assert math.isnan(found) if value < 0 else found == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_detections_match_as_in_pycocotools(seed):
    """Correct and ignored detections, and from them precision and recall at any threshold."""
    rng = np.random.default_rng(seed)
    data = random_data(rng)
    metrics = DetectionMetrics(data, masks=False)
    metrics.update(targets_of(data.images), [random_found(rng, image) for image in data.images])
    results = [result for image in metrics.results.values() for result in image]
    matches = match(data, metrics.results)
    assert len(matches) == len(results)
    evaluation = peer(data, results, "bbox")
    right, ignored = 0, 0
    for row in evaluation.evalImgs:
        if row is not None and row["aRng"] == evaluation.params.areaRng[0]:
            right += int(((row["dtMatches"][0] > 0) & ~row["dtIgnore"][0].astype(bool)).sum())
            ignored += int(row["dtIgnore"][0].sum())
    kinds = [one.kind for one in matches]
    assert (kinds.count("correct"), kinds.count("ignored")) == (right, ignored)
    assert right > 5 and ignored > 0

    objects = [a for image in data.images for a in image.annotations if not a.crowd]
    counts = count_kinds(add_missed(data, matches, 0.0))
    assert sum(counts.values()) == len(matches) - ignored + counts["missed"]
    assert counts["correct"] + counts["missed"] <= len(objects)

    overall, at_precision = recommend(data, matches, 0.6)[:2]
    counted = [one for one in matches if one.kind != "ignored"]
    best = 0.0
    for score in {one.score for one in counted}:
        chosen = [one for one in counted if one.score >= score]
        hits = sum(one.kind == "correct" for one in chosen)
        best = max(best, 2 * hits / (len(chosen) + len(objects)))
    assert overall["f1"] == pytest.approx(best)
    chosen = [one for one in counted if one.score >= overall["threshold"]]
    hits = sum(one.kind == "correct" for one in chosen)
    assert overall["precision"] == pytest.approx(hits / len(chosen))
    assert overall["recall"] == pytest.approx(hits / len(objects))
    assert at_precision["threshold"] is None or at_precision["precision"] >= 0.6


def plain_object(number: int, box, label: int) -> Annotation:
    return Annotation(number, label, tuple(map(float, box)), 1.0, False, None)


@pytest.mark.parametrize(
    ("box", "category", "score", "kind", "truth"),
    [
        ([10, 10, 40, 40], 3, 0.9, "correct", 1),
        ([10, 10, 40, 30], 3, 0.5, "duplicate", 1),  # the object has a better one
        ([10, 10, 40, 18], 3, 0.5, "localisation", 1),  # IoU 0.45
        ([10, 10, 40, 40], 7, 0.5, "classification", 1),
        ([10, 10, 40, 18], 7, 0.5, "both", 1),
        ([10, 10, 40, 3], 7, 0.5, "background", None),  # IoU 0.075
        ([100, 100, 20, 20], 3, 0.5, "background", None),
    ],
)
def test_kinds_of_mistakes(box, category, score, kind, truth):
    image = CocoImage(1, Path("a.png"), 200, 200, (plain_object(1, [10, 10, 50, 50], 1),))
    data = CocoData([image], ["a", "b"], [3, 7])
    better = {"bbox": [10, 10, 40, 40], "category_id": 3, "score": 0.8}
    one = {"bbox": box, "category_id": category, "score": score}
    matches = match(data, {1: [better, one] if kind == "duplicate" else [one]})
    assert matches[-1].kind == kind
    assert (matches[-1].truth.id if matches[-1].truth else None) == truth
    counts = count_kinds(add_missed(data, matches, 0.5))
    reached = kind in ("correct", "localisation", "classification", "duplicate")
    assert counts["missed"] == int(not reached)
    assert count_kinds(add_missed(data, matches, 0.95))["missed"] == 1


def test_order_and_batches_change_nothing(case):
    data, found = case
    expected = measured(data, found)
    order = np.random.default_rng(1).permutation(len(found)).tolist()
    for batch in (1, 5, 12):
        assert measured(data, found, order, batch) == expected


def test_processes_share_the_images(case, process, tmp_path):
    """Two processes, of which the second has two images that the first has too."""
    data, found = case

    def measure(rank: int) -> int:
        dist.init_process_group(
            "gloo", init_method=f"file://{tmp_path}/meeting", rank=rank, world_size=2
        )
        part = (range(8), range(6, 12))[rank]
        metrics = DetectionMetrics(data, masks=True, shared=True)
        metrics.update(targets_of(data.images[i] for i in part), [found[i] for i in part])
        (tmp_path / f"{rank}.json").write_text(json.dumps(metrics.compute()))
        dist.destroy_process_group()
        return 0

    running = [process(lambda rank=rank: measure(rank)) for rank in (0, 1)]
    assert [one.wait()[0] for one in running] == [0, 0]
    expected = measured(data, found)
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)] == [
        expected
    ] * 2


def test_the_truth_is_perfect(case):
    data, _ = case
    plain = replace(
        data,
        images=[
            replace(i, annotations=tuple(a for a in i.annotations if not a.crowd))
            for i in data.images
        ],
    )
    found = []
    for image in plain.images:
        masks = [mask_of(a) for a in image.annotations]
        found.append(
            {
                "boxes": torch.tensor([a.box for a in image.annotations]).reshape(-1, 4),
                "labels": torch.tensor([a.label for a in image.annotations], dtype=torch.int64),
                "scores": torch.ones(len(masks)),
                "masks": torch.tensor(np.array(masks)).reshape(-1, 1, *SIZE).float(),
            }
        )
    values = measured(plain, found)
    assert values["box_ap"] == values["mask_ap"] == pytest.approx(1)
    one = plain.images[1]
    assert one.annotations, "the next line needs an object that is then missed"
    found[1] = {name: value[:0] for name, value in found[1].items()}
    assert measured(plain, found)["box_ap"] < 1


def test_objects_in_a_crowd_are_not_counted_against_a_detector():
    crowd = annotate(1, [10, 10, 90, 90], 1, crowd=True)
    single = annotate(2, [100, 10, 150, 60], 1, crowd=False)
    data = CocoData([CocoImage(1, Path("a.png"), *SIZE[::-1], (crowd, single))], ["a"], [1])
    boxes = [[100.0, 10, 150, 60], [20, 20, 50, 50], [40, 40, 80, 80]]
    found = {
        "boxes": torch.tensor(boxes),
        "labels": torch.ones(3, dtype=torch.int64),
        "scores": torch.tensor([0.5, 0.9, 0.8]),
        "masks": torch.tensor(np.array([ellipse(box) for box in boxes]))[:, None].float(),
    }
    assert measured(data, [found])["box_ap"] == pytest.approx(1)
    counted = replace(data, images=[replace(data.images[0], annotations=(single,))])
    assert measured(counted, [found])["box_ap"] < 0.5


def test_what_no_object_defines(case):
    data, found = case
    values = measured(data, found)
    assert not math.isnan(values["mask_ap_large"])
    small = [
        replace(i, annotations=tuple(a for a in i.annotations if a.area < 96**2))
        for i in data.images
    ]
    assert math.isnan(measured(replace(data, images=small), found)["mask_ap_large"])
    nothing = [{name: value[:0] for name, value in one.items()} for one in found]
    assert measured(data, nothing)["box_ap"] == 0
    empty = replace(data, images=[replace(image, annotations=()) for image in data.images])
    assert math.isnan(measured(empty, found)["box_ap"])


def test_boxes_alone(case):
    data, found = case
    boxes = [{name: value for name, value in one.items() if name != "masks"} for one in found]
    metrics = DetectionMetrics(data, masks=False)
    metrics.update(targets_of(data.images), boxes)
    expected = measured(data, found)
    assert metrics.compute() == {f"box_{name}": expected[f"box_{name}"] for name in NAMES}
    metrics.reset()
    assert metrics.compute()["box_ap"] == 0


def test_masks_that_are_not_there(case):
    data, _ = case
    first = data.images[1]
    bare = replace(
        first, annotations=tuple(replace(a, segmentation=None) for a in first.annotations)
    )
    with pytest.raises(UserError, match=r"^annotation \d+ has no segmentation, so masks cannot"):
        DetectionMetrics(replace(data, images=[bare]), masks=True)
    DetectionMetrics(replace(data, images=[bare]), masks=False)
