"""Limits how much memory and work a file can cause its reader."""

from spanets.weights.errors import WeightsError

# A pickle of a large detector with its optimizer has about 100,000.
MAX_VALUES = 1_000_000

_SPARE_BYTES = 64 * 2**20


class Budget:
    """The remaining memory and values that a file may use.

    Tensors that share memory may add up to several times the file's size (tied weights, or a state
    dict stored under two names). Anything beyond that is treated as an attack.

    Args:
        size: File size, in bytes.
    """

    def __init__(self, size: int) -> None:
        self._bytes = 4 * size + _SPARE_BYTES
        self._values = MAX_VALUES

    def spend_values(self, count: int = 1) -> None:
        """Counts created or copied Python values.

        Raises:
            WeightsError: too many values for a weights file.
        """
        self._values -= count
        if self._values < 0:
            raise WeightsError(f"holds more than {MAX_VALUES:,} values, too many for weights")

    def spend_bytes(self, count: int) -> None:
        """Counts the bytes of created tensors and texts.

        Raises:
            WeightsError: far more bytes than the file holds.
        """
        self._bytes -= count
        if self._bytes < 0:
            raise WeightsError("declares far more values than it holds, so it is refused")
