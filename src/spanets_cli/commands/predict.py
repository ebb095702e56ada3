"""`spanets predict`: labels images, detects objects or segments."""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spanets_cli.limits import MOST_COUNT, MOST_SIDE
from spanets_cli.option_types import fraction, local_path, whole
from spanets_cli.output import print_json, print_notes, say, tell
from spanets_cli.programs import refuse_program
from spanets_cli.ranks import only_first_prints, refuse_several
from spanets_cli.shared_options import add_tta, add_weights, open_named, read_tta
from spanets_runtime.errors import UsageError
from spanets_runtime.text import escape_controls
from spanets_runtime.windows import Tiling

if TYPE_CHECKING:
    from spanets_runtime.ranks import Rank
    from spanets_runtime.shared_table import SharedTable

HELP = "classify images, segment them, or detect objects"

EPILOG = """\
examples:
  spanets predict spanet_small cat.jpg dog.jpg --top 3
  spanets predict runs/photos/last.ckpt new/ --table answers.csv
  spanets predict runs/shapes/last.ckpt streets/ --score 0.6 --out drawn
  spanets predict photos.onnx cat.jpg --json
"""

TTA = "probabilities averaged over 2 views: each image and its mirror image"

MOST_ERRORS = 20
"""Largest number of rows with an error that are also printed."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "checkpoint",
        type=local_path,
        metavar="MODEL|CHECKPOINT|FILE.onnx",
        help="a model's name (its published weights are fetched once), or a trained model",
    )
    parser.add_argument(
        "images", type=local_path, nargs="+", metavar="IMAGE", help="image files or folders"
    )
    parser.add_argument(
        "--top",
        type=whole(1, MOST_COUNT),
        default=5,
        metavar="N",
        help="classifiers: number of classes to show for each image (default: 5)",
    )
    parser.add_argument(
        "--score",
        type=fraction,
        default=0.5,
        metavar="P",
        help="detectors: lowest score of an object, 0 to 1 (default: 0.5)",
    )
    add_weights(parser)
    parser.add_argument(
        "--out",
        type=local_path,
        metavar="DIR",
        help="folder for pictures, masks, tables and COCO JSON",
    )
    parser.add_argument(
        "--table",
        type=local_path,
        metavar="FILE",
        help="write a row for each image to FILE.csv, .jsonl or .parquet; an interrupted command "
        "goes on, and the processes of torchrun share the images",
    )
    parser.add_argument(
        "--annotations",
        type=local_path,
        metavar="FILE",
        help="detectors: COCO JSON whose image and category ids to use in the --out file",
    )
    parser.add_argument(
        "--calibrated",
        action="store_true",
        help="classifiers: use the temperature that eval --calibrate stored",
    )
    add_tta(parser)
    parser.add_argument(
        "--tile",
        type=whole(32, MOST_SIDE),
        metavar="SIDE",
        help="for large images: predict in squares of this side in pixels, and merge the results",
    )
    parser.add_argument(
        "--overlap",
        type=whole(0, MOST_SIDE // 2),
        metavar="N",
        help="smallest overlap of tiles in pixels; for detectors at least the size of an object "
        "(default: an eighth of --tile)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, _: list[str]) -> int:
    """Predicts and prints the results; returns 1 if an image could not be used."""
    with only_first_prints() as rank:
        if arguments.table is not None:
            return write_table(arguments, rank)
        refuse_several(rank, "add --table FILE, which they write together")
        return print_predictions(arguments)


def print_predictions(arguments: argparse.Namespace) -> int:
    """Predicts and prints the results; returns 1 if an image could not be used."""
    from spanets_runtime.listing import gather_images
    from spanets_runtime.progress import progress

    gathered, predict = gather_images(arguments.images), make_predictor(arguments)
    print_notes(gathered.notes)
    predictions, count = predict(gathered.images), len(gathered.images)
    # The printed lines already show the progress.
    watched = progress(predictions, "predict", total=count, hidden=not arguments.json)
    found, failed = [], False
    for prediction in watched:
        if prediction.error is not None:
            failed = True
            watched.write(escape_controls(f"spanets: {prediction.error}"), file=sys.stderr)
            if prediction.was_read:
                found.append(prediction.to_dict())
            continue
        found.append(prediction.to_dict())
        if not arguments.json:
            say(prediction)
    if arguments.json:
        failed |= bool(print_json(found))
    return int(failed)


def write_table(arguments: argparse.Namespace, rank: "Rank") -> int:
    """Predicts this rank's part of a table; rank 0 joins it. Returns 1 if a row has an error."""
    from spanets_runtime.listing import gather_images
    from spanets_runtime.shared_table import SharedTable

    for option in ("out", "annotations", "tile", "overlap"):
        if getattr(arguments, option) is not None:
            raise UsageError(f"--{option} does not go with --table; leave one out")
    check_model(arguments)
    gathered = gather_images(arguments.images)
    print_notes(gathered.notes)
    path = Path(arguments.table)
    with SharedTable(path, gathered.images, describe_options(arguments), rank) as table:
        if table.done:
            tell(f"{table.done} of {len(table.images)} images were done already ({table.folder})")
        if not (rank.is_first or table.left):
            return 0
        errors = predict_rows(arguments, table)
    if not rank.is_first:
        return 0
    for line in errors[:MOST_ERRORS]:
        tell(f"spanets: {line}")
    found = {"table": arguments.table, "images": len(gathered.images), "errors": len(errors)}
    if arguments.json:
        return print_json(found) or int(bool(errors))
    failed = f", {len(errors)} with an error" if errors else ""
    say(f"{found['images']} image{'s' * (found['images'] != 1)}{failed}: {arguments.table}")
    return int(bool(errors))


