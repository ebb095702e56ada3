"""What a number may be at most, beyond what anyone needs: a slip is told at once.

Without a limit it fills the memory first, or starts thousands of processes.
"""

from collections.abc import Sequence

MOST_BATCH = 2**16
MOST_SIDE = 8192  # of an image, in pixels
MOST_PIXELS = 2**30  # of a batch of images that is made up, or analysed
MOST_COUNT = 10**9  # of classes or images, of which no more are used than there are
MOST_ROUNDS = 10**5
MOST_FREQUENCIES = 255


def refuse_large_batches(batches: Sequence[int], sizes: Sequence[int]) -> None:
    """Refuses a batch whose images alone would take 12 GB."""
    from spanets_runtime.errors import UsageError

    batch, size = max(batches), max(sizes)
    if batch * size**2 > MOST_PIXELS:
        raise UsageError(
            f"--batch {batch} of --size {size} has {batch * size**2:,} pixels, "
            f"allowed: {MOST_PIXELS:,}"
        )
