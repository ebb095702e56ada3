"""Times networks of two checkouts of this repository in turn: what a change costs or saves.

    python benchmarks/against.py BEFORE [AFTER]

BEFORE and AFTER are folders of checkouts; AFTER is this one by default. For each model and mode,
two processes, one a checkout, compute one step in turn. The result is the median over the pairs of
AFTER's time over BEFORE's: what slows the machine for longer than a step slows both. Compiling a
model takes minutes at first; `--modes eager train onnx` leaves it out.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median, quantiles

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
    folder = tempfile.mkdtemp()
    path, weights = folder + "/model.onnx", folder + "/weights.pth"
    torch.save(model.state_dict(), weights)
    command = ["export", name, "--weights", weights, "--out", path, "--size", str(size)]
    assert spanets_cli.main(command) == 0
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images.numpy()}

def step():
    if mode == "onnx":
        return session.run(None, feed)
    with torch.inference_mode(mode != "train"):
        out = model(images)
    if mode == "train":
        model.zero_grad()
        out.square().mean().backward()

for _ in range(3):
    step()
print("ready", flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    step()
    print(time.perf_counter() - start, flush=True)
"""


def start(checkout: Path, *words: object) -> subprocess.Popen[str]:
    """Starts a process that computes a step for each line it reads; returns it when it is ready."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.absolute() / "src")}
    command = [sys.executable, "-c", STEP, *map(str, words)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, env=environment, text=True, **pipes)
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "ready\n":  # the export prints lines, too
        assert line, f"{checkout} ended with {process.wait()}"
    return process


def step(process: subprocess.Popen[str]) -> float:
    """Returns the seconds of one step."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path, nargs="?", default=Path(__file__).parents[1])
    parser.add_argument("--models", nargs="+", default=["spanet_small", "spanetv2_s18_pure"])
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=25)
    given = parser.parse_args()
    rows = []
    for name, mode in ((name, mode) for name in given.models for mode in given.modes):
        words = name, mode, given.batch, given.size
        before, after = start(given.before, *words), start(given.after, *words)
        times = [(step(before), step(after)) for _ in range(given.rounds)]
        before.kill(), after.kill()
        ratios = [new / old for old, new in times]
        low, ratio, high = quantiles(ratios, n=4)
        olds, news = zip(*times, strict=True)
        row = {"model": name, "mode": mode, "before_s": median(olds), "after_s": median(news)}
        rows.append({**row, "ratio": ratio, "quartiles": [low, high]})
        print(f"{name} {mode}: ratio {ratio:.3f} ({low:.3f} to {high:.3f})", flush=True)
    images = f"{given.batch} of {given.size}x{given.size}"
    write("against", {"images": images, "rounds": given.rounds, "rows": rows})


if __name__ == "__main__":
    main()
