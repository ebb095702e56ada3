"""What the benchmarks on generated shapes have in common: each model trained and read once."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import write

from spanets.detection.shapes import write_shapes
from spanets.recipe import load_recipe
from spanets.training.engine import train


def run(recipe: str, model: str, shapes: Path, out: Path) -> None:
    """Trains one model, and notes the processor's time beside the results."""
    words = ["--model.name", model, "--data.root", str(shapes)]
    before = os.times()
    train(load_recipe(recipe, words), out, resume=(out / "recipe.yaml").exists())
    spent = sum(os.times()[:4]) - sum(before[:4])  # user and system, of loading processes too
    (out / "processor.json").write_text(json.dumps({"seconds": round(spent)}))


def read(out: Path, names: Sequence[str]) -> dict[str, Any]:
    """Returns what is on record of a run: these of its results, and its times."""
    result = json.loads((out / "results.json").read_text())
    spent = json.loads((out / "processor.json").read_text())["seconds"]
    told = {name: result[name] for name in ("parameters", "epochs", "metrics", *names)}
    return {**told, "seconds": result["train_seconds"], "processor_seconds": spent}


def main(name: str, recipe: str, names: Sequence[str] = ()) -> None:
    """Measures and writes results/NAME.json after every run.

    Args:
        name: Of the benchmark.
        recipe: That every model is trained by.
        names: Of results that are recorded beside the metrics.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["spanet_nano", "resnet18"])
    parser.add_argument("--recorded", action="store_true", help="only collect what is on record")
    folder = Path(f"runs/benchmark-{name.replace('_', '-')}")
    parser.add_argument("--runs", type=Path, default=folder)
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
            run(recipe, model, shapes, out)
        table[model] = read(out, names)
        images = {"train": 240, "val": 60, "seed": 0}
        write(name, {"images": images, "models": table})
