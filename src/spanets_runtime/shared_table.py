"""A table that several processes write together, and that an interrupted run goes on with.

The list of images is cut into chunks, whose size depends on its length alone. The rows of a chunk
are a file in the folder FILE.parts, written aside and renamed. Chunk k belongs to rank k modulo
their number, so no two ranks write the same file. The ranks share only the folder. When all chunks
are there, rank 0 joins them in order and removes the folder.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from spanets_runtime.errors import UserError
from spanets_runtime.files import check_place, try_lock, write_atomically
from spanets_runtime.listing import ImageSource
from spanets_runtime.ranks import Rank
from spanets_runtime.tables import Columns, Row, check_table, dump_row, write_rows

WAIT = 600.0
"""Seconds without a new chunk after which rank 0 gives the other ranks up."""

_POLL = 0.2
_JOB = "job.json"
_OWN = re.compile(r"\d{8}\.jsonl|rank-\d+\.lock|job\.json")


class SharedTable:
    """A table of predictions that is written in parts; open it with `with`.

    Args:
        path: Path of the table.
        images: All images, in order.
        facts: What determines the rows besides the images, for machines, by the name for messages.
        rank: This process among those that share the images.

    Attributes:
        done: Number of images whose rows were there already when the table was opened.
    """

    def __init__(
        self, path: Path, images: Sequence[ImageSource], facts: Mapping[str, Any], rank: Rank
    ) -> None:
        self.path, self.images, self.rank = path, images, rank
        self.folder = path.with_name(f"{path.name}.parts")
        self.facts = {**facts, "images": _digest(images), "number of images": len(images)}
        self.size = min(500, -(-len(images) // 256))  # images of a chunk
        self.chunks = -(-len(images) // self.size) if images else 0
        self.done = 0
        self._slowest = 0.0  # seconds that a chunk took here
        self._own: list[int] = []
        self._lock: IO[Any] | None = None

    def __enter__(self) -> "SharedTable":
        """Claims the folder of parts, and finds what is missing.

        Raises:
            UsageError: unknown suffix.
            UserError: no images, the table exists, cannot be written, or another command is at
                work on it or has left parts of it.
        """
        check_table(self.path, self.images)
        if not self.images:
            raise UserError(f"{self.path}: there are no images to predict")
        if self.rank.is_first:
            self._start()
        elif not self._follow():
            return self
        self._lock = self._claim()
        missing, self.done = self._missing(), self.stored()
        # Rank 0 removes the parts only after it has written the table.
        if self.rank.is_first or not os.path.isfile(self.path):
            self._own = [k for k in missing if k % self.rank.count == self.rank.number]
        return self

    def __exit__(self, *_: object) -> None:
        """Releases the folder, and removes it if this process, alone, wrote nothing."""
        if self._lock is None:
            return
        if self.rank.count == 1 and len(self._missing()) == self.chunks:
            self._remove()
        self._lock.close()

    @property
    def left(self) -> int:
        """Number of images that are left for this process."""
        return self._count(self._own)

    def work(self, columns: Columns, predict: Callable[..., Iterable[Any]]) -> Iterator[Row]:
        """Predicts the images that are left for this process, stores the rows and yields them.

        Raises:
            UserError: the parts cannot be written.
        """
        while self._own:
            began, rows = time.monotonic(), []
            for prediction in predict(self._images(self._own[0])):
                rows.append(columns.row(prediction))
                yield rows[-1]
            self._store(self._own[0], rows)
            del self._own[0]
            self._slowest = max(self._slowest, time.monotonic() - began)

    def stored(self) -> int:
        """Returns the number of images whose rows are stored by now."""
        return len(self.images) - self._count(self._missing())

    def waiting(self) -> str | None:
        """Returns a line about the ranks whose chunks are missing, or None."""
        missing = self._missing()
        return f"waiting for {self._describe(missing)}" if missing else None

    def wait(self) -> None:
        """Waits until all chunks are there.

        Raises:
            UserError: the other ranks write nothing any more; the message names them.
        """
        limit, seen = max(WAIT, 10 * self._slowest), self.chunks + 1
        since = time.monotonic()
        while missing := self._missing():
            if len(missing) < seen:
                seen, since = len(missing), time.monotonic()
            elif time.monotonic() - since > limit:
                raise UserError(
                    f"{self.path}: nothing new in {limit:.0f} s from {self._describe(missing)}; "
                    "run the command again to go on"
                )
            time.sleep(_POLL)

    def join(self, columns: Columns) -> list[str]:
        """Writes the table from all chunks, removes these, and returns a line for each error.

        Raises:
            UserError: the table cannot be written, or a part is damaged.
        """
        self._refuse_existing()
        errors: list[str] = []

        def rows() -> Iterator[Row]:
            for row in (row for k in range(self.chunks) for row in self._read(k)):
                if row["error"] is not None:
                    errors.append(f"{row['image']}: {row['error']}")
                yield row

        write_atomically(self.path, lambda file: write_rows(self.path, columns, rows(), file))
        self._remove()
        return errors

    def _start(self) -> None:
        """Prepares the folder of parts as rank 0."""
        self._refuse_existing()
        check_place(self.path)
        check_place(self.folder / _JOB)
        if not self._is_started():
            facts = json.dumps(self.facts, indent=1).encode()
            write_atomically(self.folder / _JOB, lambda file: file.write(facts))

    def _follow(self) -> bool:
        """Waits for rank 0's preparation; returns False if the table is complete already."""
        since = time.monotonic()
        while not os.path.isfile(self.path):
            if self._is_started():
                return True
            if time.monotonic() - since > WAIT:
                raise UserError(f"{self.path}: rank 0 has not begun within {WAIT:.0f} s")
            time.sleep(_POLL)
        return False

    def _refuse_existing(self) -> None:
        if os.path.isfile(self.path):
            raise UserError(f"{self.path}: exists; remove it, or name another --table")

    def _is_started(self) -> bool:
        """Returns whether parts of this table were begun.

        Raises:
            UserError: another command has left rows there.
        """
        differing = self._differing()
        if differing and any(name.endswith(".jsonl") for name in self._names()):
            raise UserError(
                f"{self.folder}: has rows of another command, which differs in {differing}; "
                "finish that one, remove the folder, or name another --table"
            )
        return not differing

    def _differing(self) -> str:
        """Returns the names of the facts that differ from the stored ones, or ""."""
        try:
            stored = json.loads((self.folder / _JOB).read_bytes())
        except (OSError, ValueError):
            stored = None
        if not isinstance(stored, dict):
            return "origin"
        names = dict.fromkeys([*self.facts, *stored])
        return ", ".join(n for n in names if stored.get(n) != self.facts.get(n))

    def _claim(self) -> IO[Any]:
        """Locks this rank's place, so that a command started twice does not do the work twice."""
        file = (self.folder / f"rank-{self.rank.number}.lock").open("ab")
        if try_lock(file) is False:
            file.close()
            raise UserError(f"{self.path}: another command is at work on it ({self.folder})")
        return file

    def _names(self) -> set[str]:
        try:
            return set(os.listdir(self.folder))
        except FileNotFoundError:
            return set()

    def _missing(self) -> list[int]:
        names = self._names()
        return [k for k in range(self.chunks) if self._part(k).name not in names]

    def _part(self, chunk: int) -> Path:
        return self.folder / f"{chunk:08d}.jsonl"

    def _images(self, chunk: int) -> Sequence[ImageSource]:
        return self.images[chunk * self.size : (chunk + 1) * self.size]

    def _count(self, chunks: Iterable[int]) -> int:
        return sum(len(self._images(k)) for k in chunks)

    def _describe(self, missing: Sequence[int]) -> str:
        ranks = sorted({k % self.rank.count for k in missing})
        names = ", ".join(map(str, ranks))
        images = self._count(missing)
        return (
            f"rank{'s' * (len(ranks) > 1)} {names} of {self.rank.count} "
            f"({images} image{'s' * (images > 1)})"
        )

    def _store(self, chunk: int, rows: Sequence[Row]) -> None:
        assert len(rows) == len(self._images(chunk))
        lines = b"".join(map(dump_row, rows))
        write_atomically(self._part(chunk), lambda file: file.write(lines))

    def _read(self, chunk: int) -> list[Row]:
        path = self._part(chunk)
        try:
            rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: damaged; remove it, and run the command again") from error
        if [row["image"] for row in rows] != list(map(str, self._images(chunk))):
            raise UserError(f"{path}: has rows of other images; remove it, and run again")
        return rows

    def _remove(self) -> None:
        """Removes the folder, unless somebody has put other files there."""
        for name in sorted(filter(_OWN.fullmatch, self._names())):  # parts before _JOB
            with suppress(OSError):
                (self.folder / name).unlink()
        with suppress(OSError):
            self.folder.rmdir()


