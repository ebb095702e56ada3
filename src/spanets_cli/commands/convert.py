"""`spanets convert`: converts annotated images to another format."""

import argparse
from pathlib import Path

from spanets_cli.option_types import fraction, local_path
from spanets_cli.output import print_json, print_notes, say

HELP = "convert annotated images between COCO, YOLO, Pascal VOC, masks and others"

EPILOG = """\
examples:
  spanets convert coco.json --to yolo --out yolo
  spanets convert masks --to coco --out annotations

Reads COCO (also of Roboflow, CVAT and Label Studio), YOLO, Pascal VOC, labelme, CVAT's XML, Label
Studio's JSON, and folders of masks; docs/formats.md shows each. What the new format cannot
hold is counted, one line a kind.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "data", type=local_path, metavar="IN", help="folder, or the file describing it"
    )
    parser.add_argument("--to", required=True, metavar="FORMAT", help="coco, yolo, voc or masks")
    parser.add_argument("--out", type=local_path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--from",
        dest="format",
        metavar="FORMAT",
        help="yolo, coco, cvat, voc, labelme, labelstudio, masks, dsb2018, or instances (masks "
        "with one number an object); default: found by the files",
    )
    parser.add_argument(
        "--images",
        choices=("copy", "link", "none"),
        default="copy",
        help="what becomes of the image files (default: copy)",
    )
    parser.add_argument(
        "--val-fraction",
        type=fraction,
        metavar="P",
        help="take this fraction of the images for val if there is no such part, by their names",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, _: list[str]) -> int:
    """Converts a data set and prints what was written."""
    from spanets.formats.reading import convert
    from spanets_runtime.errors import UsageError

    share = arguments.val_fraction
    if share in (0, 1):
        raise UsageError(f"--val-fraction is {share:g}, must be between 0 and 1")
    found = convert(
        Path(arguments.data),
        arguments.to,
        Path(arguments.out),
        arguments.format,
        arguments.images,
        share,
    )
    print_notes(found["notes"])
    if arguments.json:
        return print_json(found)
    for name, counts in found["parts"].items():
        say(f"{name}: {counts['images']} images, {counts['objects']} objects")
    say(f"written to {found['out']} as {found['to']}")
    return 0
