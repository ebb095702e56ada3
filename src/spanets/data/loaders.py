"""From a data set to batches, for every task: shares, worker processes, and their errors."""

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

from spanets.data.sampler import EpochSampler
from spanets.data.unreadable import Unreadable
from spanets.data.worker_processes import ImageLoader
from spanets_runtime.errors import UserError, first_line, missing_memory

MAX_WORKERS_PER_CORE = 4
"""Beyond these, processes that load images wait for each other."""


class Share(Sampler[tuple[int, int]]):
    """The share of an order that this process has of several: every n-th sample.

    Args:
        order: The order of all samples.
        processes: That share them.
        whole: Where they do not divide, some have a sample more, so that each sample is seen once;
            if not, the last samples are left out, so that all have as many. Of fewer samples than
            processes, which would leave some without, every process sees all.
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
        """Makes the next iteration, and no later one, begin after so many samples of this share.

        A run resumed within an epoch so goes on without decoding what it has seen. The length
        stays that of the epoch, of which the iteration is the rest.
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
        """The place of this process among those that share."""
        return dist.get_rank() if self.processes > 1 else 0


class EvenBatches(Sampler[list[tuple[int, int]]]):
    """Parts a share into as many batches as the other processes make of theirs.

    A share may be one sample longer than another, and that sample a batch of its own; models whose
    parameters are spread over processes can only be computed by all of them together. Only batches
    of one sample cannot be evened out.

    Args:
        share: Of this process.
        size: The largest batch.
    """

    def __init__(self, share: Share, size: int) -> None:
        self.sampler = share  # the name by which Lightning finds whom to tell the epoch
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
    """Loaders of one data set, for training and for validation.

    Attributes:
        train, val: The loaders.
        classes: Names of the classes.
        notes: Lines for people about what of the data set was left out, renamed or changed.
        unreadable: What their data sets find unreadable, by part, where they put up with any.
        split: Names of the images that were split, by part, for the run's list; none where the
            data set came in parts; None where it is never split.
    """

    train: DataLoader[Any]
    val: DataLoader[Any]
    classes: list[str]
    notes: tuple[str, ...] = ()
    unreadable: Mapping[str, Unreadable] = field(default_factory=dict)
    split: Mapping[str, Sequence[str]] | None = None


def make_loader(
    dataset: Dataset[Any],
    sampler: Share,
    batch_size: int,
    workers: int,
    drop_last: bool = False,
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """Loads the sampler's share of a data set in batches, in this many processes beside ours.

    Args:
        dataset: Takes `(epoch, index)` pairs.
        sampler: Which of them.
        batch_size: Samples in a batch.
        workers: Processes; 0 loads in our own. No more are started than there are batches, and no
            more than `MAX_WORKERS_PER_CORE` allows.
        drop_last: Leave out what does not fill a last batch.
        collate: Makes a batch of samples; torch's way by default.
    """
    batches: dict[str, Any] = {"batch_size": batch_size, "sampler": sampler, "drop_last": drop_last}
    if sampler.whole and sampler.processes > 1:
        batches = {"batch_sampler": EvenBatches(sampler, batch_size)}
    most = -(-len(sampler.order) // sampler.processes)  # of a share
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
    """Loads this process's share for training, each epoch in another order.

    Samples that do not fill a last batch are left out, others in every epoch. A data set smaller
    than a batch makes a smaller batch.

    Args:
        dataset: Takes `(epoch, index)` pairs.
        batch_size: Samples in a batch of one process.
        workers: As for `make_loader`.
        processes: That share the samples.
        seed: Of the order.
        collate: As for `make_loader`.

    Raises:
        UserError: fewer samples than processes.
    """
    count: int = len(dataset)  # type: ignore[arg-type]
    if (size := min(batch_size, count // processes)) < 1:
        raise UserError(f"{count} training images are too few for {processes} devices")
    share = Share(EpochSampler(count, shuffle=True, seed=seed), processes, whole=False)
    return make_loader(dataset, share, size, workers, drop_last=True, collate=collate)


def ordered_loader(
    dataset: Dataset[Any],
    batch_size: int,
    workers: int,
    processes: int = 1,
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """Loads this process's share for evaluation, in order: each sample once in one process.

    Args:
        dataset: Takes `(epoch, index)` pairs.
        batch_size: Samples in a batch of one process.
        workers: As for `make_loader`.
        processes: That share the samples.
        collate: As for `make_loader`.
    """
    order = EpochSampler(len(dataset), shuffle=False, seed=0)  # type: ignore[arg-type]
    return make_loader(dataset, Share(order, processes, True), batch_size, workers, collate=collate)


def max_workers() -> int:
    """Returns how many processes that load images this machine can use, and more."""
    return max(16, MAX_WORKERS_PER_CORE * (os.cpu_count() or 1))


def _start_worker(_: int) -> None:
    """Leaves Ctrl-C to the main process, and is silent when that one hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _report_all_but_hanging_up


def _report_all_but_hanging_up(kind: type[BaseException], *error: Any) -> None:
    if not issubclass(kind, EOFError | ConnectionError):
        sys.__excepthook__(kind, *error)


def _hide_unstarted() -> None:
    """Hides what torch's iterator says when it is cleared away, if its processes never started."""
    before = sys.unraisablehook

    def report(unraisable: Any) -> None:
        if "_MultiProcessingDataLoaderIter" not in repr(unraisable.object):
            before(unraisable)

    sys.unraisablehook = report


@contextmanager
def plain_worker_errors() -> Iterator[None]:
    """Says plainly what went wrong in a process that loads images.

    Raises:
        UserError: that which the process raised, or that it died.
    """
    try:
        yield
    except UserError as error:
        # torch raises it again with the process's traceback for a message, whose last line is
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
