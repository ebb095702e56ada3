"""Times a file for any size, at several sizes, beside files for these sizes, in ONNX Runtime.

    python benchmarks/onnx_sizes.py [--sizes 160 224 256] [--threads 1] [--rounds 15]

SPANetV2 learns its gains at the maps of its own size, 224²; at others they are resized.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import write

from spanets.bench.timed_models import build_form
from spanets.bench.timing import SESSIONS_SETTLE, Step, interleave, summarise
from spanets.deploy.export import export_model
from spanets_runtime.onnx import open_session
from spanets_runtime.progress import progress


def main() -> None:
    """Measures and writes results/onnx_sizes.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--models", nargs="+", default=["spanet_nano", "spanetv2_nano_pure", "spanetv2_s18_pure"]
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[160, 224, 256])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    found = {}
    for name in progress(arguments.models, "models"):
        torch.manual_seed(0)
        model = build_form(name)
        with tempfile.TemporaryDirectory() as folder:
            free = Path(folder) / "free.onnx"
            export_model(model, free, dynamic=True)
            for size in arguments.sizes:
                fixed = Path(folder) / f"{size}.onnx"
                export_model(model, fixed, size, dynamic=False)
                x = np.random.default_rng(0).standard_normal((1, 3, size, size), np.float32)
                steps: dict[str, Step] = {
                    kind: partial(open_session(path, arguments.threads).run, None, {"images": x})
                    for kind, path in (("fixed", fixed), ("free", free))
                }
                seconds = interleave(steps, arguments.rounds, warmup=2, settle=SESSIONS_SETTLE)
                found[f"{name} {size}"] = summarise(seconds, "fixed")
    write("onnx_sizes", {"threads": arguments.threads, "models": found})


if __name__ == "__main__":
    main()
