"""Measures the images of a data set one by one, in worker processes, and adds the numbers up.

Memory grows by 16 bytes an image for the digests, besides the list of the images itself.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from spanets.data.loaders import ordered_loader, plain_worker_errors
from spanets_runtime.decoding.decoded import Decoded
from spanets_runtime.images import (
    ImageError,
    describe_error,
    digest_image,
    load_described,
    quiet_decoder,
)
from spanets_runtime.progress import progress

DIGEST_BYTES = 16

SMALL_SIDE = 32
"""Images with a shorter side below this, in pixels, are reported: networks halve it five times."""

ELONGATED = 4
"""Images whose longer side is more than this many times the shorter one are reported."""

_BATCH = 8

# Order of the odd things in the report, with their words.
ODD = {
    "suffix": "with a suffix of another format than their content (they are read by content)",
    "transparent": "with transparent pixels, which are read as white",
    "deep": "with more than 8 bits a channel, of which the upper 8 are read",
    "cmyk": "in CMYK, read as RGB without their colour profile",
    "small": f"with a shorter side below {SMALL_SIDE} pixels",
    "elongated": f"with a longer side of more than {ELONGATED} times the shorter one",
    "uniform": "of one colour only",
    "constant": "with a channel of one number only",
    "far": "with numbers beyond 100 after scaling; set data.value_range",
}


@dataclass(frozen=True)
class Measured:
    """What one image is.

    Attributes:
        digest: Digest of its encoded bytes.
        size: Width and height of the upright image, in pixels.
        mode: Pillow's mode and number of bits, such as "RGB, 8 bits"; or the type of an array.
        kind: Format by content, such as "PNG".
        mean, square: Mean of each channel and of its square, of values from 0 to 1.
        odd: Keys of `ODD`.
    """

    digest: bytes
    size: tuple[int, int]
    mode: str
    kind: str
    mean: NDArray[np.float64]
    square: NDArray[np.float64]
    odd: tuple[str, ...]


def measure_image(source: Any) -> Measured:
    """Decodes and measures an image, as training reads it.

    Raises:
        ImageError: see `load_image`.
    """
    digest = digest_image(source, DIGEST_BYTES)
    image, decoded = load_described(source)
    counts = np.array(image.histogram(), np.float64).reshape(3, 256)
    shares = counts / (image.width * image.height)
    values = np.arange(256) / 255
    return Measured(
        digest,
        image.size,
        f"{decoded.image.mode.partition(';')[0]}, {decoded.bits} bits",
        decoded.form,
        shares @ values,
        shares @ values**2,
        tuple(_oddities(source, image, decoded, counts)),
    )


def _oddities(
    source: Any, image: Image.Image, decoded: Decoded, counts: NDArray[np.float64]
) -> list[str]:
    short, long = sorted(image.size)
    found = {
        "suffix": has_wrong_suffix(source, decoded.form),
        "transparent": decoded.hidden is not None or _is_transparent(decoded.image),
        "deep": decoded.bits > 8,
        "cmyk": decoded.image.mode == "CMYK",
        "small": short < SMALL_SIDE,
        "elongated": long > ELONGATED * short,
        "uniform": bool((np.count_nonzero(counts, axis=1) == 1).all()),
    }
    return [name for name in ODD if found.get(name)]


def has_wrong_suffix(source: Any, form: str) -> bool:
    """Returns whether a file's suffix is that of another format."""
    if not isinstance(source, str | os.PathLike):
        return False
    suffix = os.path.splitext(os.fspath(source))[1].lower()
    return Image.registered_extensions().get(suffix, form) not in (form, "MPO")


def _is_transparent(image: Image.Image) -> bool:
    """Whether a pixel is not opaque; an alpha channel alone is common and harmless."""
    if not image.has_transparency_data:
        return False
    low: Any = image.convert("RGBA").getchannel("A").getextrema()[0]
    return low < 255


@dataclass
class Totals:
    """The sums over the images of a data set.

    Attributes:
        digests: (N, 16), zeros for unreadable images.
        readable: (N,), whether an image could be read.
        errors: A message for each unreadable image, by index.
        widths, heights, aspects: Numbers of images by upright side in pixels, and by width over
            height with three digits.
        modes, kinds: Numbers of images by mode and by format.
        odd: Number of images of each kind of `ODD`, and the index of the first.
        mean, square: Sums over the images of `counted`, one weight an image.
        counted: Number of images in these sums.
        first_of: Index of the first image of each mode.
        is_of_arrays: Whether the images keep their stored numbers.
    """

    digests: NDArray[np.uint8]
    readable: NDArray[np.bool_]
    errors: dict[int, str] = field(default_factory=dict)
    widths: Counter[int] = field(default_factory=Counter)
    heights: Counter[int] = field(default_factory=Counter)
    aspects: Counter[float] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    odd: dict[str, tuple[int, int]] = field(default_factory=dict)
    mean: NDArray[np.float64] | float = 0.0
    square: NDArray[np.float64] | float = 0.0
    counted: int = 0
    first_of: dict[str, int] = field(default_factory=dict)
    is_of_arrays: bool = False

    def add(self, index: int, found: Measured, count_pixels: bool) -> None:
        """Adds a readable image; its pixels count for mean and deviation if asked."""
        self.digests[index] = np.frombuffer(found.digest, np.uint8)
        self.readable[index] = True
        width, height = found.size
        self.widths[width] += 1
        self.heights[height] += 1
        self.aspects[round(width / height, 3)] += 1
        self.modes[found.mode] += 1
        self.kinds[found.kind] += 1
        self.first_of.setdefault(found.mode, index)
        for name in found.odd:
            count, first = self.odd.get(name, (0, index))
            self.odd[name] = count + 1, first
        if count_pixels:
            self.mean = self.mean + found.mean
            self.square = self.square + found.square
            self.counted += 1

    def moments(self) -> tuple[list[float], list[float]] | None:
        """Returns mean and standard deviation of each channel, each image with the same weight."""
        if not self.counted:
            return None
        mean, square = np.asarray(self.mean) / self.counted, np.asarray(self.square) / self.counted
        return mean.tolist(), np.sqrt(np.maximum(square - mean**2, 0)).tolist()


def measure_images(
    images: Sequence[Any],
    pixels_of: NDArray[np.bool_],
    workers: int,
    measure: Callable[[Any], Measured] = measure_image,
) -> Totals:
    """Measures all images.

    Args:
        images: Paths or stored images.
        pixels_of: (N,), the images whose pixels count for mean and standard deviation.
        workers: Processes that load images; 0 loads them in this one.
        measure: Measures an image.
    """
    count = len(images)
    totals = Totals(np.zeros((count, DIGEST_BYTES), np.uint8), np.zeros(count, bool))
    loader = ordered_loader(_Images(images, measure), _BATCH, workers, collate=list)
    with (
        progress(None, "stats", total=count, unit="image") as bar,
        plain_worker_errors(),
        quiet_decoder(),
    ):
        for batch in loader:
            for index, found in batch:
                if isinstance(found, str):
                    totals.errors[index] = found
                else:
                    totals.add(index, found, bool(pixels_of[index]))
            bar.update(len(batch))
    return totals


class _Images(Dataset[tuple[int, Measured | str]]):
    """Measured images by index; a message for unreadable ones."""

    def __init__(self, images: Sequence[Any], measure: Callable[[Any], Measured]) -> None:
        self.images, self.measure = images, measure

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, Measured | str]:
        image = self.images[key[1]]
        try:
            return key[1], self.measure(image)
        except ImageError as error:
            return key[1], describe_error(image if isinstance(image, str) else str(image), error)
