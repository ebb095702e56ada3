"""Draws the data sets of the demonstrations: shapes, or figures with keypoints, on photographs.

python examples/shapes.py FOLDER [--figures] [--images 300] [--size 160] [--seed 0]
"""

import argparse
import sys
from pathlib import Path

from spanets.detection.figures import write_figures
from spanets.detection.shapes import write_shapes
from spanets_runtime.errors import UserError


def main() -> int:
    """Writes the folder; returns the exit status."""
    parser = argparse.ArgumentParser(description="Draws shapes on photographs, for training.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--figures", action="store_true", help="figures with keypoints")
    parser.add_argument(
        "--images", type=int, default=300, help="number of images; a fifth is for validation"
    )
    parser.add_argument("--size", type=int, default=160, help="side of an image in pixels")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        draw = write_figures if arguments.figures else write_shapes
        draw(arguments.folder, arguments.images, arguments.size, arguments.seed)
    except UserError as error:
        print(f"shapes: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
