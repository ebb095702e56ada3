"""Tolerates a limited number of unreadable images, and records which they are.

A run discovers damaged files only when it loads them. Training replaces an unreadable image by
another, drawn from (seed, epoch, index), so that a run stays the same for any number of workers and
when resumed. Evaluation leaves it out.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from spanets.data.ranks import gather_all
from spanets.data.samples import Samples
from spanets_runtime.arrays import PixelFormat
from spanets_runtime.errors import UserError
from spanets_runtime.images import ImageError, load_image
from spanets_runtime.preprocessing import check_shape


class Unreadable:
    """The unreadable images of a data set, as found by any worker process.

    Args:
        samples: The data set.
        max_fraction: Fraction of the images that may be unreadable; with more, the run stops.
        short_side: Length in pixels to which shorter sides are resized; images too elongated for
            it count as unreadable. None skips this check.
        pixels: How images are read; None is 8-bit RGB.

    Attributes:
        allowed: Number of images that may be unreadable.
    """

    def __init__(
        self,
        samples: Samples,
        max_fraction: float,
        short_side: int | None = None,
        pixels: PixelFormat | None = None,
    ) -> None:
        self.pixels = pixels
        self.samples = samples
        self.short_side = short_side
        self.max_fraction = max_fraction
        self.allowed = int(max_fraction * len(samples))
        # In memory shared by all workers; empty if no image may be unreadable.
        self._found = torch.zeros(len(samples) if self.allowed else 0, dtype=torch.bool)
        self._found.share_memory_()

    def load(self, index: int) -> Any:
        """Decodes an image, or records it as unreadable and returns None.

        Raises:
            ImageError: it cannot be read, and no image may be unreadable.
            UserError: more images are unreadable than allowed.
        """
        try:
            return self._read(index)
        except ImageError as error:
            if not self.allowed:
                advice = "remove or replace it, or raise data.max_unreadable"
                raise ImageError(f"{error}; {advice}") from None
            self._found[index] = True
            self.check(str(error))
            return None

    def indices(self) -> list[int]:
        """Returns the indices of the unreadable images found so far."""
        return self._found.nonzero().flatten().tolist()

    def add(self, indices: Sequence[int]) -> None:
        """Adds unreadable images that other processes, or the run before a restart, have found."""
        self._found[list(indices)] = True

    def reason(self, index: int) -> str:
        """Returns the reason why an image cannot be read, by trying again."""
        try:
            self._read(index)
        except UserError as error:
            return str(error).removeprefix(f"{self.samples.images[index]}: ")
        return "could be read at a second try"

    def gather(self) -> None:
        """Adds the unreadable images that the other processes of an evaluation have found.

        Raises:
            UserError: more images are unreadable than allowed.
        """
        for indices in gather_all(self.indices()):
            self.add(indices)
        self.check("among those of other processes")

    def readable(self) -> Samples:
        """Returns the data set without the unreadable images found so far."""
        bad = set(self.indices())
        if not bad:
            return self.samples
        return self.samples.subset(i for i in range(len(self.samples)) if i not in bad)

    def describe(self) -> list[str]:
        """Returns a line with the reason for each unreadable image found so far."""
        return [f"{self.samples.images[i]}: {self.reason(i)}" for i in self.indices()]

    def _read(self, index: int) -> Any:
        source = self.samples.images[index]
        image = load_image(source) if self.pixels is None else self.pixels.read(source)
        if self.short_side is not None:
            try:
                check_shape(image, self.short_side)
            except ImageError as error:
                raise ImageError(f"{self.samples.images[index]}: {error}") from None
        return image

    def check(self, example: str) -> None:
        """Raises a UserError, with an example, if more images are unreadable than allowed."""
        count = int(self._found.sum())
        if count > self.allowed:
            raise UserError(
                f"{count} of {len(self.samples)} images cannot be read, and data.max_unreadable "
                f"{self.max_fraction} allows {self.allowed}; one is {example}"
            )


def draw_replacement(seed: int, epoch: int, index: int, attempt: int, count: int) -> int:
    """Returns the index of a replacement for image `index` in a data set of `count` images."""
    return int(np.random.default_rng((seed, epoch, index, attempt)).integers(count))


def collate_readable(samples: list[Any]) -> Any:
    """Collates the samples that are not None; without any, images and targets have shape (0,)."""
    kept = [sample for sample in samples if sample is not None]
    return default_collate(kept) if kept else (torch.empty(0), torch.empty(0, dtype=torch.long))
