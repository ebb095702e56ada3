"""Counts parameters and operations of every model and writes them to the table of models.

    make model-table

Counting builds each model, which takes seconds. `spanets models` reads the file instead.
"""

import json
from typing import Any

import timm
import torch

import spanets
from spanets.bench.costs import count_macs, count_parameters
from spanets.bench.paper_accuracy import IMAGENET_TOP1
from spanets.weights import release_of
from spanets_runtime.files import write_atomically
from spanets_runtime.model_table import TABLE


def count_row(name: str) -> dict[str, Any]:
    """Builds a model and returns its row of the table."""
    with torch.device("meta"):
        model = timm.create_model(name)
    release = release_of(name)
    return {
        "model": name,
        "parameters": count_parameters(model),
        "macs": count_macs(model),
        "top1_paper": IMAGENET_TOP1.get(name),
        "weights": None if release is None else release.url,
    }


def write_table() -> None:
    """Writes the table, one row a line."""
    lines = ",\n".join(json.dumps(count_row(name)) for name in spanets.list_models())
    write_atomically(TABLE, lambda file: file.write(f"[\n{lines}\n]\n".encode()))


if __name__ == "__main__":
    write_table()
