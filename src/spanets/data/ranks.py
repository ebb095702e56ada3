"""Shares the batches of an evaluation among the processes that torchrun started.

Whole batches of the order of one process are dealt out in turn, and their results are gathered in
that order. So every number is that of one process: a batch's composition affects its rounding.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.utils.data import Sampler

from spanets_runtime.errors import UserError, first_line
from spanets_runtime.progress import progress
from spanets_runtime.ranks import Rank, find_rank

T = TypeVar("T")

_WAIT = timedelta(hours=2)  # one process may have to download or to list a large data set

_ALONE = Rank()

_current: ContextVar[Rank] = ContextVar("_current", default=_ALONE)


@contextmanager
def shared_batches() -> Iterator[Rank]:
    """Within it, evaluation loaders load the batches of this rank; alone, nothing changes.

    All processes must do the same work within it. Results are gathered with gloo, on the CPU.

    Raises:
        UsageError: the environment names no valid rank.
        UserError: the processes cannot find each other.
    """
    rank = find_rank()
    if rank.count == 1:
        yield rank
        return
    use_own_gpu()
    try:
        with _without_messages():
            dist.init_process_group("gloo", timeout=_WAIT)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{rank}: the processes cannot find each other ({first_line(error)}); start them with "
            "torchrun"
        ) from error
    token = _current.set(rank)
    try:
        yield rank
    finally:
        _current.reset(token)
        dist.destroy_process_group()


@contextmanager
def _without_messages() -> Iterator[None]:
    """Drops what libraries write to standard output, as gloo does in older versions of torch."""
    sys.stdout.flush()
    saved, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nothing)


def use_own_gpu() -> None:
    """Makes the GPU of this process' local rank the current one."""
    local = os.environ.get("LOCAL_RANK", "")
    if local.isdecimal() and torch.cuda.is_available():
        torch.cuda.set_device(int(local) % torch.cuda.device_count())


def current_rank() -> Rank:
    """Returns the rank of this process within `shared_batches`; elsewhere, one of one."""
    return _current.get()


def gather_all(value: T) -> list[T]:
    """Returns the values of all processes, by rank; all must call it together."""
    count = current_rank().count
    if count == 1:
        return [value]
    values: list[Any] = [None] * count
    dist.all_gather_object(values, value)
    return values


class RankBatches(Sampler[list[Any]]):
    """Deals out the batches of one process: of n processes, each takes every n-th batch.

    Args:
        samples: The samples of one process, in order.
        size: Largest number of samples in a batch.
        rank: This process.
    """

    def __init__(self, samples: Sampler[Any], size: int, rank: Rank) -> None:
        self.samples, self.size, self.rank = samples, size, rank
        self.total = -(-len(samples) // size)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[Any]]:
        samples = iter(self.samples)
        for number in range(self.total):
            batch = list(islice(samples, self.size))
            if number % self.rank.count == self.rank.number:
                yield batch

    def __len__(self) -> int:
        return len(range(self.rank.number, self.total, self.rank.count))


def in_order(loader: Iterable[Any], compute: Callable[[Any], T], title: str) -> Iterator[T]:
    """Yields a result for each batch of all processes, in the order of one process.

    Args:
        loader: The loader of this process, or any batches, which are not shared.
        compute: Function from a batch to its result, which must be picklable, on the CPU or not.
        title: Title of the progress bar.
    """
    batches = progress(loader, title)
    shared = getattr(loader, "batch_sampler", None)
    if not isinstance(shared, RankBatches):
        yield from map(compute, batches)
        return
    own = iter(batches)
    for first in range(0, shared.total, shared.rank.count):
        here = first + shared.rank.number < shared.total
        results = gather_all(compute(next(own)) if here else None)
        yield from results[: shared.total - first]  # type: ignore[misc]
