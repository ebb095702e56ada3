"""Options that several commands have, and opening a model by them."""

import argparse
from typing import TYPE_CHECKING, Any

from spanets_cli.limits import MOST_BATCH, MOST_SIDE
from spanets_cli.option_types import local_path, scale, whole
from spanets_cli.output import tell
from spanets_runtime.errors import UsageError
from spanets_runtime.machine import most_parallel

if TYPE_CHECKING:
    from spanets.sources import Source


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Adds `--weights`."""
    parser.add_argument(
        "--weights",
        type=local_path,
        metavar="FILE",
        help="weights for a MODEL, instead of its published ones",
    )


def add_pretrained(parser: argparse.ArgumentParser) -> None:
    """Adds `--pretrained` and `--no-pretrained`."""
    parser.add_argument(
        "--pretrained",
        action=argparse.BooleanOptionalAction,
        help="require a MODEL's published weights, or use random ones (default: published ones if "
        "there are any)",
    )


def add_size(parser: argparse.ArgumentParser) -> None:
    """Adds `--size`, the side of the images; None means the model's."""
    parser.add_argument(
        "--size",
        type=whole(32, MOST_SIDE),
        metavar="SIDE",
        help="side of the images in pixels (default: the model's)",
    )


def add_batch(parser: argparse.ArgumentParser, default: int | None, shown: str) -> None:
    """Adds `--batch`; `shown` ends its help."""
    parser.add_argument(
        "--batch",
        type=whole(1, MOST_BATCH),
        default=default,
        metavar="N",
        help=f"images in a batch{shown}",
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Adds `--workers`."""
    most = most_parallel()
    parser.add_argument(
        "--workers",
        type=whole(0, most),
        default=2,
        metavar="N",
        help=f"processes that load images, 0 to {most} on this machine (default: 2)",
    )


def add_tta(parser: argparse.ArgumentParser) -> None:
    """Adds `--tta`, `--tta-scales` and `--tta-crops`; see `read_tta`."""
    parser.add_argument(
        "--tta",
        action="store_true",
        help="average over each image and its mirror image, or merge the objects found in both",
    )
    parser.add_argument(
        "--tta-scales",
        type=scale,
        nargs="+",
        metavar="S",
        help="--tta at several sizes, such as 0.75 1 1.25",
    )
    parser.add_argument(
        "--tta-crops",
        action="store_true",
        help="--tta with the four corners of each image, enlarged",
    )


def read_tta(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the values of `TtaOptions`; scales and crops imply `--tta`.

    Raises:
        UsageError: a scale is named twice.
    """
    scales = arguments.tta_scales
    if scales is not None and len(set(scales)) < len(scales):
        shown = " ".join(f"{value:g}" for value in scales)
        raise UsageError(f"--tta-scales {shown}: a scale is named twice; name each once")
    return {
        "tta": arguments.tta or scales is not None or arguments.tta_crops,
        "tta_scales": None if scales is None else tuple(scales),
        "tta_crops": arguments.tta_crops,
    }


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
