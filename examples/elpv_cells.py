"""Copies some cells of ELPV's evaluation part into a folder, named by their true class.

python examples/elpv_cells.py FOLDER [COUNT]
"""

import shutil
import sys
from pathlib import Path

from spanets.data.sources.elpv import elpv_splits


def main(folder: str, count: str = "3") -> None:
    """Copies `count` cells, classes in turn."""
    cells = elpv_splits()["val"]
    by_class = [
        [image for image, label in zip(cells.images, cells.labels, strict=True) if label == wanted]
        for wanted in range(len(cells.classes))
    ]
    Path(folder).mkdir(parents=True, exist_ok=True)
    for i in range(int(count)):
        label = i % len(by_class)
        image = by_class[label][i]
        shutil.copy(image, Path(folder, f"{cells.classes[label]}-{image.name}"))


if __name__ == "__main__":
    main(*sys.argv[1:])
