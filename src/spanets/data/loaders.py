"""Data loaders for every task: distributed samplers, worker processes and their errors."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset, Sampler

from spanets.data.ranks import RankBatches, current_rank, deals_batches
from spanets.data.sampler import EpochSampler
from spanets.data.unreadable import Unreadable
from spanets.data.worker_processes import ImageLoader
from spanets_runtime.errors import UserError, first_line, missing_memory

MAX_WORKERS_PER_CORE = 4
"""With more worker processes than this per core, they wait for each other."""


class RankSampler(Sampler[tuple[int, int]]):
    """A distributed sampler: of n processes, each draws every n-th sample of an order.

    Args:
        order: The order of all samples.
        processes: Number of processes that share the samples.
        whole: True draws every sample once, and some processes may get one sample more than
            others; if there are fewer samples than processes, every process draws all of them.
            False drops the last samples, so that all processes get the same number.
    """

    def __init__(self, order: EpochSampler, processes: int, whole: bool) -> None:
        self.order = order
        self.whole = whole
        self.processes = 1 if whole and len(order) < processes else processes
        self.seen = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch of the next iteration; Lightning calls this by itself."""
        self.order.set_epoch(epoch)

    def skip(self, samples: int) -> None:
        """Makes the next iteration, and only that one, skip this many samples of this process.

        A run that resumes within an epoch need not decode the images that it has already seen.
        `len` still returns the number of samples in the whole epoch.
        """
        self.seen = samples

    def __iter__(self) -> Iterator[tuple[int, int]]:
        first, self.seen = self.rank + self.seen * self.processes, 0
        end = first + (len(self) - first // self.processes) * self.processes
        return islice(self.order, first, end, self.processes)

    def __len__(self) -> int:
        each, rest = divmod(len(self.order), self.processes)
        return each + (self.whole and self.rank < rest)

    @property
    def rank(self) -> int:
        """The rank of this process."""
        return dist.get_rank() if self.processes > 1 else 0


class EvenBatches(Sampler[list[tuple[int, int]]]):
    """Divides the samples of this process into as many batches as every other process has.

    One process may have one sample more than another, which would fill a batch of its own. Models
    with parameters spread over processes hang if the processes run different numbers of batches.
    With a batch size of 1 the numbers can still differ.

    Args:
        share: The sampler of this process.
        size: Largest number of samples in a batch.
    """

    def __init__(self, share: RankSampler, size: int) -> None:
        self.sampler = share  # Lightning looks for this name to call `set_epoch`
        self.size = size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        samples, total, count = iter(self.sampler), len(self.sampler), len(self)
        for i in range(count):
            yield list(islice(samples, total * (i + 1) // count - total * i // count))

    def __len__(self) -> int:
        largest = -(-len(self.sampler.order) // self.sampler.processes)
        return min(-(-largest // self.size), len(self.sampler))


@dataclass(frozen=True)
class Loaders:
    """The training and the validation loader of one data set.

    Attributes:
        train, val: The loaders.
        classes: Names of the classes.
        notes: Messages about images or classes that were left out, renamed or changed.
        unreadable: The unreadable images found so far, by part; empty if none are allowed.
        split: Names of the images by part, for the run's split list; empty if the data set came
            in parts, None if it is never split.
    """

    train: DataLoader[Any]
    val: DataLoader[Any]
    classes: list[str]
    notes: tuple[str, ...] = ()
    unreadable: Mapping[str, Unreadable] = field(default_factory=dict)
    split: Mapping[str, Sequence[str]] | None = None


def make_loader(
    dataset: Dataset[Any],
    sampler: RankSampler,
    batch_size: int,
    workers: int,
    drop_last: bool = False,
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """Returns a loader of the sampler's images in batches, with worker processes.

    Within `shared_batches` it has this rank's batches of a whole evaluation.

    Args:
        dataset: A data set indexed by `(epoch, index)` pairs.
        sampler: The sampler of this process.
        batch_size: Number of samples in a batch.
        workers: Number of worker processes; 0 loads in the main process. It is limited to the
            number of batches and to `max_workers()`.
        drop_last: Whether to leave out a last batch that is not full.
        collate: Makes a batch of samples; torch's function by default.
    """
    batches: dict[str, Any] = {"batch_size": batch_size, "sampler": sampler, "drop_last": drop_last}
    if sampler.whole and sampler.processes > 1:
        batches = {"batch_sampler": EvenBatches(sampler, batch_size)}
    elif sampler.whole and deals_batches():
        batches = {"batch_sampler": RankBatches(sampler, batch_size, current_rank())}
    most = -(-len(sampler.order) // sampler.processes)  # samples of one process
    workers = min(workers, -(-most // batch_size), max_workers())
    return ImageLoader(
        dataset,
        **batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker,
    )


def shuffled_loader(
    dataset: Dataset[Any],
    batch_size: int,
    workers: int,
    processes: int,
    seed: int,
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """Returns the training loader of this process, which is shuffled in each epoch.

    The last batch of an epoch is dropped if it is not full. A data set smaller than a batch gives
    one smaller batch.

    Args:
        dataset: A data set indexed by `(epoch, index)` pairs.
        batch_size: Number of samples in a batch of one process.
        workers: See `make_loader`.
        processes: Number of processes that share the samples.
        seed: Seed of the order.
        collate: See `make_loader`.

    Raises:
        UserError: fewer samples than processes.
    """
    count: int = len(dataset)  # type: ignore[arg-type]
    if (size := min(batch_size, count // processes)) < 1:
        raise UserError(f"{count} training images are too few for {processes} devices")
    share = RankSampler(EpochSampler(count, shuffle=True, seed=seed), processes, whole=False)
    return make_loader(dataset, share, size, workers, drop_last=True, collate=collate)


def ordered_loader(
    dataset: Dataset[Any],
    batch_size: int,
    workers: int,
    processes: int = 1,
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """Returns the evaluation loader of this process, in order; see `RankSampler` with `whole`.

    Args:
        dataset: A data set indexed by `(epoch, index)` pairs.
        batch_size: Number of samples in a batch of one process.
        workers: See `make_loader`.
        processes: Number of processes that share the samples.
        collate: See `make_loader`.
    """
    order = EpochSampler(len(dataset), shuffle=False, seed=0)  # type: ignore[arg-type]
    return make_loader(
        dataset, RankSampler(order, processes, True), batch_size, workers, collate=collate
    )


def max_workers() -> int:
    """Returns the largest number of worker processes that make sense on this machine."""
    return max(16, MAX_WORKERS_PER_CORE * (os.cpu_count() or 1))


def _start_worker(_: int) -> None:
    """Ignores Ctrl-C, which the main process handles, and hides errors when that process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _report_unless_disconnected


def _report_unless_disconnected(kind: type[BaseException], *error: Any) -> None:
    if not issubclass(kind, EOFError | ConnectionError):
        sys.__excepthook__(kind, *error)


def _hide_unstarted() -> None:
    """Hides the error that torch's iterator prints when collected before its processes started."""
    before = sys.unraisablehook

    def report(unraisable: Any) -> None:
        if "_MultiProcessingDataLoaderIter" not in repr(unraisable.object):
            before(unraisable)

    sys.unraisablehook = report


@contextmanager
def plain_worker_errors() -> Iterator[None]:
    """Turns errors of worker processes into a `UserError` of one line.

    Raises:
        UserError: the process raised one, or it died.
    """
    try:
        yield
    except UserError as error:
        # torch raises it again with the worker's traceback as the message; its last line is
        # "module.Type: message".
        lines = str(error.args[0]).splitlines()
        if len(lines) < 2:
            raise
        raise type(error)(lines[-1].partition(": ")[2]) from error
    except RuntimeError as error:
        if (said := missing_memory(error)) is not None:
            _hide_unstarted()
            raise UserError(said) from error
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "a process that loads images died, perhaps for want of memory "
            f"({first_line(error)}); lower data.workers or --workers"
        ) from error
