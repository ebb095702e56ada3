"""Sums of an epoch's metrics, for exact means and for checkpoints within an epoch."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import MeanMetric

Sums = dict[str, tuple[Tensor, Tensor]]
"""By logged name: the sum of values times batch sizes, and the sum of batch sizes."""


class ExactMean(MeanMetric):
    """A mean whose sums stay in float32 in any module: bfloat16 cannot count past 256."""

    # torchmetrics protects its sums against `half()` and the like, but not against `to(dtype)`.
    # Both call this private method, and no public one.
    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> "ExactMean":
        super()._apply(fn, *args, **kwargs)
        states: Any
        for states in (self.__dict__, self._defaults):
            states |= {name: states[name].float() for name in ("mean_value", "weight")}
        return self


def gather_sums(trainer: L.Trainer) -> list[Sums]:
    """Returns the sums of every process, by rank; all processes must call this together."""
    own = {
        name: (metric.value.cpu(), metric.cumulated_batch_size.cpu())
        for name, metric in _means(trainer).items()
    }
    if trainer.world_size == 1:
        return [own]
    everyone: list[Any] = [None] * trainer.world_size
    dist.all_gather_object(everyone, own)
    return everyone


def add_sums(trainer: L.Trainer, saved: list[Sums]) -> None:
    """Adds saved sums to those logged in this epoch since the restart.

    The result is exact: floating-point addition is commutative, and this runs after the first batch
    of the resumed epoch. With another number of processes, each takes an equal part of the sums,
    and the means agree up to rounding.
    """
    same = len(saved) == trainer.world_size
    parts = [saved[trainer.global_rank]] if same else saved
    share = 1 if same else trainer.world_size
    for name, metric in _means(trainer).items():
        value = torch.stack([sums[name][0] for sums in parts]).sum() / share
        weight = torch.stack([sums[name][1] for sums in parts]).sum() / share
        metric.value = metric.value + value.to(metric.value.device)
        metric.cumulated_batch_size = metric.cumulated_batch_size + weight.to(metric.value.device)


def epoch_means(trainer: L.Trainer) -> dict[str, float]:
    """Returns an epoch's means over all processes; all processes must call this together."""
    means = _results(trainer).metrics(on_step=False)["callback"]
    return {name: value.item() for name, value in means.items()}


def log_means(module: L.LightningModule, means: dict[str, float]) -> None:
    """Logs the means of an epoch that was trained before a restart."""
    for name, value in means.items():
        module.log(name, value, on_step=False, on_epoch=True, batch_size=1)


def _results(trainer: L.Trainer) -> Any:
    """Returns Lightning's logged metrics of this epoch, by name."""
    # A private name: Lightning omits these sums from checkpoints within an epoch, and publishes
    # means only after the validation, so a resumed epoch would lose its first batches.
    return trainer.fit_loop.epoch_loop._results


def _means(trainer: L.Trainer) -> dict[str, Any]:
    return {
        name: metric
        for name, metric in _results(trainer).items()
        if metric.is_tensor
        and metric.meta.on_epoch
        and metric.meta.is_mean_reduction
        and not metric.has_reset
    }