def _digest(images: Sequence[ImageSource]) -> str:
    """Returns a digest of the paths, with the current folder if one is relative to it."""
    names = [os.fsencode(image) for image in images]
    if not all(map(os.path.isabs, names)):
        names.append(os.fsencode(os.getcwd()))
    return hashlib.sha256(b"\0".join(names)).hexdigest()


def describe_model(word: str, weights: str | None) -> dict[str, str | None]:
    """Returns what tells a model from others: its name, and digests of the files it is read from.

    The version of the package belongs to it, because another one may round differently.

    Raises:
        UserError: a file cannot be read.
    """
    folder = Path(word)
    files = [folder / name for name in ("config.json", "model.safetensors")]
    files += sorted(folder.glob("fold-*/*.ckpt"))  # of a cross-validation
    if not folder.is_dir():
        files = [Path(file) for file in (word, weights) if file]
        if word.endswith((".xml", ".pte", ".tflite")):  # exported, with files beside it
            files += [Path(f"{word}.json"), folder.with_suffix(".bin")]
    digests = [_digest_file(file) for file in files if file.is_file()]
    try:
        own = version("spanets")
    except PackageNotFoundError:  # a source tree that was never installed
        own = "0.0.0"
    model = " ".join(digests) or word
    return {"version of spanets": own, "model": model, "--weights": weights}


def _digest_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
