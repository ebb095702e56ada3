"""`spanets models`: the table of models."""

import argparse

from spanets_cli.output import print_json, print_table

HELP = "list the models with size, cost and published accuracy"

EPILOG = """\
examples:
  spanets models                  all models
  spanets models '*v2*' --json    those whose name matches
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("pattern", nargs="?", default="", help="shell pattern, such as '*small*'")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, _: list[str]) -> int:
    """Prints the table of models."""
    from spanets_runtime.model_table import model_table

    rows = model_table(arguments.pattern)
    if arguments.json:
        return print_json(rows)
    header = (
        "model",
        "parameters (M)",
        "MACs at 224² (G)",
        "top-1, paper (%)",
        "published weights",
    )
    lines = [
        (
            row["model"],
            f"{row['parameters'] / 1e6:.1f}",
            f"{row['macs'] / 1e9:.1f}",
            f"{row['top1_paper']}" if row["top1_paper"] else "",
            (row["weights"] or "none").rpartition("/")[2],
        )
        for row in rows
    ]
    print_table(header, lines)
    return 0
