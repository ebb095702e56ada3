"""Saves the batch at which the loss became NaN or infinite, for inspection."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from safetensors.torch import save
from torch import Tensor

from spanets.runs.file_names import DIVERGED
from spanets.training.errors import DivergedError
from spanets_runtime.errors import UserError
from spanets_runtime.files import write_atomically


class DivergedBatch(Callback):
    """Writes the batch of a step whose loss is not finite, and adds the path to the error message.

    The file holds images and targets as the training step receives them: for a classifier 8-bit
    pixels, before standardization, erasing and mixing. Its metadata hold the epoch and the batch,
    counted from 1, and the names of the images if the data set has them.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._batch: Any = None
        self._number = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the batch during its step."""
        self._batch, self._number = batch, batch_idx

    def on_train_batch_end(self, *args: Any) -> None:
        """Releases the batch."""
        self._batch = None

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Writes the batch if its loss ended the run."""
        if not isinstance(exception, DivergedError) or self._batch is None:
            return
        rank = f"rank{trainer.global_rank}-" if trainer.global_rank else ""
        path = self.folder / f"{rank}{DIVERGED}"
        tensors = dict(
            _flatten(dict(zip(("images", "targets", "weights"), self._batch, strict=False)))
        )
        metadata = {
            "epoch": str(trainer.current_epoch + 1),
            "batch": str(self._number + 1),
            "files": json.dumps(_name_images(trainer, self._number)),
        }
        content = save(tensors, metadata)
        with suppress(UserError):  # a full disk must not hide the error about the loss
            write_atomically(path, lambda file: file.write(content))
            exception.args = (f"{exception}; its batch is in {path}",)


def _flatten(values: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yields copies of a batch's tensors with dotted names; safetensors refuses views."""
    if isinstance(values, Tensor):
        yield name, values.detach().cpu().contiguous().clone()
        return
    if isinstance(values, Mapping):
        pairs = list(values.items())
    elif isinstance(values, list | tuple):
        pairs = list(enumerate(values))
    else:
        return
    for key, value in pairs:
        yield from _flatten(value, f"{name}.{key}" if name else str(key))


def _name_images(trainer: L.Trainer, batch: int) -> list[str]:
    """Returns the names of a batch's images, in the order in which this process drew them."""
    loader: Any = trainer.train_dataloader
    name = getattr(loader.dataset, "name", None)
    if name is None:
        return []
    loader.sampler.set_epoch(trainer.current_epoch)
    loader.sampler.skip(batch * loader.batch_size)
    drawn = islice(iter(loader.sampler), loader.batch_size)
    return [name(index) for _, index in drawn]
