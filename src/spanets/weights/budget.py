"""How much a file may make its reader allocate and compute."""

from spanets.weights.errors import WeightsError

# A pickle of a large detector with its optimizer has some 100,000.
MAX_VALUES = 1_000_000

_SPARE_BYTES = 64 * 2**20


class Budget:
    """What is left of a file's allowance.

    Tensors that share memory may have several times the file's bytes (tied weights, a state dict
    that is stored under two names); more than that are there to exhaust the reader.

    Args:
        size: Bytes of the file.
    """

    def __init__(self, size: int) -> None:
        self._bytes = 4 * size + _SPARE_BYTES
        self._values = MAX_VALUES

    def spend_values(self, count: int = 1) -> None:
        """Counts Python values that are made or copied.

        Raises:
            WeightsError: there are too many for a file of weights.
        """
        self._values -= count
        if self._values < 0:
            raise WeightsError(f"holds more than {MAX_VALUES:,} values, too many for weights")

    def spend_bytes(self, count: int) -> None:
        """Counts the bytes of tensors and texts that are made.

        Raises:
            WeightsError: there are far more than in the file.
        """
        self._bytes -= count
        if self._bytes < 0:
            raise WeightsError("declares far more values than it holds, so it is refused")
