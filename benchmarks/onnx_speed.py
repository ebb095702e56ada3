"""Times an image of 224² in ONNX Runtime on the CPU: SPANet, SPANetV2, FFT forms, ConvNeXt.

    python benchmarks/onnx_speed.py [--threads 2] [--rounds 15]

Needs onnx, onnxscript and onnxruntime. Models are exported like by `spanets export`, which
compares them with eager outputs. Forms:
  fft             `spectral_method="fft"`: two real FFTs over all channels
  released        like the released code: a transform, a filter and the inverse for each gate or
                  head
  free            of our own form, exported for any size (the others: `--static`)
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from common import write
from forms import head_by_head, released_form

from spanets.bench.timed_models import build_form
from spanets.bench.timing import SESSIONS_SETTLE, interleave, summarise
from spanets.deploy.export import export_model
from spanets_runtime.onnx import open_session

FAMILIES = ("spanet_small", "spanetv2_s18_pure", "spanet_nano", "spanetv2_nano_pure")


def main() -> None:
    """Measures and writes results/onnx_speed.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    models = {
        "convnext_tiny": build_form("convnext_tiny"),
        "spanet_small": build_form("spanet_small"),
        "spanet_small fft": build_form("spanet_small", "fft"),
        "spanet_small released": released_form("spanet_small"),
        "spanetv2_s18_pure": build_form("spanetv2_s18_pure"),
        "spanetv2_s18_pure fft": build_form("spanetv2_s18_pure", "fft"),
        "spanetv2_s18_pure released": head_by_head("spanetv2_s18_pure"),
    }
    for name in ("spanet_nano", "spanetv2_nano_pure"):
        models[name] = build_form(name)
    for name in FAMILIES:
        models[f"{name} free"] = models[name]
    feed = {"images": torch.randn(1, 3, 224, 224).numpy()}
    tasks, differences = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            path = Path(folder, f"{name.replace(' ', '_')}.onnx")
            written = export_model(model, path, dynamic=name.endswith(" free"), allow_fft=True)
            session = open_session(path, arguments.threads)
            tasks[name] = partial(session.run, None, feed)
            differences[name] = max(written.differences.values())
        seconds = interleave(tasks, arguments.rounds, warmup=3, settle=SESSIONS_SETTLE)
    rows: dict[str, Any] = {}
    for family in FAMILIES:
        own = {k: v for k, v in seconds.items() if k.split()[0] in (family, "convnext_tiny")}
        rows[family] = summarise(own, family)
        for name, row in rows[family].items():
            row["difference_from_eager"] = differences[name]
    write("onnx_speed", {"onnxruntime": onnxruntime.__version__, "batch": 1, "forms": rows})


if __name__ == "__main__":
    main()
