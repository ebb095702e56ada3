"""Calls other libraries on our models and on a control; writes docs/works-with.md.

    python benchmarks/clients.py [PATTERN]

Every call that PATTERN (a regular expression) finds runs in a process of its own, ended after five
minutes. Libraries that are not installed are left out. Rows of earlier runs stay, so that libraries
which do not fit in one environment can be tried in several.
"""

import contextlib
import importlib.util
import json
import multiprocessing
import re
import sys
import warnings
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import client_formats  # noqa: F401 (registers more calls)
import timm
import torch
from client_calls import CALLS, Call
from common import RESULTS, write

import spanets  # noqa: F401 (registers the models)

CONTROL = "convnext_atto"
MODELS = ("spanet_nano", "spanetv2_nano_pure", "spanetv2_nano_hybrid", CONTROL)
LIMIT = 300  # seconds a call and model

PAGE = Path(__file__).parents[1] / "docs" / "works-with.md"

TRACED = (
    "it counts a trace, in which SPANetV2's filters are matrix products. In eager mode on a CPU "
    "they are Fourier transforms, which torch's own counter does not count."
)

# Why a call fails: by its words, for the table's last section.
REASONS = {
    "quantize_static (QDQ) of torch.onnx.export's free-size file": "its shape inference does not "
    "find equal two expressions of one size: the length of an `arange(n)` and n, or "
    "`floor(floor(x) / 2)` and `floor(x / 2)`. With `auto_merge=True` it quantizes SPANetV2. "
    "SPANet then fails as other networks with GroupNorm do (timm's poolformer_s12): the quantizer "
    "numbers copies of a shared bias, and another tensor has that name already (`val_14` and "
    "`val_146`). `spanets export --dtype int8` quantizes both.",
    "MagnitudePruner, half of the channels, a step": "it does not follow the reshapes of attention "
    "with this torch, and searches without end.",
    "GradSampleModule: per-sample gradients of all layers": "its gradients are wrong for "
    "channels-last maps, which LayerNorm2d returns. `grad_sample_mode='functorch'` is right.",
    "FlopCountAnalysis": TRACED,
    "profile_macs": TRACED,
    "CAM of the layer that it finds": "SPANetV2's classifier has two linear layers, by design, and "
    "class activation maps are defined for one. Use GradCAM.",
}


LIMITS = [
    "- opacus: hooks on the stem's convolution make the network keep the caller's memory layout,",
    "  in which Opacus' per-sample gradients are right. `spanets.set_fused(False)` keeps it, too.",
    "- `torch.jit.script` records the network as it evaluates, for images of any size. It refuses",
    "  a network in training mode, and the keys of its state dict start with `trace.`.",
    "- torch-pruning: SPANet's channels belong to its gates by their order, so a pruned network",
    "  divides those that are left anew. Train it before you use it.",
]


def is_installed(call: Call) -> bool:
    try:
        return importlib.util.find_spec(call.module) is not None
    except ImportError:  # of the package around it
        return False


def attempt(call: Call, name: str, pipe: Any) -> None:
    """Runs a call, in a process of its own, and sends what came of it."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore")
    try:
        model = timm.create_model(name, num_classes=10).eval()
        found = call.run(model, torch.randn(2, 3, 64, 64))
        pipe.send({"works": True, "difference": found})
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = f"{type(error).__name__}: {lines[0] if lines else ''}"
        pipe.send({"works": False, "error": said[:160]})


def run(call: Call, name: str) -> dict[str, Any]:
    """Runs a call in a process of its own and returns what came of it."""
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(False)
    process = context.Process(target=attempt, args=(call, name, writer))
    process.start()
    writer.close()
    result: dict[str, Any] = {"works": False, "error": f"no end within {LIMIT} s"}
    if reader.poll(LIMIT):
        try:
            result = reader.recv()
        except EOFError:
            result = {"works": False, "error": "the process crashed"}
    process.kill()
    process.join()
    return result


def cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return "–"
    if not result["works"]:
        return "**no**"
    return "yes" if result["difference"] is None else f"yes, {result['difference']:.0e}"


def page(rows: list[dict[str, Any]]) -> str:
    """Returns the guide: a table of the calls, then a line for each that does not work."""
    lines = [
        "# Libraries that work with the models",
        "",
        "A model here is a timm model. Each row is one call of a library that",
        f"`benchmarks/clients.py` ran on a CPU, beside `{CONTROL}`, a network of timm. A number is",
        "the largest difference from the plain network, as a fraction of the largest value; for",
        "counters of operations, from torch's own count.",
        "",
        "| library | version | call | " + " | ".join(f"`{name}`" for name in MODELS) + " | date |",
        "| --- | --- | --- |" + " --- |" * len(MODELS) + " --- |",
    ]
    for row in rows:
        cells = " | ".join(cell(row["results"].get(name)) for name in MODELS)
        lines.append(
            f"| {row['package']} | {row['version']} | {row['call']} | {cells} | {row['date']} |"
        )
    lines += ["", "## What does not work, and why", ""]
    lines += [line for row in rows for line in failures(row)]
    lines += [
        *LIMITS,
    ]
    return "\n".join(lines) + "\n"


def failures(row: dict[str, Any]) -> list[str]:
    """Returns a line if a call fails on a model of ours, with the reason or the error."""
    failed = {k: r["error"] for k, r in row["results"].items() if k != CONTROL and not r["works"]}
    if not failed:
        return []
    control = row["results"].get(CONTROL)
    also = f" It fails for `{CONTROL}`, too." if control and not control["works"] else ""
    reason = REASONS.get(row["call"], f"`{next(iter(failed.values()))}`.")
    return [f"- {row['package']}, {row['call']} ({', '.join(failed)}): {reason}{also}"]


def main() -> None:
    pattern = sys.argv[1] if len(sys.argv) > 1 else ""
    stored = RESULTS / "clients.json"
    earlier = json.loads(stored.read_text())["calls"] if stored.exists() else []
    found = {(row["package"], row["call"]): row for row in earlier}
    for call in CALLS:
        if not (re.search(pattern, f"{call.package}: {call.words}") and is_installed(call)):
            continue
        results = {name: run(call, name) for name in MODELS}
        print(call.package, call.words, {k: cell(r) for k, r in results.items()}, flush=True)
        found[call.package, call.words] = {
            "package": call.package,
            "version": version(call.package),
            "call": call.words,
            "date": date.today().isoformat(),
            "results": results,
        }
        record(list(found.values()))


def record(rows: list[dict[str, Any]]) -> None:
    """Writes results and guide, after every call: the next one may take minutes."""
    order = [(call.package, call.words) for call in CALLS]
    kept = [row for row in rows if (row["package"], row["call"]) in order]
    kept.sort(key=lambda row: order.index((row["package"], row["call"])))
    with contextlib.redirect_stdout(None):
        write("clients", {"calls": kept})
    PAGE.write_text(page(kept))


if __name__ == "__main__":
    main()
