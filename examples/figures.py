"""Draws the data set of the keypoint demonstration: stick figures on photographs.

python examples/figures.py FOLDER [--images 300] [--size 160] [--seed 0]
"""

import argparse
import sys
from pathlib import Path

from spanets.detection.figures import write_figures
from spanets_runtime.errors import UserError


def main() -> int:
    """Writes the folder; returns the exit status."""
    parser = argparse.ArgumentParser(description="Draws figures on photographs, for training.")
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--images", type=int, default=300, help="number of images; a fifth is for validation"
    )
    parser.add_argument("--size", type=int, default=160, help="side of an image in pixels")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        write_figures(arguments.folder, arguments.images, arguments.size, arguments.seed)
    except UserError as error:
        print(f"figures: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