def predict_rows(arguments: argparse.Namespace, table: "SharedTable") -> list[str]:
    """Predicts what is left for this rank; rank 0 then joins the parts, and returns the errors."""
    from spanets_runtime.progress import progress

    columns, predict = make_rows(arguments)
    try:
        rows = table.work(columns, predict)
        for _ in progress(rows, "predict", total=table.left, unit="image"):
            pass
        if not table.rank.is_first:
            return []
        print_notes(filter(None, [table.waiting()]))
        table.wait()
    except KeyboardInterrupt:
        done = f"{table.stored()} of {len(table.images)} images are done"
        tell(f"{done}; run the command again to go on")
        raise
    return table.join(columns)


def describe_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns what determines the rows of a table, besides the images."""
    from spanets_runtime.shared_table import describe_model

    options = {f"--{name}": getattr(arguments, name) for name in ("top", "score")}
    tta = check_model(arguments)
    options |= {
        "--calibrated": arguments.calibrated,
        "--tta": tta["tta"],
        "--tta-scales": tta["tta_scales"] and list(tta["tta_scales"]),
        "--tta-crops": tta["tta_crops"],
    }
    return {**describe_model(arguments.checkpoint, arguments.weights), **options}


def check_model(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns what `read_tta` returns.

    Raises:
        UsageError: the model is a program, or options do not go together.
    """
    refuse_program(arguments.checkpoint, "predict")
    tta = read_tta(arguments)
    if arguments.calibrated and tta["tta"]:
        raise UsageError("--calibrated: the temperature is fitted without --tta; leave one out")
    return tta


def make_rows(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Returns the columns of a table, and a function from paths of images to predictions."""
    from spanets_runtime.onnx import is_exported, make_onnx_rows

    path = arguments.checkpoint
    if is_exported(path) and arguments.weights is None:
        _refuse_views(arguments)
        print_notes([TTA] * arguments.tta)
        return make_onnx_rows(path, arguments.top, arguments.calibrated, arguments.tta)
    from spanets.tasks import load_task
    from spanets.training import using
    from spanets.training.options import PredictOptions

    options = PredictOptions(
        arguments.top,
        min_score=arguments.score,
        calibrated=arguments.calibrated,
        **check_model(arguments),
    )
    source = open_named(path, arguments.weights)
    columns, predict = using.make_rows(source, options)
    if options.views is not None:
        tell(load_task(source.info.task).describe_tta(options.views))
    return columns, predict


def make_predictor(arguments: argparse.Namespace) -> Callable[[Any], Iterator[Any]]:
    """Opens an exported model, without importing torch, or a checkpoint of any task.

    Returns:
        A function from paths of images to predictions, which have `error`, `to_dict` and `str`.
    """
    from spanets_runtime.onnx import is_exported

    tta = check_model(arguments)
    tiling = _read_tiling(arguments)
    out = None if arguments.out is None else Path(arguments.out)
    annotations = None if arguments.annotations is None else Path(arguments.annotations)
    if is_exported(arguments.checkpoint) and arguments.weights is None:
        return _open_exported(arguments, out, annotations)
    from spanets.tasks import load_task
    from spanets.training import using
    from spanets.training.options import PredictOptions

    options = PredictOptions(
        arguments.top,
        out,
        arguments.score,
        annotations,
        calibrated=arguments.calibrated,
        tile=tiling,
        **tta,
    )
    source = open_named(arguments.checkpoint, arguments.weights)
    predict = using.make_predictor(source, options)
    if options.views is not None:
        tell(load_task(source.info.task).describe_tta(options.views))
    return predict


def _read_tiling(arguments: argparse.Namespace) -> Tiling | None:
    """Returns the tiles of `--tile` and `--overlap`, or None.

    Raises:
        UsageError: an overlap without tiles, or a larger one than half of a tile.
    """
    side, overlap = arguments.tile, arguments.overlap
    if side is None:
        if overlap is not None:
            raise UsageError("--overlap is the overlap of tiles; add --tile SIDE")
        return None
    overlap = side // 8 if overlap is None else overlap
    if overlap > side // 2:
        raise UsageError(
            f"--overlap {overlap}: at most half of --tile {side}; lower it to {side // 2}, or "
            "raise --tile"
        )
    return Tiling(side, overlap)


def _open_exported(
    arguments: argparse.Namespace, out: Path | None, annotations: Path | None
) -> Callable[[Any], Iterator[Any]]:
    from spanets_runtime.onnx import make_onnx_predictor

    _refuse_views(arguments)
    predict = make_onnx_predictor(
        arguments.checkpoint, arguments.top, out, annotations, arguments.calibrated, arguments.tta
    )
    print_notes([TTA] * arguments.tta)
    return predict


def _refuse_views(arguments: argparse.Namespace) -> None:
    """Raises a UsageError for tiles, scales and crops, which exported files lack."""
    from spanets_runtime.onnx import refuse_exported

    given = {
        "--tile": arguments.tile,
        "--tta-scales": arguments.tta_scales,
        "--tta-crops": arguments.tta_crops or None,
    }
    for option, value in given.items():
        if value is not None:
            raise UsageError(refuse_exported(option, arguments.checkpoint))
