"""Semantic FPN from scratch on generated shapes: SPANet-nano and a peer by the same recipe.

    python benchmarks/shapes_segmentation.py [--models spanet_nano resnet18] [--recorded]

Draws the images, trains on 240 of them and measures the last epoch's weights on the other 60: no
epoch is chosen on the images that are measured. A run that is on record in --runs is not run again.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from common import write

from spanets.data.shapes import write_shapes
from spanets.recipe import load_recipe
from spanets.tasks.engine import train


def run(model: str, shapes: Path, out: Path) -> None:
    """Trains one model, and notes the processor's time beside the results."""
    words = ["--model.name", model, "--data.root", str(shapes)]
    recipe = load_recipe("shapes_semantic_fpn", words)
    before = os.times()
    train(recipe, out, resume=(out / "recipe.yaml").exists())
    spent = sum(os.times()[:4]) - sum(before[:4])  # user and system, of loading processes too
    (out / "processor.json").write_text(json.dumps({"seconds": round(spent)}))


def read(out: Path) -> dict[str, Any]:
    """Returns what is on record of a run."""
    result = json.loads((out / "results.json").read_text())
    names = ("parameters", "epochs", "metrics", "iou")
    spent = json.loads((out / "processor.json").read_text())["seconds"]
    told = {name: result[name] for name in names}
    return {**told, "seconds": result["train_seconds"], "processor_seconds": spent}


def main() -> None:
    """Measures and writes results/shapes_segmentation.json after every run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["spanet_nano", "resnet18"])
    parser.add_argument("--recorded", action="store_true", help="only collect what is on record")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark-shapes-segmentation"))
    arguments = parser.parse_args()
    shapes = arguments.runs / "shapes"
    if not shapes.exists():
        write_shapes(shapes)
    table: dict[str, Any] = {}
    for model in arguments.models:
        out = arguments.runs / model
        done = (out / "processor.json").exists()
        if not done and arguments.recorded:
            continue
        if not done:
            run(model, shapes, out)
        table[model] = read(out)
        images = {"train": 240, "val": 60, "seed": 0}
        write("shapes_segmentation", {"images": images, "models": table})


if __name__ == "__main__":
    main()
