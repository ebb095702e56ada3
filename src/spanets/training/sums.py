"""The sums behind the means of an epoch: exact ones, and those that Lightning does not save."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import MeanMetric

Sums = dict[str, tuple[Tensor, Tensor]]
"""By the name of what is logged: sum of the values, each times its batch's size; sum of these."""


class ExactMean(MeanMetric):
    """A mean whose sums stay in float32 in a module of any number format: bfloat16 stops at 256."""

    # torchmetrics guards its sums against `half()` and the like, but not against `to(dtype)`; both
    # call this method, and nothing public is called by them.
    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> "ExactMean":
        super()._apply(fn, *args, **kwargs)
        states: Any
        for states in (self.__dict__, self._defaults):
            states |= {name: states[name].float() for name in ("mean_value", "weight")}
        return self


def gather_sums(trainer: L.Trainer) -> list[Sums]:
    """Returns the sums of every process, by rank; all of them call this."""
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
    """Adds what was saved to what has been logged in this epoch since.

    Addition is commutative to the last bit: after the first batch of a resumed epoch the sums are
    those of the run that was never stopped. With another number of processes each takes an equal
    part, and the means are the same but for rounding.
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
    """Returns the means over the batches of an epoch, over all processes; all of them call this."""
    means = _results(trainer).metrics(on_step=False)["callback"]
    return {name: value.item() for name, value in means.items()}


def log_means(module: L.LightningModule, means: dict[str, float]) -> None:
    """Logs the means of an epoch whose batches were trained on before a restart."""
    for name, value in means.items():
        module.log(name, value, on_step=False, on_epoch=True, batch_size=1)


def _results(trainer: L.Trainer) -> Any:
    """Returns what has been logged in this epoch, by name."""
    # Lightning leaves these sums out of a checkpoint that is written within an epoch, and publishes
    # means only after the validation: a resumed epoch would lose its first batches.
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
