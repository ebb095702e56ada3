"""Measures memory and time of detectors and segmenters on one large image, on the CPU.

    python benchmarks/large_images.py [--threads 2] [--rounds 3]

Each network runs in its own process, and its peak resident memory is reported, including weights
and libraries. The weights are random. The detectors are modified to find 100 objects with scores
above the threshold, so that they do all of their work.
"""

import argparse
import json
import resource
import subprocess
import sys
from time import perf_counter
from typing import Any

import torch
from common import write
from torch import nn

from spanets.backbones.dense import DenseBackbone
from spanets.detection import make_detector
from spanets.segmentation import make_segmenter, slide

NAME = "large_images"
BACKBONE = "spanet_small"
LIMIT = 6e9  # bytes
DETECTORS = ("retinanet", "mask_rcnn")
SIZES = {"retinanet": (800, 1333), "mask_rcnn": (800, 1333)}
SIZES |= dict.fromkeys(("semantic_fpn", "upernet", "upernet, windows"), (512, 2048))
"""Height and width."""


def main() -> None:
    """Measures and writes results/large_images.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=SIZES, help="measure only this and print it")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.one is not None:
        print(json.dumps(measure(arguments.one, arguments.rounds)))
        return
    words = ["--threads", str(arguments.threads), "--rounds", str(arguments.rounds)]
    rows = {}
    for name in SIZES:
        command = [sys.executable, __file__, *words, "--one", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows[name] = json.loads(done.stdout)
    write(NAME, {"backbone": BACKBONE, "limit_bytes": int(LIMIT), "networks": rows})


@torch.inference_mode()
def measure(name: str, rounds: int) -> dict[str, Any]:
    """Returns the peak memory of this process, and the seconds for an image."""
    height, width = SIZES[name]
    image = torch.randn(3, height, width, generator=torch.Generator().manual_seed(0))
    task = make_detection(name) if name in DETECTORS else make_segmentation(name)
    found = task(image)
    seconds = []
    for _ in range(rounds):
        started = perf_counter()
        task(image)
        seconds.append(perf_counter() - started)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB on Linux
    row = {"height": height, "width": width, "peak_bytes": peak, "under_limit": peak < LIMIT}
    return row | {"seconds": [round(value, 3) for value in sorted(seconds)], "found": found}


def make_detection(kind: str) -> Any:
    """Returns a task that detects objects in an image and returns their number."""
    torch.manual_seed(0)
    detector = make_detector(kind, BACKBONE, 80).eval()
    find_much(detector)

    def detect(image: torch.Tensor) -> int:
        return len(detector([image])[0]["boxes"])

    return detect


def find_much(detector: nn.Module) -> None:
    """Gives an untrained detector scores above its threshold."""
    for name, bias in detector.named_parameters():
        if name.endswith("classification_head.cls_logits.bias"):
            bias.zero_()  # a score of 0.5 for every class
        elif name.endswith("cls_score.bias"):
            bias[1] += 3  # one class gets more candidates for NMS than with trained weights


def make_segmentation(name: str) -> Any:
    """Returns a task that labels the pixels of an image and returns their number."""
    kind, _, windows = name.partition(", ")
    segmenter = make_segmenter(kind, DenseBackbone(BACKBONE), 150).eval()

    def segment(image: torch.Tensor) -> int:
        images = image[None]
        logits = slide(segmenter, images, 512, 341) if windows else segmenter(images)
        return logits.argmax(1).numel()

    return segment


if __name__ == "__main__":
    main()
