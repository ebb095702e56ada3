"""Draws the data sets of the demonstrations: shapes, or figures with keypoints, on photographs.

python examples/shapes.py FOLDER [--figures] [--images N] [--size 160] [--seed 0]
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
        "--images",
        type=int,
        help="number of images (default: 300, or 1000 of figures); a fifth is for validation",
    )
    parser.add_argument("--size", type=int, default=160, help="side of an image in pixels")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        draw, images = (write_figures, 1000) if arguments.figures else (write_shapes, 300)
        if arguments.images is not None:
            images = arguments.images
        draw(arguments.folder, images, arguments.size, arguments.seed)
    except UserError as error:
        print(f"shapes: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
