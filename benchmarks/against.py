"""Times networks of two checkouts of this repository in turn: what a change costs or saves.

    python benchmarks/against.py BEFORE [AFTER]

BEFORE and AFTER are folders of checkouts; AFTER is this one by default. Each timing runs in a new
process, the two checkouts in turn. The result is the ratio of the medians, AFTER over BEFORE.
Compiling a model takes minutes at first; `--modes eager train onnx` leaves it out.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from common import write

MODES = ("eager", "train", "compile", "onnx")

STEP = """
import sys, tempfile, time, timm, torch, spanets
name, mode, batch, size = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
torch.manual_seed(0)
images = torch.randn(batch, 3, size, size)
model = timm.create_model(name).train(mode == "train")
if mode == "compile":
    model = torch.compile(model, dynamic=False)
elif mode == "onnx":
    import onnxruntime, spanets_cli
    path = tempfile.mkdtemp() + "/model.onnx"
    assert spanets_cli.main(["export", name, "--out", path, "--size", str(size)]) == 0
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images.numpy()}

def step():
    if mode == "onnx":
        return session.run(None, feed)
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


def measure(checkout: Path, *words: object) -> float:
    """Returns the seconds of one step, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.absolute() / "src")}
    command = [sys.executable, "-c", STEP, *map(str, words)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path, nargs="?", default=Path(__file__).parents[1])
    parser.add_argument("--models", nargs="+", default=["spanet_small", "spanetv2_s18_pure"])
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    rows = []
    for name, mode in ((name, mode) for name in given.models for mode in given.modes):
        seconds: dict[str, list[float]] = {"before": [], "after": []}
        for _ in range(given.rounds):
            for side, times in seconds.items():
                times.append(measure(getattr(given, side), name, mode, given.batch, given.size))
        before, after = map(median, seconds.values())
        row = {"model": name, "mode": mode, "before_s": before, "after_s": after}
        rows.append({**row, "ratio": after / before})
        print(f"{name} {mode}: {before:.3f} s, {after:.3f} s, ratio {after / before:.3f}")
    images = f"{given.batch} of {given.size}x{given.size}"
    write("against", {"images": images, "rounds": given.rounds, "rows": rows})


if __name__ == "__main__":
    main()
