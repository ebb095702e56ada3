"""Times whole commands on a few images, in multiples of `import timm`.

    python benchmarks/startup.py [--rounds 7]

Each command runs in a new process, with compiled bytecode. Times are processor seconds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import write
from PIL import Image

from spanets_runtime.progress import progress

# The aims, in multiples of `import timm`; in seconds for those without torch.
AIMS = {
    "spanets models": 0.05,
    "spanets predict CHECKPOINT": 1.05,
    "spanets eval CHECKPOINT": 1.2,
}
AIMS_S = {"spanets predict FILE.onnx": 0.4, "spanets --help": 0.1}


def draw_images(folder: Path) -> None:
    """Writes twelve images of two classes."""
    generator = np.random.default_rng(0)
    for name in ("dark", "light"):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            pixels = generator.integers(0, 128, (64, 64, 3)) + 127 * (name == "light")
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")


def run(words: list[str], folder: Path) -> float:
    """Runs a command; returns its processor seconds.

    Raises:
        CalledProcessError: it failed.
    """
    before = os.times()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(words, check=True, capture_output=True, cwd=folder, env=environment)
    after = os.times()
    return after[2] + after[3] - before[2] - before[3]


def main() -> None:
    """Measures and writes results/startup.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    python, spanets = [sys.executable, "-c"], [sys.executable, "-m", "spanets_cli"]
    commands = {
        "import timm": [*python, "import timm"],
        "import timm, spanets": [*python, "import timm, spanets"],
        "spanets --help": [*spanets, "--help"],
        "spanets models": [*spanets, "models"],
        "spanets predict CHECKPOINT": [*spanets, "predict", "run/last.ckpt", "photos/dark/0.png"],
        "spanets predict FILE.onnx": [*spanets, "predict", "run.onnx", "photos/dark/0.png"],
        "spanets eval CHECKPOINT": [*spanets, "eval", "run/last.ckpt", "--data", "photos"],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_images(folder / "photos")
        options = "--data.root photos --trainer.epochs 1 --data.workers 0 --out run"
        run([*spanets, "train", "photos", *options.split()], folder)
        run([*spanets, "export", "run/last.ckpt", "--out", "run.onnx"], folder)
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in progress(range(arguments.rounds), "rounds"):
            for name, words in commands.items():
                times[name].append(run(words, folder))
    rows = {}
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times["import timm"], strict=True)]
        rows[name] = {
            "processor_s": round(statistics.median(seconds), 2),
            "relative_to_import_timm": round(statistics.median(ratios), 2),
            "aim": AIMS.get(name),
            "aim_s": AIMS_S.get(name),
        }
    write("startup", {"rounds": arguments.rounds, "commands": rows})


if __name__ == "__main__":
    main()
