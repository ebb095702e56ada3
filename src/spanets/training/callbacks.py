"""Lightning callbacks of a run: atomic checkpoints, metric history and progress output."""

import csv
import io
import math
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, Checkpoint, WeightAveraging
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from tqdm import tqdm

from spanets.checkpoint import save_torch
from spanets.runs.file_names import BEST, HISTORY, INTERRUPTED, LAST, PREVIOUS
from spanets.training.errors import StoppedError
from spanets.training.stopping import StopRequest
from spanets.training.sums import Sums, add_sums, epoch_means, gather_sums, log_means
from spanets_runtime.files import write_atomically
from spanets_runtime.terminal import bar_colour
from spanets_runtime.text import format_duration

Row = dict[str, float]

_SUMS = "epoch_sums"
_MEANS = "epoch_means"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically; keeps the previous version of the last checkpoint."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Saves atomically; a full disk leaves what was at `path`."""
        path = Path(path)
        save_torch(checkpoint, path, path.with_name(PREVIOUS) if path.name == LAST else None)


class RunKeeper(Checkpoint):
    """Writes a run's checkpoints and its history of metrics.

    Args:
        folder: The run folder.
        score: The metric that selects the best epoch; larger is better.
        save_every: Updates between two checkpoints within an epoch; None saves only at its end.
        patience: Validations without a better score after which training stops; None never stops.

    Attributes:
        history: One row an epoch: its number from 1, the seconds of training since the start, and
            the metrics. Checkpoints carry it, and a resumed run extends it.
    """

    def __init__(
        self,
        folder: Path,
        score: str,
        save_every: int | None = None,
        patience: int | None = None,
    ) -> None:
        self.folder = folder
        self.score = score
        self.save_every = save_every
        self.patience = patience
        self.history: list[Row] = []
        self._stop = StopRequest()
        self._sums: list[Sums] = []  # metric sums of a partly trained epoch
        self._means: Row | None = None  # metric means of an epoch that awaits its validation
        self._seconds_before = 0.0
        self._started = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock, including time before a restart, and listens for stop signals."""
        self._started = time.monotonic() - self._seconds_before
        self._stop.listen(trainer)
        trainer.should_stop = self.is_over()  # a resumed run may have stopped early before
        if self._means is not None:  # Lightning resumes at the validation
            log_means(pl_module, self._means)
            trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset()
            self._means = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        """Saves within an epoch, if a save is due or a signal asks the run to stop."""
        if self._sums:  # the first batch after a restart
            add_sums(trainer, self._sums)
            self._sums = []
        updates, rest = divmod(i + 1, trainer.accumulate_grad_batches)
        # A checkpoint holds no accumulated gradients; at its end the epoch is saved anyway.
        if rest or i + 1 == trainer.num_training_batches:
            return
        stopped = self._stop.agreed(trainer)
        if stopped or (self.save_every and updates % self.save_every == 0):
            self._sums = gather_sums(trainer)
            trainer.save_checkpoint(self.folder / LAST)
            self._sums = []
        if stopped:
            raise StoppedError("stopped by a signal, all is saved")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the trained epoch, so that a failed validation loses no training."""
        self._means = epoch_means(trainer)
        trainer.save_checkpoint(self.folder / LAST)
        self._means = None
        if self._stop.agreed(trainer):
            raise StoppedError("stopped by a signal, all is saved")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the epoch, also as the best checkpoint if its score is the highest so far."""
        row = {
            "epoch": trainer.current_epoch + 1,
            "seconds": self._seconds(),
            **epoch_metrics(trainer),
        }
        self.history.append(row)
        if best_row(self.history, self.score) is row:
            trainer.save_checkpoint(self.folder / BEST)
        trainer.save_checkpoint(self.folder / LAST)
        if trainer.is_global_zero:
            table = format_history(self.history).encode()
            write_atomically(self.folder / HISTORY, lambda file: file.write(table))
        trainer.should_stop = self.is_over()
        if self._stop.agreed(trainer):
            raise StoppedError("stopped by a signal, all is saved")

    def is_over(self) -> bool:
        """Returns whether the last `patience` validations brought no better score."""
        best = best_row(self.history, self.score)
        if self.patience is None or best is None:
            return False
        validated = [row["epoch"] for row in self.history if self.score in row]
        return sum(epoch > best["epoch"] for epoch in validated) >= self.patience

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Saves the current weights when Ctrl-C, or a signal at the start, stops the run."""
        if isinstance(exception, KeyboardInterrupt | SIGTERMException):
            trainer.save_checkpoint(self.folder / INTERRUPTED)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the metric sums of a partly trained epoch, or the means of one not validated."""
        checkpoint[_SUMS] = self._sums
        if self._means is not None:
            checkpoint[_MEANS] = self._means
            # Pretend that the first validation batch has begun. If all counters were equal,
            # Lightning would skip the validation and resume at the next epoch.
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            progress["total"] |= {"ready": 1, "started": 1}

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restores the metric sums and means."""
        self._sums = checkpoint.get(_SUMS, [])
        self._means = checkpoint.get(_MEANS)

    def state_dict(self) -> dict[str, Any]:
        """Returns the history and the seconds of training, for checkpoints."""
        return {"history": self.history, "seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the history and the seconds of training."""
        self.history = state_dict["history"]
        self._seconds_before = state_dict["seconds"]

    def _seconds(self) -> float:
        return round(time.monotonic() - self._started, 1)


def best_row(history: list[Row], score: str) -> Row | None:
    """Returns the first epoch with the best score, or None if none was validated.

    The highest score is the best; of "val/loss" it is the lowest.
    """
    validated = [row for row in history if not math.isnan(row.get(score, math.nan))]
    sign = -1 if score == "val/loss" else 1
    return max(validated, key=lambda row: sign * row[score], default=None)


def epoch_metrics(trainer: L.Trainer) -> Row:
    """Returns the metrics of this epoch only; Lightning also keeps those of earlier epochs."""
    validated = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
    parts = ("train/", "val/") if validated else ("train/",)
    metrics = trainer.callback_metrics.items()
    return {name: value.item() for name, value in metrics if name.startswith(parts)}


def format_history(history: list[Row]) -> str:
    """Returns the history as CSV; a metric that an epoch lacks is an empty cell."""
    columns = dict.fromkeys(name for row in history for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


class Ema(WeightAveraging):
    """An exponential moving average of weights and buffers, updated at every step.

    It keeps frozen weights to the last bit, which Lightning's own does not, and its state is right
    in runs that stop during the validation. It is float32 even if the model is bfloat16, in which
    small steps would be lost.

    Args:
        decay: Weight of the average so far, between 0 and 1.
    """

    _swapped = False  # whether the model holds the averaged weights now

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=True, avg_fn=partial(_average, 1 - decay))
        self._exact: dict[str, Tensor] = {}  # the average, while a bfloat16 model holds it rounded

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Puts the averaged weights into the model."""
        if pl_module.dtype != torch.float32:
            found = self._find_averages(trainer, pl_module)
            self._exact = {name: value.clone() for name, value in found.items()}
        super().on_validation_epoch_start(trainer, pl_module)
        self._swapped = True

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Puts the model's own weights back."""
        super().on_validation_epoch_end(trainer, pl_module)
        self._swapped = False
        if self._exact:
            for name, value in self._find_averages(trainer, pl_module).items():
                value.copy_(self._exact[name])
            self._exact = {}

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Puts the model's own weights back before the state is saved."""
        if self._swapped:
            self.on_validation_epoch_end(trainer, pl_module)

    def _find_averages(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Tensor]:
        """Returns the averaged tensors themselves, as they go into checkpoints."""
        checkpoint: dict[str, Any] = {"state_dict": {}}
        self.on_save_checkpoint(trainer, pl_module, checkpoint)
        return checkpoint["state_dict"]


def _average(share: float, average: Tensor, value: Tensor, count: Tensor | int) -> Tensor:
    """Returns `average + share (value - average)`, which is exact where both are equal.

    Counters, such as those of batch norm, take the value.
    """
    if not average.is_floating_point():
        return value
    return torch.lerp(average, value.to(average.dtype), share)


class EpochLines(Callback):
    """Prints a line an epoch and, on a terminal, shows a progress bar during each epoch.

    Args:
        watched: Whether standard error is a terminal.
        shown: Labels of the metrics to print, by logged name. The bar shows those that Lightning
            gives to progress bars.
    """

    def __init__(self, watched: bool, shown: Mapping[str, str]) -> None:
        self.watched = watched
        self.shown = shown
        self.bar: tqdm[Any] = tqdm(disable=True)
        self.clock = Clock()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self.clock.start(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Opens the training bar."""
        self._open(_name_epoch(trainer), trainer.num_training_batches)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """Moves the training bar."""
        shown, values = {"loss": "loss", **self.shown}, trainer.progress_bar_metrics
        parts = [f"{label} {values[name]:.4f}" for name, label in shown.items() if name in values]
        self.bar.set_postfix_str("  ".join([*parts, f"left {self.clock.left(trainer)}"]), False)
        self.bar.update()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Opens the validation bar."""
        self._open(f"{_name_epoch(trainer)} validation", sum(trainer.num_val_batches))

    def on_validation_batch_end(self, *args: Any, **more: Any) -> None:
        """Moves the validation bar."""
        self.bar.update()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prints the epoch's numbers."""
        self.bar.close()
        values = epoch_metrics(trainer)
        names = self.shown.items()
        shown = [f"{label} {values[name]:.4f}" for name, label in names if name in values]
        left = f"left {self.clock.left(trainer)}"
        if trainer.is_global_zero:
            print("  ".join([_name_epoch(trainer), *shown, left]), file=sys.stderr, flush=True)

    def on_exception(self, *args: Any) -> None:
        """Closes the bar, so that the error message has its own line."""
        self.bar.close()

    def _open(self, name: str, total: float) -> None:
        self.bar.close()
        self.bar = tqdm(
            total=int(total),
            desc=name,
            disable=not self.watched,
            leave=False,
            dynamic_ncols=True,
            colour=bar_colour(),
            bar_format="{desc} {bar} {n_fmt}/{total_fmt}{postfix}",
        )


def _name_epoch(trainer: L.Trainer) -> str:
    return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"


class Clock:
    """Estimates the remaining time from the updates done since the start."""

    def __init__(self) -> None:
        self.started = 0.0
        self.first_step = 0

    def start(self, trainer: L.Trainer) -> None:
        """Starts the clock."""
        self.started = time.monotonic()
        self.first_step = trainer.global_step

    def left(self, trainer: L.Trainer) -> str:
        """Returns the remaining time as m:ss or h:mm:ss, or "?" before the first update."""
        done = trainer.global_step - self.first_step
        if not done:
            return "?"
        rate = (time.monotonic() - self.started) / done
        return format_duration(rate * (trainer.estimated_stepping_batches - trainer.global_step))
