"""The picture and the page of a study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spanets.experiments.folder import PAGE, PICTURE
from spanets.experiments.recording import describe_verdicts, further_rows, table_rows
from spanets.experiments.verdicts import KINDS
from spanets_runtime.errors import require
from spanets_runtime.figures import name_label, render
from spanets_runtime.files import write_atomically
from spanets_runtime.html import Page, data_uri, html_table, mark_of, to_html

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_page(results: Mapping[str, Any], out: Path) -> None:
    """Draws study.png, and writes study.html, which contains it.

    Raises:
        UserError: matplotlib is missing, or a file cannot be written.
    """
    picture = draw(results)
    write_atomically(out / PICTURE, lambda file: file.write(picture))
    header, rows = table_rows(results)
    further = further_rows(results)
    counts = ", ".join(f"{count} {status}" for status, count in results["counts"].items())
    begun = results["history"][0]["when"] if results["history"] else "unknown"
    verdicts = [line.split(": ", 1) for line in describe_verdicts(results)]
    body = [
        f"<p>Recipe {to_html(results['recipe'])}; {len(results['cells'])} cells: "
        f"{to_html(counts)}. Rules written {to_html(begun)}, results "
        f"{to_html(results['written'])}, spanets {to_html(results['version'])}.</p>",
        "<h2>Verdicts</h2>",
        html_table(["verdict", "rule, comparison and reason"], verdicts),
        "<h2>Results</h2>",
        html_table(header, rows),
        *([html_table(*further)] if further is not None else []),
        f'<p><img alt="each seed, with means and intervals" style="max-width:100%" '
        f'src="{data_uri(picture, "png")}"></p>',
        "<h2>To judge the numbers</h2>",
        *(f"<p>{to_html(note)}</p>" for note in results["notes"] or ["nothing to note"]),
        "<h2>Cells</h2>",
        html_table(["cell", "seed", "status", results["metric"]["name"], "problem"], [
            [", ".join(cell["levels"].values()), str(cell["seed"]), cell["status"],
             cell["value"], cell["problem"] or ""] for cell in results["cells"]
        ]),
    ]  # fmt: skip
    Page(mark_of("spanets study")).write(out / PAGE, results["question"], body)


def draw(results: Mapping[str, Any]) -> bytes:
    """Draws the values of all seeds, and the differences to the baseline, as PNG.

    Raises:
        UserError: matplotlib is missing.
    """
    require("matplotlib", "analysis")
    from matplotlib.figure import Figure

    rows = results["combinations"]
    figure = Figure(figsize=(11, 1.6 + 0.4 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    values = {key: _values(results, row["levels"]) for key, row in enumerate(rows)}
    for place, row in enumerate(rows):
        _draw_row(left, place, list(values[place].values()), row)
        if row["difference"] is not None:
            against = values[next(i for i, r in enumerate(rows) if r["levels"] == row["against"])]
            pairs = [values[place][seed] - against[seed] for seed in values[place].keys() & against]
            _draw_row(right, place, pairs, row["difference"])
    metric = name_label(results["metric"]["name"])
    left.set(xlabel=f"{metric} ({results['metric']['better']} is better)")
    right.set(xlabel=f"{metric}: difference to the baseline, paired by seed")
    names = [name_label(", ".join(row["levels"].values())) for row in rows]
    left.set_yticks(range(len(rows)), names)
    left.set_ylim(len(rows) - 0.5, -0.5)
    _draw_margins(right, results)
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
    return render(figure, "png", dpi=130)


def _values(results: Mapping[str, Any], levels: Mapping[str, str]) -> dict[int, float]:
    return {
        cell["seed"]: cell["value"]
        for cell in results["cells"]
        if cell["levels"] == levels and cell["value"] is not None
    }


def _draw_row(axes: "Axes", place: int, values: Sequence[float], row: Mapping[str, Any]) -> None:
    """Draws a point for each seed, the mean, and its bootstrap interval."""
    axes.plot(values, [place] * len(values), "o", color="0.6", markersize=4)
    if row["low"] is not None:
        axes.plot([row["low"], row["high"]], [place, place], "-", color="C0", linewidth=2)
    if row["mean"] is not None:
        axes.plot(row["mean"], place, "D", color="C0", markersize=6)


def _draw_margins(axes: "Axes", results: Mapping[str, Any]) -> None:
    """Draws zero, and the margins of the rules on the side on which they count."""
    axes.axvline(0, color="0.3", linewidth=1)
    for mark in find_margins(results):
        axes.axvline(mark, color="C3", linewidth=1, linestyle="--")


def find_margins(results: Mapping[str, Any]) -> list[float]:
    """Returns the margins of the rules as differences to the baseline.

    A rule may compare the baseline with another combination, so that its gain is the difference
    with the other sign. One without the baseline, or of another metric, has no margin here.
    """
    baseline = results["baseline"].items()
    higher = 1 if results["metric"]["better"] == "higher" else -1
    sides = {"better_by": [1], "no_worse_than": [-1], "equal_within": [-1, 1]}
    margins = set()
    for rule in results["rules"]:
        is_first = baseline <= rule["compare"].items()
        if "metric" in rule or not (is_first or baseline <= rule["against"].items()):
            continue
        sign = -higher if is_first else higher
        margins |= {sign * side * rule[kind]
                    for kind in KINDS.keys() & rule.keys() for side in sides[kind]}  # fmt: skip
    return sorted(margins)
