"""What surrounds a run: checkpoints that are whole or absent, and the lines that people watch."""

import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar

from spanets.checkpoint import save_torch

LAST = "last.ckpt"
BEST = "best.ckpt"
INTERRUPTED = "interrupted.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints aside, syncs and renames them, and never runs what a file holds."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Saves atomically; a full disk leaves what was at `path`."""
        save_torch(checkpoint, path)


def checkpoint_callbacks(folder: Path) -> list[Callback]:
    """Keeps the best validated epoch by accuracy and the last one, each under one name."""
    common: dict[str, Any] = {
        "dirpath": folder,
        "save_top_k": 1,
        "enable_version_counter": False,
    }
    best = ModelCheckpoint(
        filename=Path(BEST).stem,
        monitor="val/accuracy",
        mode="max",
        save_on_train_epoch_end=False,
        **common,
    )
    # At the end of the epoch, after the scheduler's and the loops' own bookkeeping.
    last = ModelCheckpoint(filename=Path(LAST).stem, save_on_train_epoch_end=True, **common)
    return [best, last]


class SaveOnInterrupt(Callback):
    """Saves the weights as they are when Ctrl-C stops the run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Called by Lightning before it stops."""
        if isinstance(exception, KeyboardInterrupt):
            trainer.save_checkpoint(self.folder / INTERRUPTED)


class Progress(TQDMProgressBar):
    """Lightning's bar, with the time that the whole run has left."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()

    def on_train_start(self, *args: Any) -> None:
        """Starts the clock."""
        super().on_train_start(*args)
        self.clock.start(args[0])

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Shows loss, accuracy and time left."""
        items = {
            name.removeprefix("train/").replace("val/", "val_"): value
            for name, value in super().get_metrics(trainer, pl_module).items()
            if name != "v_num"
        }
        return items | {"left": self.clock.left(trainer)}


class EpochLines(Callback):
    """A line an epoch on standard error, where no terminal could show a bar."""

    def __init__(self) -> None:
        self.clock = Clock()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self.clock.start(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prints the epoch's numbers."""
        names = {"train/loss": "loss", "val/loss": "val loss", "val/accuracy": "val accuracy"}
        values = trainer.callback_metrics
        shown = [f"{label} {values[name]:.4f}" for name, label in names.items() if name in values]
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        line = "  ".join([epoch, *shown, f"left {self.clock.left(trainer)}"])
        print(line, file=sys.stderr, flush=True)


class Clock:
    """Estimates the time left from the updates done since the start."""

    def __init__(self) -> None:
        self.started = 0.0
        self.first_step = 0

    def start(self, trainer: L.Trainer) -> None:
        """Begins to count."""
        self.started = time.monotonic()
        self.first_step = trainer.global_step

    def left(self, trainer: L.Trainer) -> str:
        """Returns the time left as m:ss or h:mm:ss."""
        done = trainer.global_step - self.first_step
        if not done:
            return "?"
        rate = (time.monotonic() - self.started) / done
        return format_duration(rate * (trainer.estimated_stepping_batches - trainer.global_step))


def format_duration(seconds: float) -> str:
    """Returns m:ss or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
