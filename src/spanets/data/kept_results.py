"""Keeps the results of an evaluation's batches in a folder, so that an interrupted one goes on.

Each rank writes what it has computed in the last seconds as one file, aside and renamed. A file
names what its results were made from, so results of another model, of other options or of other
images are never taken. Files are read without running code in them.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch

from spanets_runtime.errors import UserError
from spanets_runtime.files import check_place, write_atomically

INTERVAL = 10.0
"""Seconds after which a rank writes its new results; at most these are lost."""

_OWN = re.compile(r"(\d{2})-\d{4}-\d{8}\.pt")


class KnownInputs(Protocol):
    """A data set that can say what its samples are made from."""

    def __len__(self) -> int:
        """Returns the number of samples."""

    def inputs(self) -> Iterable[object]:
        """Returns what the samples are made from, such as paths and labels; compared as text."""


class KeptResults:
    """The folder in which the results of a command's loops over batches are kept.

    Args:
        folder: The folder; it is created with the first results.
        facts: What determines the results besides the images, by the name for messages.
        advice: What to do if the folder has results of another command.

    Attributes:
        done: Number of batches whose results were there already, in all loops so far.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], advice: str) -> None:
        self.folder, self.facts, self.advice = folder, dict(facts), advice
        self.done = 0
        self._loops = 0
        check_place(folder / "00-0000-00000000.pt")

    def next_loop(self, images: KnownInputs, batch_size: int, rank: int) -> "KeptLoop":
        """Returns the results of the command's next loop over batches.

        Args:
            images: The data set.
            batch_size: Number of samples in a batch.
            rank: Number of this process.

        Raises:
            UserError: the folder has results of something else, or a damaged file.
        """
        number, self._loops = self._loops, self._loops + 1
        facts = {
            **self.facts,
            "batch size": batch_size,
            "images": _digest(images.inputs()),
            "number of images": len(images),
        }
        loop = KeptLoop(self.folder, number, facts, rank, self.advice)
        self.done += len(loop.numbers)
        return loop

    def remove(self) -> None:
        """Removes the results, and the folder unless it has other files."""
        for name in filter(_OWN.fullmatch, _names(self.folder)):
            with suppress(OSError):
                (self.folder / name).unlink()
        with suppress(OSError):
            self.folder.rmdir()


class KeptLoop:
    """The results of one loop, by the number of the batch.

    Attributes:
        found: Indices of unreadable images among them.
    """

    def __init__(
        self, folder: Path, loop: int, facts: Mapping[str, Any], rank: int, advice: str
    ) -> None:
        self.folder, self.facts, self.rank, self.advice = folder, facts, rank, advice
        self._prefix = f"{loop:02d}-"
        self._load = lru_cache(maxsize=64)(self._read)  # of each rank the file at work
        self._places: dict[int, Path] = {}
        self.found: set[int] = set()
        for name in sorted(_names(folder)):
            if (own := _OWN.fullmatch(name)) and own[1] == f"{loop:02d}":
                content = self._load(folder / name)
                self._places.update(dict.fromkeys(content["results"], folder / name))
                self.found.update(content["unreadable"])
        self._new: dict[int, Any] = {}
        self._written = time.monotonic()

    @property
    def numbers(self) -> Collection[int]:
        """Numbers of the batches whose results were there when the loop began."""
        return self._places.keys()

    def __getitem__(self, number: int) -> Any:
        """Returns a result that was there when the loop began."""
        return self._load(self._places[number])["results"][number]

    def add(self, number: int, result: Any, unreadable: Callable[[], list[int]]) -> None:
        """Keeps a new result, and now and then writes the new ones.

        Args:
            number: Number of the batch.
            result: Tensors, numbers and texts, in tuples, lists and dictionaries.
            unreadable: Returns the indices of the unreadable images found so far.
        """
        self._new[number] = result
        if time.monotonic() - self._written >= INTERVAL:
            self.write(unreadable())

    def write(self, unreadable: list[int]) -> None:
        """Writes the new results."""
        if self._new:
            content = {"facts": self.facts, "results": self._new, "unreadable": unreadable}
            path = self.folder / f"{self._prefix}{self.rank:04d}-{min(self._new):08d}.pt"
            write_atomically(path, lambda file: torch.save(content, file))
        self._new, self._written = {}, time.monotonic()

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            facts, results, found = (content[k] for k in ("facts", "results", "unreadable"))
            assert isinstance(facts, dict)
            assert isinstance(results, dict)
            assert isinstance(found, list)
        except Exception as error:  # whatever a damaged file makes torch raise
            raise UserError(f"{path}: damaged; remove it, and run the command again") from error
        names = dict.fromkeys([*self.facts, *facts])
        if differing := [n for n in names if facts.get(n) != self.facts.get(n)]:
            raise UserError(
                f"{self.folder}: has results of another command, which differs in "
                f"{', '.join(differing)}; finish that one, remove the folder, or {self.advice}"
            )
        return content


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _digest(inputs: Iterable[object]) -> str:
    """Returns a digest of texts and of the full paths of files."""
    found = hashlib.sha256()
    for one in inputs:
        text = os.path.abspath(one) if isinstance(one, os.PathLike) else str(one)
        found.update(text.encode(errors="surrogateescape") + b"\0")
    return found.hexdigest()
