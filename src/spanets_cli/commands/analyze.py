"""`spanets analyze`: measures how models treat frequencies."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from spanets_cli.limits import (
    MOST_COUNT,
    MOST_FREQUENCIES,
    refuse_large_batches,
)
from spanets_cli.option_types import local_path, positive, whole
from spanets_cli.output import print_json, print_table, say
from spanets_cli.programs import refuse_program
from spanets_cli.shared_options import add_batch, add_pretrained, add_size, add_weights

HELP = "measure how models treat spatial frequencies"

EPILOG = """\
examples:
  spanets analyze spanet_small resnet18 --images photos --out figures
  spanets analyze runs/photos/last.ckpt --images photos --out figures --size 64
  spanets analyze runs/photos/last.ckpt --images photos --out figures --what reliance
"""

MODEL_SOURCES = "a timm model's name, a checkpoint, or module:function"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("models", type=local_path, nargs="+", metavar="MODEL", help=MODEL_SOURCES)
    parser.add_argument(
        "--images",
        type=local_path,
        required=True,
        metavar="DIR",
        help="folder of images, at any depth",
    )
    parser.add_argument(
        "--out", type=local_path, required=True, metavar="DIR", help="folder for the results"
    )
    parser.add_argument(
        "--what",
        nargs="+",
        default=["amplitude"],
        metavar="NAME",
        help="amplitude, response, impulse, receptive-field, sensitivity, bands, corruptions, "
        "reliance (default: amplitude)",
    )
    parser.add_argument(
        "--sites",
        nargs="+",
        default=["mixers"],
        metavar="PATTERN",
        help="mixers, blocks, or patterns of module names (default: mixers)",
    )
    add_size(parser)
    add_batch(parser, 16, " (default: 16)")
    parser.add_argument(
        "--limit",
        type=whole(1, MOST_COUNT),
        metavar="N",
        help="use at most N images, spread evenly over the folder",
    )
    parser.add_argument(
        "--profile",
        default="diagonal",
        metavar="NAME",
        help="diagonal or radial (default: diagonal)",
    )
    parser.add_argument(
        "--epsilon",
        type=positive,
        metavar="NORM",
        help="norm of the sinusoid that sensitivity adds (default: 15.7 at 224²)",
    )
    parser.add_argument(
        "--frequencies",
        type=whole(3, MOST_FREQUENCIES),
        default=15,
        metavar="N",
        help="side of the sensitivity map, an odd number (default: 15)",
    )
    add_weights(parser)
    add_pretrained(parser)
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run(arguments: argparse.Namespace, _: list[str]) -> int:
    """Analyses models and prints where the figures are."""
    from spanets.analysis.study import Options, analyze
    from spanets_runtime.errors import require

    for model in arguments.models:
        refuse_program(model, "analyze", MODEL_SOURCES)
    require("matplotlib", "analysis")  # before the models run
    refuse_large_batches([arguments.batch], [arguments.size or 0])
    options = Options(
        arguments.sites,
        arguments.profile,
        arguments.epsilon,
        arguments.frequencies,
        arguments.batch,
    )
    results = analyze(
        arguments.models,
        arguments.images,
        arguments.out,
        arguments.what,
        options,
        arguments.size,
        arguments.limit,
        arguments.weights,
        arguments.pretrained,
    )
    if arguments.json:
        return print_json(results)
    for source, row in results.items():
        for line in describe_analysis(row):
            say(f"{source} {line}")
        if "reliance" in row:
            print_reliance(source, row["reliance"])
    say(f"figures and numbers: {arguments.out}")
    return 0


def describe_analysis(row: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line for each measurement of a model."""
    for name, numbers in row.get("amplitude", {}).items():
        yield f"{name}: {numbers['last']:+.2f} at the highest frequency"
    for name, numbers in row.get("response", {}).items():
        ratio = numbers["bands"]["high_pass_ratio"]
        shown = "undefined, map too small" if ratio is None else f"{ratio:.2f}"
        yield f"{name}: high-pass ratio {shown}"
    for key in ("sensitivity", "bands"):
        if key in row:
            yield f"{key}: {row[key]['images']} images, compared with {row[key]['reference']}"


def print_reliance(source: str, row: Mapping[str, Any]) -> None:
    """Prints the accuracy without each cue, and whose frequencies answers follow."""
    say(
        f"{source} reliance: {row['images']} images, compared with {row['reference']}; "
        f"a guess is right in {row['guess']:.2f}; 95 % intervals in brackets"
    )
    rows = [["whole images", with_interval(row["whole"], "accuracy"), ""]]
    for name, found in row["suppressed"].items():
        relative = with_interval(found["relative"], "accuracy")
        rows.append([name, with_interval(found, "accuracy"), relative])
    print_table(["images", "accuracy", "relative"], rows)
    conflict = row["conflict"]
    if not conflict["pairs"]:
        say("no conflict of frequencies: all images are of one class")
        return
    say(f"conflict of frequencies in {conflict['pairs']} pairs, both ways; answers follow")
    lines = []
    for i, cutoff in enumerate(conflict["cutoffs"]):
        curves = (conflict[kind] for kind in ("follows_low", "follows_high", "neither"))
        found = [{key: values[i] for key, values in curve.items()} for curve in curves]
        lines.append([f"{cutoff:g}", *(with_interval(values, "share") for values in found)])
    print_table(["cut-off", "low", "high", "neither"], lines)


def with_interval(values: Mapping[str, Any], key: str) -> str:
    """Returns a value with its interval, such as "0.81 [0.78, 0.84]"."""
    if values["low"] is None:
        return "undefined"
    return f"{values[key]:.2f} [{values['low']:.2f}, {values['high']:.2f}]"
