"""Random annotation files as people write them: AP from the file on as pycocotools has it."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from spanets.detection.metrics import NAMES, DetectionMetrics
from spanets.formats.coco.reader import read_coco

HEIGHT, WIDTH = 110, 140
NUMBERS = (1, 0, -1, -7, 55, 2**40, -(2**33), 90, 2**31, 12)


class Draw:
    """A random file, its peer with what COCO's tools need, and results on its images.

    Args:
        rng: Of all draws.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.numbers = iter(rng.permutation([*range(1, 300), *range(-300, 0), 2**45]).tolist())
        ids, categories = (rng.permutation(NUMBERS).tolist()[: rng.integers(2, 7)] for _ in "ab")
        self.file: dict[str, Any] = {
            "images": [
                {"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in ids
            ],
            "categories": [{"id": i, "name": f"class {i}"} for i in categories],
            "annotations": [],
        }
        self.areas: dict[int, float] = {}
        self.found: dict[int, dict[str, torch.Tensor]] = {i: self._add_objects(i) for i in ids}

    def _add_objects(self, image: int) -> dict[str, torch.Tensor]:
        """Adds an image's objects, and returns what is found of them: moved, missed or twice."""
        boxes, labels = [], []
        categories = [category["id"] for category in self.file["categories"]]
        for _ in range(self.rng.integers(0, 5)):
            box, label = self._box(), int(self.rng.integers(len(categories)))
            twice = 1 + (self.rng.random() < 0.2)  # the same object once more
            for _ in range(twice):
                self._annotate(image, categories[label], box)
            for _ in range(self.rng.integers(0, 3)):
                boxes.append(self._within(box + self.rng.normal(0, 3, 4)))
                labels.append(1 + label)
        boxes += [self._box()]
        labels += [1]
        return {
            "boxes": torch.tensor(np.array(boxes), dtype=torch.float32),
            "labels": torch.tensor(labels),
            "scores": torch.tensor(self.rng.integers(1, 9, len(boxes)) / 10, dtype=torch.float32),
            "masks": torch.tensor(np.array([self._mask(box) for box in boxes]))[:, None].float(),
        }

    def _box(self) -> np.ndarray:
        start = self.rng.uniform(0, 0.7, 2) * [WIDTH, HEIGHT]
        return self._within(np.concatenate([start, start + self.rng.uniform(12, 110, 2)]))

    @staticmethod
    def _within(box: np.ndarray) -> np.ndarray:
        inside = np.clip(box, 0, [WIDTH, HEIGHT] * 2)
        return np.concatenate([inside[:2], np.maximum(inside[2:], inside[:2] + 1)])

    @staticmethod
    def _mask(box: np.ndarray) -> np.ndarray:
        y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
        return (x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])

    def _annotate(self, image: int, category: int, box: np.ndarray) -> None:
        """Adds an object as polygons or run lengths, with its area or without, perhaps a crowd."""
        left, top, right, bottom = box.tolist()
        diamond = [left, (top + bottom) / 2, (left + right) / 2, top, right, bottom]
        text = coco_mask.encode(np.asfortranarray(self._mask(box), np.uint8))
        runs = {"size": [HEIGHT, WIDTH], "counts": text["counts"].decode()}
        shapes = [[diamond], [diamond, [left, top, right, top, right, bottom]], runs]
        shape = shapes[self.rng.integers(3)]
        filled = (
            shape if shape is runs else coco_mask.merge(coco_mask.frPyObjects(shape, HEIGHT, WIDTH))
        )
        number = next(self.numbers)
        self.areas[number] = float(coco_mask.area(filled))
        crowd = int(self.rng.random() < 0.15)
        annotation = {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": [left, top, right - left, bottom - top],
            "segmentation": shape,
            **({"iscrowd": crowd} if crowd or self.rng.random() < 0.7 else {}),
            **({"area": self.areas[number]} if self.rng.random() < 0.6 else {}),
        }
        self.file["annotations"].append(annotation)

    def peer(self) -> dict[str, Any]:
        """Returns the file with what it leaves to its reader."""
        annotations = [
            {"iscrowd": 0, **annotation, "area": self.areas[annotation["id"]]}
            for annotation in self.file["annotations"]
        ]
        return {**self.file, "annotations": annotations}


def measure(path: Path, found: dict[int, Any], order: list[int]) -> tuple[Any, list[Any]]:
    data = read_coco(path, path.parent)
    metrics = DetectionMetrics(data, masks=True)
    for number in order:
        metrics.update([{"image_id": torch.tensor(number)}], [found[number]])
    return metrics.compute(), [one for number in order for one in metrics.results[number]]


def ask_pycocotools(truth: dict[str, Any], results: list[Any], kind: str) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        left_out = "bbox" if kind == "segm" else "segmentation"
        theirs = [{k: v for k, v in one.items() if k != left_out} for one in results]
        evaluation = COCOeval(coco, coco.loadRes(theirs), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [value if value >= 0 else np.nan for value in evaluation.stats[: len(NAMES)]]


@given(st.integers(0, 2**32 - 1))
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_from_the_file_on_as_pycocotools_measures(tmp_path, seed):
    """With ids of any sign and size, objects twice, crowds, equal scores, areas left out.

    Neither the order of the images nor that in the file changes anything.
    """
    drawn = Draw(np.random.default_rng(seed))
    if not drawn.file["annotations"]:
        return
    path, order = tmp_path / "a.json", list(drawn.found)
    path.write_text(json.dumps(drawn.file))
    values, results = measure(path, drawn.found, order)
    for name, kind in (("box", "bbox"), ("mask", "segm")):
        expected = ask_pycocotools(drawn.peer(), results, kind)
        found = [values[f"{name}_{key}"] for key in NAMES]
        # The same arithmetic in another order: 1e-9 is far above its rounding.
        assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)
    reordered = {**drawn.file, "images": drawn.file["images"][::-1]}
    path.write_text(json.dumps(reordered))
    again, _ = measure(path, drawn.found, order[::-1])
    assert again == pytest.approx(values, abs=0, nan_ok=True)
