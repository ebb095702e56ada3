"""The rank of this process among those that torchrun, or a scheduler's script, started together."""

import os
from dataclasses import dataclass

from spanets_runtime.errors import UsageError


@dataclass(frozen=True)
class Rank:
    """The place of a process among several that share a list of images.

    Attributes:
        number: From 0.
        count: Number of processes.
    """

    number: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which prints and writes."""
        return self.number == 0

    def __str__(self) -> str:
        """Returns a name for messages."""
        return f"rank {self.number} of {self.count}"


def find_rank() -> Rank:
    """Returns the rank by the environment variables RANK and WORLD_SIZE; without them, one of one.

    Raises:
        UsageError: their values do not fit together.
    """
    count = os.environ.get("WORLD_SIZE", "1")
    number = os.environ.get("RANK", "0" if count == "1" else "")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise UsageError(
            f"RANK is {number!r} and WORLD_SIZE {count!r} in the environment, allowed: RANK from "
            "0 to WORLD_SIZE - 1; set both as torchrun does, or unset both"
        )
    return Rank(int(number), int(count))
