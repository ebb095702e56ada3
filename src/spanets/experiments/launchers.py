"""Lets processes that torchrun or SLURM started train a cell each, not one run together."""

import os
from collections.abc import MutableMapping

_PREFIXES = ("TORCHELASTIC_", "OMPI_COMM_", "PMI_", "PMIX_")
_NAMES = frozenset(
    {
        *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK"),
        *("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE"),
        *("MASTER_ADDR", "MASTER_PORT", "JSM_NAMESPACE_RANK"),
        *("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"),
    }
)


def stand_alone(environment: MutableMapping[str, str] | None = None) -> None:
    """Removes what makes Lightning join processes, and chooses the GPU by the local rank.

    It must be called before Lightning is imported and before CUDA is used.

    Args:
        environment: The environment variables; None means those of this process.
    """
    variables = os.environ if environment is None else environment
    place = variables.get("LOCAL_RANK", variables.get("SLURM_LOCALID", ""))
    if place.isdecimal():
        _choose_gpu(variables, int(place))
    for name in list(variables):
        if name in _NAMES or name.startswith(_PREFIXES):
            del variables[name]


def _choose_gpu(variables: MutableMapping[str, str], place: int) -> None:
    """Leaves one of the visible GPUs; a scheduler may have chosen it already."""
    visible = variables.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        from torch import cuda

        names = [str(i) for i in range(cuda.device_count())]
    else:
        names = [name for name in visible.split(",") if name]
    if len(names) > 1:
        variables["CUDA_VISIBLE_DEVICES"] = names[place % len(names)]
