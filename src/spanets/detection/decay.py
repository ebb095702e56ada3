"""Layer-wise learning-rate decay of the 3x runs: earlier backbone layers learn more slowly.

As in the released scripts, three blocks of the third stage count as one layer. Parameter names are
those of `DenseBackbone`.
"""

import re
from collections.abc import Iterable

from spanets_runtime.errors import UsageError

_STEM = re.compile(r"(?:^|\.)stem[._]")
_STAGE = re.compile(r"(?:^|\.)stages[._](\d)\.(?:(downsample)|blocks\.(\d+))")
BLOCKS_A_LAYER = 3


def count_layers(names: Iterable[str]) -> int:
    """Returns the number of layers of a backbone, such as 6 if the third stage has 9 blocks.

    Raises:
        UsageError: the parameters are not named by stages and blocks.
    """
    matches = [match for match in map(_STAGE.search, names) if match]
    blocks = [int(match[3]) for match in matches if match[1] == "2" and match[3]]
    if not blocks:
        raise UsageError(
            "optim.layer_decay needs a backbone whose parameters are named stages.2.blocks.0 and "
            "so on, such as spanet_small or convnext_tiny; leave it out (null)"
        )
    return 3 + -(-(max(blocks) + 1) // BLOCKS_A_LAYER)


def layer_of(name: str, layers: int) -> int:
    """Returns the layer of a parameter: 0 for the stem, `layers + 1` outside of all stages."""
    if _STEM.search(name):
        return 0
    match = _STAGE.search(name)
    if not match:
        return layers + 1
    stage = int(match[1])
    if match[2]:  # downsampling before the stage
        return (0, 2, 3, layers)[stage]
    return (1, 2, 3 + int(match[3] or 0) // BLOCKS_A_LAYER, layers)[stage]


def scale_of(name: str, layers: int, rate: float) -> float:
    """Returns the factor of a parameter's learning rate: `rate ** (layers + 1 - layer)`."""
    return rate ** (layers + 1 - layer_of(name, layers))
