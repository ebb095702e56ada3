"""Tells of a run's unreadable images: a line at the end of an epoch, and a list in its folder."""

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
from spanets.runs.folder import UNREADABLE
from spanets_runtime.files import write_atomically


class UnreadableImages(Callback):
    """Gathers what all processes found unreadable, lists it, and stops a run that found too many.

    Args:
        folder: The run's.
        parts: What the data sets found, by part.

    Attributes:
        reasons: Why an image cannot be read, by its number, by part. Checkpoints carry it.
    """

    def __init__(self, folder: Path, parts: Mapping[str, Unreadable]) -> None:
        self.folder = folder
        self.parts = parts
        self.reasons: dict[str, dict[int, str]] = {name: {} for name in parts}
        self._told = 0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Says and lists what is new, and stops the run if it is too much."""
        self._gather(trainer.world_size)
        if self._count() == self._told:
            return
        self._told = self._count()
        if trainer.is_global_zero:
            self._write()
            told = ", ".join(
                f"{len(self.reasons[name])} of {len(part.samples)} {name} images"
                for name, part in self.parts.items()
                if self.reasons[name]
            )
            print(f"unreadable: {told}; see {self.folder / UNREADABLE}", file=sys.stderr)
        for name, part in self.parts.items():
            found = self.reasons[name].items()
            part.check(next((f"{part.samples.images[i]}: {why}" for i, why in found), ""))

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Lists what this process found, for those who mend the data."""
        self._gather(processes=1)
        if self._count() and trainer.is_global_zero:
            self._write()

    def state_dict(self) -> dict[str, Any]:
        """Returns what checkpoints carry, with what this process found since the epoch began."""
        # What is new stays new: the others are told of it at the epoch's end.
        reasons = {name: {**self.reasons[name], **found} for name, found in self._find().items()}
        return {"reasons": reasons, "told": self._told, "images": self._sizes()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores it, unless images came or went and their numbers are others'."""
        sizes = self._sizes()
        if state_dict.get("images", sizes) != sizes:
            return
        self._told = state_dict["told"]
        for name, reasons in state_dict["reasons"].items():
            self.reasons[name] = dict(reasons)
            if self.parts[name].allowed:
                self.parts[name].add(list(reasons))

    def _sizes(self) -> dict[str, int]:
        return {name: len(part.samples) for name, part in self.parts.items()}

    def _count(self) -> int:
        return sum(map(len, self.reasons.values()))

    def _find(self) -> dict[str, dict[int, str]]:
        """Returns what is new in this process, by part."""
        return {
            name: {i: part.reason(i) for i in part.found() if i not in self.reasons[name]}
            for name, part in self.parts.items()
        }

    def _gather(self, processes: int) -> None:
        """Adds what is new in this process and, where there are several, in the others."""
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
