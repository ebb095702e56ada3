"""Reports a run's unreadable images: a line at the end of an epoch, and unreadable.csv."""

import csv
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from spanets.data.unreadable import Unreadable
from spanets.runs.file_names import UNREADABLE
from spanets_runtime.files import write_atomically


class UnreadableImages(Callback):
    """Gathers the unreadable images of all processes; stops the run if there are too many.

    Args:
        folder: The run folder.
        parts: Records of unreadable images, by part of the data set.

    Attributes:
        reasons: By part and index of an image, why it cannot be read. Checkpoints carry it.
    """

    def __init__(self, folder: Path, parts: Mapping[str, Unreadable]) -> None:
        self.folder = folder
        self.parts = parts
        self.reasons: dict[str, dict[int, str]] = {name: {} for name in parts}
        self._reported = 0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reports newly found images, and stops the run if there are too many."""
        self._gather(trainer.world_size)
        if self._count() == self._reported:
            return
        self._reported = self._count()
        if trainer.is_global_zero:
            self._write()
            summary = ", ".join(
                f"{len(self.reasons[name])} of {len(part.samples)} {name} images"
                for name, part in self.parts.items()
                if self.reasons[name]
            )
            print(f"unreadable: {summary}; see {self.folder / UNREADABLE}", file=sys.stderr)
        for name, part in self.parts.items():
            found = self.reasons[name].items()
            part.check(next((f"{part.samples.images[i]}: {why}" for i, why in found), ""))

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Lists the images that this process found, so that the user can repair the data."""
        self._gather(processes=1)
        if self._count() and trainer.is_global_zero:
            self._write()

    def state_dict(self) -> dict[str, Any]:
        """Returns the state for checkpoints, with what this process found in this epoch."""
        # `self.reasons` stays unchanged, so that the end of the epoch still shares the new ones.
        reasons = {name: {**self.reasons[name], **found} for name, found in self._find().items()}
        return {"reasons": reasons, "told": self._reported, "images": self._sizes()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state, unless the number of images changed, which changes their indices."""
        sizes = self._sizes()
        if state_dict.get("images", sizes) != sizes:
            return
        self._reported = state_dict["told"]
        for name, reasons in state_dict["reasons"].items():
            self.reasons[name] = dict(reasons)
            if self.parts[name].allowed:
                self.parts[name].add(list(reasons))

    def _sizes(self) -> dict[str, int]:
        return {name: len(part.samples) for name, part in self.parts.items()}

    def _count(self) -> int:
        return sum(map(len, self.reasons.values()))

    def _find(self) -> dict[str, dict[int, str]]:
        """Returns the images that this process newly found, by part."""
        return {
            name: {i: part.reason(i) for i in part.indices() if i not in self.reasons[name]}
            for name, part in self.parts.items()
        }

    def _gather(self, processes: int) -> None:
        """Adds the newly found images of this process and, if there are several, of all."""
        new = self._find()
        everyone: list[Any] = [new]
        if processes > 1:
            everyone = [None] * processes
            dist.all_gather_object(everyone, new)
        for found in everyone:
            for name, reasons in found.items():
                self.reasons[name] = dict(sorted({**self.reasons[name], **reasons}.items()))
                self.parts[name].add(list(reasons))

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["part", "image", "reason"])
        for name, reasons in self.reasons.items():
            images = self.parts[name].samples.images
            writer.writerows([name, str(images[index]), why] for index, why in reasons.items())
        content = text.getvalue().encode("utf-8", "surrogateescape")
        write_atomically(self.folder / UNREADABLE, lambda file: file.write(content))
