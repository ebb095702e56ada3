"""One image in ONNX Runtime on the CPU: SPANetV2 by matrix products and by FFTs, SPANet, ConvNeXt.

    python benchmarks/onnx_speed.py [--threads 2] [--rounds 15]

Needs onnx, onnxscript and onnxruntime. Each graph's outputs are compared with eager ones first.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import timm
import torch
from common import write
from forms import head_by_head
from torch import nn

from spanets.benchmark.timing import interleave, summarise


def session(model: nn.Module, x: torch.Tensor, path: Path, threads: int) -> tuple[Any, float]:
    """Exports a model, and returns its session and its largest relative difference from eager."""
    torch.onnx.export(
        model.eval(), (x,), str(path), dynamo=True, external_data=False, verbose=False
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    loaded = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = model(x)
    ours = torch.from_numpy(loaded.run(None, {loaded.get_inputs()[0].name: x.numpy()})[0])
    return loaded, ((ours - expected).abs().max() / expected.abs().max()).item()


def main() -> None:
    """Measures and writes results/onnx_speed.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    x = torch.randn(1, 3, 224, 224)
    models = {
        "spanetv2_s18_pure matmul": timm.create_model("spanetv2_s18_pure"),
        "spanetv2_s18_pure fft": timm.create_model("spanetv2_s18_pure", spectral_method="fft"),
        "spanetv2_s18_pure fft head by head": head_by_head("spanetv2_s18_pure"),
        "spanet_small": timm.create_model("spanet_small"),
        "convnext_tiny": timm.create_model("convnext_tiny"),
    }
    tasks, differences = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            path = Path(folder, f"{name.replace(' ', '_')}.onnx")
            loaded, differences[name] = session(model, x, path, arguments.threads)
            feed = {loaded.get_inputs()[0].name: x.numpy()}
            tasks[name] = partial(loaded.run, None, feed)
        seconds = interleave(tasks, arguments.rounds, warmup=3)
    rows: dict[str, Any] = summarise(seconds, "spanetv2_s18_pure matmul")
    for name, difference in differences.items():
        rows[name]["difference_from_eager"] = float(f"{difference:.2g}")
    write("onnx_speed", {"onnxruntime": onnxruntime.__version__, "batch": 1, "forms": rows})


if __name__ == "__main__":
    main()
