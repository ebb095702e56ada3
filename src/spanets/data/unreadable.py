"""Images that cannot be read: so many are put up with, and each is known by its number.

Whether a data set of millions has a few damaged files is found out on the way. In training another
image takes the place of one that cannot be read, chosen by (seed, epoch, index) as all else is, so
that a run stays the same for any number of processes, and resumed. In evaluation it is left out.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import default_collate

from spanets.data.samples import Samples
from spanets_runtime.errors import UserError
from spanets_runtime.images import ImageError, load_image
from spanets_runtime.preprocessing import check_shape


class Unreadable:
    """Which images of a data set were found unreadable, by any process that loads them.

    Args:
        samples: The data set.
        share: Of its images that may be unreadable; with more the run stops.
        short_side: What shorter sides are resized to: images too elongated for it are unreadable.

    Attributes:
        allowed: Their number.
    """

    def __init__(self, samples: Samples, share: float, short_side: int | None = None) -> None:
        self.samples = samples
        self.short_side = short_side
        self.share = share
        self.allowed = int(share * len(samples))
        # Shared by the processes; with none allowed there is nothing to share.
        self._found = torch.zeros(len(samples) if self.allowed else 0, dtype=torch.bool)
        self._found.share_memory_()

    def load(self, index: int) -> Image.Image | None:
        """Decodes an image, or notes that it cannot be read.

        Raises:
            ImageError: it cannot, and none may be unreadable.
            UserError: more are unreadable than allowed.
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

    def found(self) -> list[int]:
        """Returns the numbers of the images found so far."""
        return self._found.nonzero().flatten().tolist()

    def add(self, indices: Sequence[int]) -> None:
        """Adds what other processes, or a run before a restart, have found."""
        self._found[list(indices)] = True

    def reason(self, index: int) -> str:
        """Says once more why an image cannot be read."""
        try:
            self._read(index)
        except UserError as error:
            return str(error).removeprefix(f"{self.samples.images[index]}: ")
        return "could be read at another try"

    def _read(self, index: int) -> Image.Image:
        image = load_image(self.samples.images[index])
        if self.short_side is not None:
            try:
                check_shape(image, self.short_side)
            except ImageError as error:
                raise ImageError(f"{self.samples.images[index]}: {error}") from None
        return image

    def check(self, example: str) -> None:
        """Raises a UserError if there are more than allowed."""
        count = int(self._found.sum())
        if count > self.allowed:
            raise UserError(
                f"{count} of {len(self.samples)} images cannot be read, and data.max_unreadable "
                f"{self.share} allows {self.allowed}; one is {example}"
            )


def draw_replacement(seed: int, epoch: int, index: int, attempt: int, count: int) -> int:
    """Returns the number of an image to take the place of `index`, of `count`."""
    return int(np.random.default_rng((seed, epoch, index, attempt)).integers(count))


def collate_readable(samples: list[Any]) -> Any:
    """Makes a batch of the samples that are not None, perhaps of none: (0,) images and targets."""
    kept = [sample for sample in samples if sample is not None]
    return default_collate(kept) if kept else (torch.empty(0), torch.empty(0, dtype=torch.long))
