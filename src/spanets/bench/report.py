"""Shows a comparison as a table or a figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm

from spanets_runtime.figures import check_picture, name_label, render
from spanets_runtime.files import write_atomically
from spanets_runtime.onnx import is_exported

HEADER = (
    "model",
    "batch",
    "size",
    "ms",
    "quartiles",
    "images/s",
    "memory (MB)",
    "parameters (M)",
    "MACs (G)",
    "FFT (GFLOP)",
)


def table_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns the rows of a comparison as texts, with the columns of `HEADER`."""
    return [
        (
            _name(row),
            str(row["batch"]),
            str(row["size"]),
            f"{row['latency_ms']:.1f}",
            f"{row['quartile1_ms']:.1f}-{row['quartile3_ms']:.1f}",
            f"{row['images_per_s']:.1f}",
            _number(row["peak_memory_mb"], 0),
            _number(row["parameters"], 1, 1e6),
            _number(row["macs"], 2, 1e9),
            _number(row["fft_flops"], 3, 1e9),
        )
        for row in result["rows"]
    ]


def _number(value: float | None, digits: int, unit: float = 1) -> str:
    return "" if value is None else f"{value / unit:.{digits}f}"


def describe_setting(result: Mapping[str, Any]) -> str:
    """Describes settings and hardware of a comparison in one line."""
    setting, machine = result["setting"], result["circumstances"]
    what = "training steps" if setting["train"] else "inference"
    exported = [is_exported(row["model"]) for row in result["rows"]]
    format = "exported files in their own number format"
    if not all(exported):
        format = f"{setting['dtype']}, {format}" if any(exported) else setting["dtype"]
    where = machine.get("gpu") or f"{machine['processor']}, {machine['threads']} threads"
    return (
        f"{what}, {setting['backend']}, {format}, {where}, torch {machine['torch']}; "
        f"medians of {result['rounds']} interleaved rounds, random images"
    )


def plot(result: Mapping[str, Any], path: str | Path) -> None:
    """Draws the time of one image for every row, with its quartiles.

    Raises:
        UsageError: unknown suffix.
        UserError: no matplotlib, or the file cannot be written.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    rows = list(reversed(result["rows"]))
    figure = Figure(figsize=(8, 1.4 + 0.4 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    times = [row["latency_ms"] / row["batch"] for row in rows]
    below = [(row["latency_ms"] - row["quartile1_ms"]) / row["batch"] for row in rows]
    above = [(row["quartile3_ms"] - row["latency_ms"]) / row["batch"] for row in rows]
    labels = [f"{name_label(_short(_name(row)))}, {row['batch']} x {row['size']}²" for row in rows]
    peers = [timm.is_model(row["model"]) and not row["model"].startswith("spanet") for row in rows]
    # Gray: timm's models and the user's own.
    colours = ["tab:gray" if peer else "tab:blue" for peer in peers]
    # Rows by position, since a model that is named twice has the same label twice.
    axes.barh(range(len(rows)), times, xerr=[below, above], color=colours, capsize=3)
    axes.set_yticks(range(len(rows)), labels)
    for i, (time, more) in enumerate(zip(times, above, strict=True)):
        axes.annotate(
            f"{time:.0f}" if time >= 100 else f"{time:.3g}",
            (time + more, i),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_xlim(0, 1.15 * max(time + more for time, more in zip(times, above, strict=True)))
    axes.set_xlabel("time of one image (ms); less is better")
    figure.suptitle(describe_setting(result).replace("; ", "\n"), fontsize=8)
    content = render(figure, Path(path).suffix[1:], dpi=150)
    write_atomically(path, lambda file: file.write(content))


def _short(name: str) -> str:
    """Returns the end of a path, which is enough to distinguish the files."""
    return "/".join(Path(name).parts[-2:])


def _name(row: Mapping[str, Any]) -> str:
    return row["model"] if row["form"] == "default" else f"{row['model']} ({row['form']})"
