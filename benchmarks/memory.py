"""Measures a detector's memory on a photograph of 12 megapixels: predict, evaluate, load.

    python benchmarks/memory.py [--threads 1]

Each row is the peak resident memory of its own process, including libraries and weights. The
detector is Mask R-CNN with SPANet-small at the paper's sizes, with random weights. It is modified
to find 100 objects with scores above its own threshold and below that of `predict`. The photograph
has 1,000 objects, as polygons and as run lengths. It is loaded with the 1x and the 3x recipe.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from common import write
from large_images import find_much
from PIL import Image

from spanets.checkpoint import save_torch
from spanets.detection.data import make_loaders
from spanets.detection.evaluation import evaluate
from spanets.detection.predict import ObjectPredictor
from spanets.detection.record import RESULTS_FILE
from spanets.detection.task import DetectionTask
from spanets.recipe import load_recipe

NAME = "memory"
RECIPES = {"1x": "coco/mask_rcnn_spanet_small_1x", "3x": "coco/mask_rcnn_spanetv2_s18_pure_3x"}
CLASSES = 80
WIDTH, HEIGHT, OBJECTS = 4000, 3000, 1000
GIB = 2**30
LIMITS = {"predict": 2 * GIB, "evaluate": 2 * GIB}
LIMITS |= {f"load {form}, {recipe}": GIB for form in ("polygons", "runs") for recipe in RECIPES}


def main() -> None:
    """Measures and writes results/memory.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", help="with --data: 'make' the data, or measure only this row")
    parser.add_argument("--data", type=Path, help="folder for the data")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.one is not None:
        step = make_data if arguments.one == "make" else partial(measure, arguments.one)
        print(json.dumps(step(arguments.data)))
        return
    with tempfile.TemporaryDirectory() as folder:
        start("make", folder, arguments.threads)
        rows = {name: start(name, folder, arguments.threads) for name in LIMITS}
    photograph = {"width": WIDTH, "height": HEIGHT, "objects": OBJECTS}
    write(NAME, {"photograph": photograph, "recipes": RECIPES, "rows": rows})


def start(name: str, folder: str, threads: int) -> dict[str, Any]:
    """Makes the data or measures a row in another process; returns its result."""
    command = [sys.executable, __file__, "--threads", str(threads), "--one", name, "--data", folder]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    print(name, done.stdout.strip(), file=sys.stderr)
    return json.loads(done.stdout)


def measure(name: str, root: Path) -> dict[str, Any]:
    """Returns the peak memory of this process, and the part that its imports took."""
    kind, _, rest = name.partition(" ")
    tasks: dict[str, Callable[[], int]] = {
        "predict": lambda: predict(root),
        "evaluate": lambda: evaluate(root / "a.ckpt", str(root), workers=0)["images"],
        "load": lambda: load(root, *rest.split(", ")),
    }
    imports = peak_bytes()
    began = perf_counter()
    objects = tasks[kind]()
    seconds = round(perf_counter() - began, 1)
    peak, limit = peak_bytes(), LIMITS[name]
    row = {"peak_bytes": peak, "imports_bytes": imports, "limit_bytes": limit}
    row["under_limit"] = peak < limit
    return {**row, "seconds": seconds, "images" if kind == "evaluate" else "objects": objects}


def peak_bytes() -> int:
    """Returns the peak memory of this process, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB on Linux


def predict(root: Path) -> int:
    """Predicts like the command line, and returns the number of objects in the output file."""
    predictor = ObjectPredictor(root / "a.ckpt", device="cpu")
    (found,) = predictor([root / "images/photograph.jpg"], out=root / "out", min_score=0.5)
    assert found.error is None
    assert not found.objects
    return len(json.loads((root / "out" / RESULTS_FILE).read_text()))


def load(root: Path, form: str, recipe: str) -> int:
    """Loads the photograph for training: unchanged, flipped, cropped and resized."""
    keys = [*words(root), "--data.train_annotations", f"{form}.json"]
    data = load_recipe(RECIPES[recipe], keys).data
    loaders = make_loaders(data, masks=True, seed=0, batch_size=1)
    return max(len(loaders.train.dataset[epoch, 0][1]["labels"]) for epoch in range(4))


def make_data(root: Path) -> None:
    """Writes a photograph, its objects in both forms, and a checkpoint."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8))
    (root / "images").mkdir()
    coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(root / "images/photograph.jpg")
    polygons = [star(rng) for _ in range(OBJECTS)]
    for form in ("polygons", "runs"):
        shapes = [[flat] if form == "polygons" else to_runs(flat) for flat in polygons]
        (root / f"{form}.json").write_text(json.dumps(describe(polygons, shapes)))
    plan = DetectionTask(load_recipe(RECIPES["1x"], words(root)))
    info = plan.make_info([f"class {i}" for i in range(CLASSES)])
    torch.manual_seed(0)
    model = plan.build_model(info)
    with torch.no_grad():
        find_much(model)
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    save_torch({"spanets": info.to_dict(), "state_dict": weights}, root / "a.ckpt")


def words(root: Path) -> list[str]:
    """Returns the recipe keys for the data of `make_data`."""
    keys = {"root": str(root), "workers": "0"}
    for part in ("train", "val"):
        keys |= {f"{part}_images": "images", f"{part}_annotations": "polygons.json"}
    return [word for key, value in keys.items() for word in (f"--data.{key}", value)]


def star(rng: np.random.Generator) -> list[float]:
    """Returns an outline of 64 points, from 60 to 1200 pixels across."""
    radius = rng.uniform(30, 600)
    x, y = (rng.uniform(radius, side - radius) for side in (WIDTH, HEIGHT))
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    radii = radius * rng.uniform(0.7, 1, 64)
    points = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], 1)
    return points.round(2).ravel().tolist()


def to_runs(polygon: list[float]) -> dict[str, Any]:
    """Returns a polygon as compressed run lengths."""
    from faster_coco_eval.core import mask

    (runs,) = mask.frPyObjects([polygon], HEIGHT, WIDTH)
    return {"size": runs["size"], "counts": runs["counts"].decode()}


def describe(polygons: list[list[float]], shapes: list[Any]) -> dict[str, Any]:
    """Returns the objects in COCO's format."""
    photograph = {"id": 1, "file_name": "photograph.jpg", "width": WIDTH, "height": HEIGHT}
    annotations = []
    for number, (polygon, shape) in enumerate(zip(polygons, shapes, strict=True), start=1):
        x, y = polygon[0::2], polygon[1::2]
        box = [min(x), min(y), max(x) - min(x), max(y) - min(y)]
        own = {"id": number, "image_id": 1, "category_id": 1 + number % CLASSES, "bbox": box}
        annotations.append({**own, "iscrowd": 0, "area": box[2] * box[3], "segmentation": shape})
    categories = [{"id": 1 + i, "name": f"class {i}"} for i in range(CLASSES)]
    return {"images": [photograph], "categories": categories, "annotations": annotations}


if __name__ == "__main__":
    main()
