"""Writes Fashion-MNIST (Xiao et al., 2017) as class folders, with some training images of a class.

    apt-get install dataset-fashion-mnist
    python studies/fashion_mnist.py /usr/share/datasets/fashion-mnist fashion --each 20 60 180

Writes fashion/20, fashion/60 and fashion/180. Each has the first images of every class in the
training file, and as `val/` the first 200 images of every class in the test file, which are the
same everywhere.
"""

import argparse
import gzip
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = (
    *("t-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle-boot"),
)
SIDE = 28
VALIDATION = 200


def write_images(given: Path, part: str, out: Path, each: int) -> None:
    """Writes the first images of every class as PNG files below `out`."""
    with gzip.open(given / f"{part}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, SIDE, SIDE)
    with gzip.open(given / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read()[8:], np.uint8)
    written: Counter[str] = Counter()
    for image, label in zip(images, labels, strict=True):
        name = CLASSES[label]
        if written[name] < each:
            path = out / name / f"{written[name]:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
            written[name] += 1


def main() -> None:
    """Writes a data set for every number of training images."""
    parser = argparse.ArgumentParser()
    parser.add_argument("given", type=Path, help="folder of the four .gz files")
    parser.add_argument("out", type=Path)
    parser.add_argument("--each", type=int, nargs="+", default=[180], help="images of a class")
    arguments = parser.parse_args()
    for each in arguments.each:
        folder = arguments.out / str(each)
        write_images(arguments.given, "train", folder / "train", each)
        write_images(arguments.given, "t10k", folder / "val", VALIDATION)


if __name__ == "__main__":
    main()
