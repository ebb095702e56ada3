"""Measures static int8 quantisation of ELPV checkpoints: accuracy and time of their ONNX files.

    python benchmarks/int8.py CHECKPOINT... [--threads 2] [--images 128]

Ranges come from training images, accuracy from the test quarter. The times are those of
SPANet-small and SPANetV2-s18-pure at 224² with random weights, which do not change the time.
"""

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import write

from spanets.bench.timed_models import build_form
from spanets.bench.timing import SESSIONS_SETTLE, interleave, summarise
from spanets.data.samples import Samples
from spanets.data.sources.elpv import elpv_splits
from spanets.deploy.export import export_model, load_source
from spanets_runtime.images import load_image
from spanets_runtime.onnx import OnnxPredictor, open_session
from spanets_runtime.preprocessing import Preprocessing


def answers(path: Path, samples: Samples) -> list[str]:
    """Returns the most likely class of every image."""
    predictor = OnnxPredictor(path)
    return [prediction.labels[0][0] for prediction in predictor(samples.images, top=1)]


def measure_accuracy(checkpoint: str, count: int, folder: Path) -> dict[str, Any]:
    """Exports a checkpoint in float32 and int8, and returns both accuracies and sizes."""
    splits = elpv_splits()
    test = splits["val"]
    model, metadata, _ = load_source(checkpoint)
    size = metadata["preprocessing"]["input_size"][-1]
    preprocess = Preprocessing.parse(metadata["preprocessing"], checkpoint)
    chosen = np.random.default_rng(0).permutation(len(splits["train"].images))[:count]
    images = [preprocess(load_image(splits["train"].images[i])) for i in chosen]
    result: dict[str, Any] = {
        "model": metadata["model"],
        "calibration_images": len(images),
        "test_images": len(test.images),
    }
    truth = [metadata["classes"][label] for label in test.labels]
    found = {}
    for dtype, calibration in (("float32", None), ("int8", images)):
        path = folder / f"{dtype}.onnx"
        written = export_model(model, path, size, dtype, metadata=metadata, calibration=calibration)
        found[dtype] = answers(path, test)
        result[dtype] = {
            "accuracy": round(_share(found[dtype], truth), 4),
            "bytes": written.bytes,
            "agreement_on_calibration_images": written.agreement,
        }
    lost = _share(found["float32"], truth) - _share(found["int8"], truth)
    result["points_lost"] = round(100 * lost, 2)
    result["test_images_of_another_class"] = len(truth) - _agreeing(found["int8"], found["float32"])
    return result


def _agreeing(ours: Sequence[str], theirs: Sequence[str]) -> int:
    return sum(a == b for a, b in zip(ours, theirs, strict=True))


def _share(ours: Sequence[str], theirs: Sequence[str]) -> float:
    return _agreeing(ours, theirs) / len(ours)


def measure_time(name: str, threads: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Returns the time of one image of 224² in float32 and int8."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(3, 224, 224, generator=generator).numpy() for _ in range(4)]
    tasks = {}
    for dtype, calibration in (("float32", None), ("int8", images)):
        path = folder / f"{name}_{dtype}.onnx"
        model = build_form(name)
        export_model(model, path, dtype=dtype, dynamic=False, calibration=calibration)
        session = open_session(path, threads)
        tasks[dtype] = partial(session.run, None, {"images": images[0][None]})
    return summarise(interleave(tasks, rounds, warmup=3, settle=SESSIONS_SETTLE), "float32")


def main() -> None:
    """Measures and writes results/int8.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=128)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        elpv = {
            checkpoint: measure_accuracy(checkpoint, arguments.images, folder)
            for checkpoint in arguments.checkpoints
        }
        time = {
            model: measure_time(model, arguments.threads, arguments.rounds, folder)
            for model in ("spanet_small", "spanetv2_s18_pure")
        }
    write("int8", {"elpv": elpv, "time_224": time})


if __name__ == "__main__":
    main()
