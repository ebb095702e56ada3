"""Times networks of two checkouts of this repository in turn: what a change costs or saves.

    python benchmarks/against.py BEFORE [AFTER]

BEFORE and AFTER are folders of checkouts; AFTER is this one by default. Each timing runs in a new
process, the two checkouts in turn. The result is the ratio of the medians, AFTER over BEFORE.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from common import write

CASES = [
    ("spanet_small", "eager"),
    ("spanetv2_s18_pure", "eager"),
    ("spanet_small", "train"),
]
ROUNDS = 3

STEP = """
import sys, time, timm, torch, spanets
name, mode = sys.argv[1:]
torch.manual_seed(0)
model, images = timm.create_model(name).train(mode == "train"), torch.randn(4, 3, 224, 224)
def step():
    with torch.inference_mode(mode != "train"):
        out = model(images)
    if mode == "train":
        model.zero_grad()
        out.square().mean().backward()
times = []
for i in range(11):
    start = time.perf_counter()
    step()
    times += [time.perf_counter() - start] if i > 2 else []
print(sorted(times)[len(times) // 2])
"""


def measure(checkout: Path, name: str, mode: str) -> float:
    """Returns the seconds of one step on four images of 224x224, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    command = [sys.executable, "-c", STEP, name, mode]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path, nargs="?", default=Path(__file__).parents[1])
    given = parser.parse_args()
    rows = []
    for name, mode in CASES:
        pairs = [
            [measure(place, name, mode) for place in (given.before, given.after)]
            for _ in range(ROUNDS)
        ]
        before, after = (median(pair[i] for pair in pairs) for i in (0, 1))
        row = {"model": name, "mode": mode, "before_s": before, "after_s": after}
        rows.append({**row, "ratio": after / before})
        print(f"{name} {mode}: {before:.3f} s, {after:.3f} s, ratio {after / before:.3f}")
    write("against", {"images": "4 of 224x224", "rounds": ROUNDS, "rows": rows})


if __name__ == "__main__":
    main()
