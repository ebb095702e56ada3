"""Trains and evaluates the models of the benchmarks on generated shapes and figures."""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import write

from spanets.detection.shapes import write_shapes
from spanets.recipe import load_recipe
from spanets.training.engine import train


def run(recipe: str, model: str, shapes: Path, out: Path) -> None:
    """Trains one model, and records the processor time beside the results."""
    words = ["--model.name", model, "--data.root", str(shapes)]
    before = os.times()
    train(load_recipe(recipe, words), out, resume=(out / "recipe.yaml").exists())
    spent = sum(os.times()[:4]) - sum(
        before[:4]
    )  # user and system time, including loader processes
    (out / "processor.json").write_text(json.dumps({"seconds": round(spent)}))


def read(out: Path, names: Sequence[str]) -> dict[str, Any]:
    """Returns the named results of a finished run, and its times."""
    result = json.loads((out / "results.json").read_text())
    spent = json.loads((out / "processor.json").read_text())["seconds"]
    told = {name: result[name] for name in ("parameters", "epochs", "metrics", *names)}
    return {**told, "seconds": result["train_seconds"], "processor_seconds": spent}


def main(
    name: str,
    recipe: str,
    names: Sequence[str] = (),
    draw: Callable[[Path], None] = write_shapes,
) -> None:
    """Measures and writes results/NAME.json after every run.

    Args:
        name: Name of the benchmark.
        recipe: Recipe of all models.
        names: Results to record besides the metrics.
        draw: Writes the data set into a new folder.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["spanet_nano", "resnet18"])
    parser.add_argument("--recorded", action="store_true", help="only collect finished runs")
    folder = Path(f"runs/benchmark-{name.replace('_', '-')}")
    parser.add_argument("--runs", type=Path, default=folder)
    arguments = parser.parse_args()
    shapes = arguments.runs / "shapes"
    if not shapes.exists():
        draw(shapes)
    table: dict[str, Any] = {}
    for model in arguments.models:
        out = arguments.runs / model
        done = (out / "processor.json").exists()
        if not done and arguments.recorded:
            continue
        if not done:
            run(recipe, model, shapes, out)
        table[model] = read(out, names)
        parts = ("train", "val")
        images = {part: len(list((shapes / "images" / part).iterdir())) for part in parts}
        write(name, {"images": images | {"seed": 0}, "models": table})
