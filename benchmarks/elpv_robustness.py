"""Measures robustness on ELPV: the test quarter under 15 corruptions at 5 severities.

    python benchmarks/elpv_robustness.py RUN... [--images 656]

RUN is a folder of `benchmarks/elpv.py`, named MODEL-SEED. Images are corrupted after resizing, in
the same way for every checkpoint. Earlier results of other runs are kept.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, write
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from spanets.classification.metrics import metrics_for, update_metrics
from spanets.data.corruptions import KINDS, SEVERITIES, corrupt
from spanets.data.samples import Samples
from spanets.data.sources.elpv import elpv_splits
from spanets.sources import open_checkpoint
from spanets_runtime.images import load_image
from spanets_runtime.preprocessing import Preprocessing

NAME = "elpv_robustness"
FIGURE = RESULTS / f"{NAME}.png"


def load(runs: list[Path]) -> tuple[dict[str, nn.Module], Preprocessing]:
    """Loads the last checkpoints, by name of their run, and their common preprocessing."""
    models, preprocessings = {}, set()
    for run in runs:
        source = open_checkpoint(run / "last.ckpt")
        models[run.name] = source.network
        preprocessings.add(source.preprocess)
    if len(preprocessings) != 1:
        raise SystemExit("the runs differ in their preprocessing, so they see different images")
    return models, preprocessings.pop()


@torch.inference_mode()
def measure(model: nn.Module, batches: list[torch.Tensor], labels: torch.Tensor) -> dict[str, Any]:
    """Returns accuracy and AUROC on standardized images."""
    logits = torch.cat([model(batch) for batch in batches])
    metrics = metrics_for(2)
    update_metrics(metrics, logits, labels)
    values = metrics.compute()
    return {name: round(values[name].item(), 4) for name in ("accuracy", "auroc")}


def measure_all(
    models: dict[str, nn.Module], preprocess: Preprocessing, samples: Samples
) -> dict[str, Any]:
    """Returns for each run the metrics on clean images, and by corruption a list by severity."""
    clean = [preprocess.crop(load_image(path)) for path in samples.images]
    labels = torch.tensor(samples.labels)

    def rows(images: list[NDArray[np.uint8]]) -> dict[str, Any]:
        inputs = torch.from_numpy(np.stack([preprocess.standardize(x) for x in images]))
        batches = list(inputs.to(memory_format=torch.channels_last).split(64))
        return {run: measure(model, batches, labels) for run, model in models.items()}

    found: dict[str, Any] = {run: {"clean": row, "kinds": {}} for run, row in rows(clean).items()}
    with tqdm(total=len(KINDS) * len(SEVERITIES), disable=None) as bar:
        for kind in KINDS:
            for severity in SEVERITIES:
                images = [corrupt(x, kind, severity, i) for i, x in enumerate(clean)]
                for run, row in rows(images).items():
                    found[run]["kinds"].setdefault(kind, []).append(row)
                bar.update()
    return found


def summarise(runs: dict[str, Any]) -> dict[str, Any]:
    """Returns for each model means over seeds: clean and corrupted error, difference, AUROC."""
    seeds: dict[str, list[Any]] = {}
    for run, row in runs.items():
        seeds.setdefault(run.rpartition("-")[0], []).append(row)
    return {model: summarise_model(rows) for model, rows in seeds.items()}


def summarise_model(rows: list[Any]) -> dict[str, Any]:
    """Returns the means over a model's seeds."""

    def mean_of(kind: str, metric: str) -> float:
        return statistics.mean(at[metric] for row in rows for at in row["kinds"][kind])

    clean = {m: statistics.mean(row["clean"][m] for row in rows) for m in ("accuracy", "auroc")}
    kinds = {
        kind: {"error": 1 - mean_of(kind, "accuracy"), "auroc": mean_of(kind, "auroc")}
        for kind in KINDS
    }
    error = statistics.mean(row["error"] for row in kinds.values())
    summary = {
        "seeds": len(rows),
        "clean_error": 1 - clean["accuracy"],
        "corruption_error": error,
        "relative_corruption_error": error - (1 - clean["accuracy"]),
        "clean_auroc": clean["auroc"],
        "corruption_auroc": statistics.mean(row["auroc"] for row in kinds.values()),
        "by_kind": kinds,
    }
    return json.loads(json.dumps(summary), parse_float=lambda text: round(float(text), 4))


def draw(summary: dict[str, Any]) -> None:
    """Plots AUROC by corruption, with a row of markers for each model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.add_subplot()
    for number, (model, row) in enumerate(summary.items()):
        values = [row["clean_auroc"], *(row["by_kind"][kind]["auroc"] for kind in KINDS)]
        shift = 0.12 * (number - (len(summary) - 1) / 2)
        axes.plot(np.arange(len(values)) + shift, values, "o", markersize=5, label=model)
    axes.axhline(0.5, color="gray", linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(KINDS) + 1), ["clean", *KINDS], rotation=45, ha="right")
    axes.set_ylabel("AUROC, mean of severities and seeds")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False, ncols=len(summary), fontsize=8)
    figure.savefig(FIGURE, dpi=110)


def main() -> None:
    """Measures, and writes results/elpv_robustness.json and .png."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument(
        "--images", type=int, default=656, help="number of images, in a fixed random order"
    )
    arguments = parser.parse_args()
    samples = elpv_splits()["val"]
    order = np.random.default_rng(0).permutation(len(samples))[: arguments.images]
    samples = samples.subset(order.tolist())
    record = RESULTS / f"{NAME}.json"
    before = json.loads(record.read_text()) if record.exists() else {"images": len(samples)}
    if before["images"] != len(samples):
        count = before["images"]
        raise SystemExit(f"{record} has {count} images: remove it, or use --images {count}")
    runs = before.get("runs", {})
    if arguments.runs:
        models, preprocess = load(arguments.runs)
        runs |= measure_all(models, preprocess, samples)
    summary = summarise(runs)
    draw(summary)
    write(NAME, {"images": len(samples), "models": summary, "runs": runs})


if __name__ == "__main__":
    main()
