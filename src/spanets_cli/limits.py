"""Upper limits of numbers on the command line, far above any real use.

They catch a typing error before it fills the memory or starts thousands of processes.
"""

from collections.abc import Sequence

MOST_BATCH = 2**16
MOST_SIDE = 8192  # of an image, in pixels
MOST_PIXELS = 2**30  # of a batch of generated or analysed images
MOST_COUNT = 10**9  # of classes or images; a larger number than there are means all
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
