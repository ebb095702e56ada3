"""Chooses the devices, processes and distributed strategy of a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import HalfPrecision
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from spanets.recipe import Recipe
from spanets_runtime.errors import UsageError
from spanets_runtime.machine import count_cores, most_parallel

_LAUNCHERS: dict[str, type[SLURMEnvironment | TorchElasticEnvironment]] = {
    "SLURM": SLURMEnvironment,
    "torchrun": TorchElasticEnvironment,
}


def find_launcher() -> str | None:
    """Returns the launcher that started this process, or None if Lightning or the user did."""
    return next((name for name, kind in _LAUNCHERS.items() if kind.detect()), None)


def count_processes(recipe: Recipe) -> int:
    """Returns the number of training processes: one a device, on all nodes."""
    return count_devices(recipe) * recipe.trainer.num_nodes


def count_devices(recipe: Recipe) -> int:
    """Returns the number of devices that a run uses on each node.

    Raises:
        UsageError: the launcher (SLURM, torchrun) started a different number of processes.
    """
    asked, nodes = recipe.trainer.devices, recipe.trainer.num_nodes
    name = find_launcher()
    started = _LAUNCHERS[name]().world_size() if name else None
    if asked != "auto":
        devices = asked
    elif started:
        devices = max(1, started // nodes)
    else:
        uses_gpus = recipe.trainer.accelerator in ("auto", "gpu", "cuda")
        devices = max(1, torch.cuda.device_count()) if uses_gpus else 1
    if started and started != devices * nodes:
        raise UsageError(
            f"{name} started {started} processes, but trainer.devices {devices} × "
            f"trainer.num_nodes {nodes} = {devices * nodes}; make them equal"
        )
    return devices


def fit_to_machine(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """Lowers workers and threads to what this machine supports.

    Returns:
        The recipe, and a note for each number that was lowered.
    """
    most, cores = most_parallel(), count_cores()
    notes = []
    if recipe.data.workers > most:
        notes.append(f"data.workers {recipe.data.workers} is lowered to {most}, for {cores} cores")
        recipe = replace(recipe, data=replace(recipe.data, workers=most))
    if (recipe.trainer.threads or 0) > most:
        threads = recipe.trainer.threads
        notes.append(f"trainer.threads {threads} is lowered to {most}, for {cores} cores")
        recipe = replace(recipe, trainer=replace(recipe.trainer, threads=most))
    return recipe, tuple(notes)


def per_device_batch(recipe: Recipe) -> int:
    """Returns the batch size on one device, from the batch size of an update.

    Raises:
        UsageError: the batch size is not divisible; the message shows the arithmetic.
    """
    total, accumulate = recipe.optim.batch_size, recipe.trainer.accumulate
    nodes, processes = recipe.trainer.num_nodes, count_processes(recipe)
    per_device, rest = divmod(total, processes * accumulate)
    if rest:
        raise UsageError(
            f"optim.batch_size {total} is not divisible by {processes // nodes} devices × "
            f"{nodes} nodes × {accumulate} accumulated batches = {processes * accumulate}"
        )
    return per_device


def describe_devices(recipe: Recipe) -> dict[str, Any]:
    """Returns the device and strategy arguments for Lightning's trainer.

    Raises:
        UsageError: settings that cannot be combined.
    """
    settings, strategy = recipe.trainer, recipe.trainer.strategy
    processes = count_processes(recipe)
    chosen: Any = "auto"
    if strategy == "fsdp":
        _check_sharded(recipe, processes)
        # Write one whole checkpoint file, with the same parameter names as without sharding.
        chosen = ModelParallelStrategy(processes, 1, save_distributed_checkpoint=False)
    elif strategy == "ddp" or processes > 1:
        chosen = DDPStrategy(gradient_as_bucket_view=True)
    arguments = {"devices": settings.devices, "num_nodes": settings.num_nodes, "strategy": chosen}
    if processes > 1:
        arguments["devices"] = count_devices(recipe)
        _check_processes(recipe, arguments["devices"])
    return arguments


def describe_precision(recipe: Recipe) -> dict[str, Any]:
    """Returns the argument of Lightning's trainer for the precision, or a plug-in of it."""
    if recipe.trainer.precision == "bf16-true":
        return {"plugins": [HalfPrecisionOfImages("bf16-true")]}
    return {"precision": recipe.trainer.precision, "plugins": []}


class HalfPrecisionOfImages(HalfPrecision):
    """Lightning's bfloat16 for models, which of a batch converts the images alone.

    Targets and weights stay float32: rounded ones would change the loss and the metrics.
    """

    def convert_input(self, data: Any) -> Any:
        """Converts the first entry of a batch, its images."""
        images, *rest = data
        return [super().convert_input(images), *rest]


def _check_processes(recipe: Recipe, devices: int) -> None:
    """Limits the processes on a CPU; Lightning itself checks the number of GPUs."""
    on_cpu = recipe.trainer.accelerator == "cpu" or not torch.cuda.is_available()
    if on_cpu and devices > most_parallel():
        raise UsageError(
            f"trainer.devices is {devices}, each a process on {count_cores()} cores; "
            f"allowed here: 1 to {most_parallel()}"
        )


class LimitedThreads(Callback):
    """Sets torch's number of CPU threads, after Lightning has made its own choice."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Sets the number of threads; the engine restores it with `threads_as_before`."""
        torch.set_num_threads(self.number)


@contextmanager
def threads_as_before() -> Iterator[None]:
    """Restores torch's number of threads at the end."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def slurm_plugins() -> list[SLURMEnvironment]:
    """Returns Lightning's SLURM plug-in without automatic requeueing, if SLURM is in use.

    With requeueing, Lightning would save its own checkpoint and requeue the job at SIGUSR1.
    """
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def _check_sharded(recipe: Recipe, processes: int) -> None:
    allowed = ("32-true", "bf16-mixed", "bf16-true")
    refused = {
        f"{processes} device; it needs two": processes < 2,
        f"trainer.precision {recipe.trainer.precision}; allowed: {', '.join(allowed)}": (
            recipe.trainer.precision not in allowed
        ),
        "trainer.compile": recipe.trainer.compile,
        "optim.ema_decay": recipe.optim.ema_decay is not None,
        "one image a device; raise optim.batch_size": per_device_batch(recipe) < 2,
    }
    for what, wrong in refused.items():
        if wrong:
            raise UsageError(f"trainer.strategy fsdp cannot be combined with {what}")


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Shards a model's parameters over processes with FSDP2; each block is gathered on its own.

    Args:
        model: The model. Each module in a list named "blocks" is a unit; the rest is one more.
        mesh: Lightning's device mesh, with a dimension "data_parallel".
    """
    model.to(memory_format=torch.contiguous_format)  # FSDP2 cannot shard other memory layouts
    blocks = [part for name, part in model.named_modules() if name.split(".")[-2:-1] == ["blocks"]]
    for part in (*blocks, model):
        fully_shard(part, mesh=mesh["data_parallel"])
