"""The options that choose the weights of a model that is given by its name."""

import argparse
from typing import TYPE_CHECKING

from spanets_cli.output import tell

if TYPE_CHECKING:
    from spanets.sources import Source


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Adds `--weights`."""
    parser.add_argument(
        "--weights", metavar="FILE", help="weights for a MODEL, instead of its published ones"
    )


def add_pretrained(parser: argparse.ArgumentParser) -> None:
    """Adds `--pretrained` and `--no-pretrained`."""
    parser.add_argument(
        "--pretrained",
        action=argparse.BooleanOptionalAction,
        help="require a MODEL's published weights, or use random ones (default: published ones if "
        "there are any)",
    )


def open_named(word: str, weights: str | None) -> "Source":
    """Opens a model; a name gets the given weights, or else its published ones.

    Raises:
        UserError: see `open_source`.
    """
    from spanets.sources import open_source

    source = open_source(word, weights, pretrained=weights is None)
    if source.report is not None:
        tell(source.report)
    return source
