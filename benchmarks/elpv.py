"""Trains SPANet, SPANetV2 and two peers from scratch on ELPV, same recipe, several seeds.

    python benchmarks/elpv.py [--models spanet_nano resnet18 convnext_atto ...] [--seeds 0 1 2]

Trains on three quarters of the cells, and evaluates the weights of the last epoch on the rest, so
no epoch is selected on the test images. Finished runs in --runs are not repeated.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from common import write

import spanets  # noqa: F401 (registers the models)
from spanets.recipe import load_recipe
from spanets.training.engine import train


def run(model: str, seed: int, folder: Path) -> dict[str, Any]:
    """Trains one model with one seed, or reads the results of an earlier run."""
    out = folder / f"{model}-{seed}"
    done = out / "results.json"
    if done.exists():
        return json.loads(done.read_text())
    words = ["--model.name", model, "--seed", str(seed)]
    if model.startswith("spanetv2"):  # filters for the recipe's image size
        words += ["--model.args", "{img_size: 128}"]
    recipe = load_recipe("elpv", words)
    return train(recipe, out, resume=(out / "recipe.yaml").exists())


def main() -> None:
    """Measures and writes results/elpv.json after every run."""
    parser = argparse.ArgumentParser()
    models = ["spanet_nano", "spanetv2_nano_pure", "resnet18", "convnext_atto"]
    parser.add_argument("--models", nargs="+", default=models)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--recorded", action="store_true", help="only collect finished runs")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark-elpv"))
    arguments = parser.parse_args()
    table: dict[str, Any] = {}
    for seed in arguments.seeds:
        for model in arguments.models:
            done = (arguments.runs / f"{model}-{seed}" / "results.json").exists()
            if arguments.recorded and not done:
                continue
            result = run(model, seed, arguments.runs)
            row = table.setdefault(model, {"parameters": result["parameters"], "seeds": {}})
            row["seeds"][seed] = {
                name: round(result["metrics"][name], 4) for name in ("accuracy", "auroc", "f1")
            } | {"train_seconds": result["train_seconds"]}
            for name in ("accuracy", "auroc", "f1", "train_seconds"):
                values = [numbers[name] for numbers in row["seeds"].values()]
                row[f"mean_{name}"] = round(statistics.mean(values), 4)
            write("elpv", {"images": {"train": 1968, "test": 656}, "models": table})


if __name__ == "__main__":
    main()
