"""Shares the batches of an evaluation among the processes that torchrun started.

Whole batches of the order of one process are dealt out in turn, and their results are gathered in
that order. So every number is that of one process: a batch's composition affects its rounding.
Results can be kept in a folder; an interrupted evaluation then computes only the batches that are
missing there.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Sampler

from spanets.data.kept_results import KeptLoop, KeptResults
from spanets_runtime.errors import UserError, first_line
from spanets_runtime.progress import progress
from spanets_runtime.ranks import Rank, find_rank

T = TypeVar("T")

_WAIT = timedelta(hours=2)  # one process may have to download or to list a large data set

_ALONE = Rank()

_current: ContextVar[Rank] = ContextVar("_current", default=_ALONE)
_kept: ContextVar[KeptResults | None] = ContextVar("_kept", default=None)


@contextmanager
def shared_batches(kept: KeptResults | None = None) -> Iterator[Rank]:
    """Within it, evaluation loaders load the batches of this rank; alone, nothing changes.

    All processes must do the same work within it. Results are gathered with gloo, on the CPU.

    Args:
        kept: Where results of batches are kept, a folder that all processes share; None keeps
            none. Remove it when what was made of the results is stored.

    Raises:
        UsageError: the environment names no valid rank.
        UserError: the processes cannot find each other.
    """
    rank = find_rank()
    with _joined(rank):
        before = _kept.set(kept)
        try:
            yield rank
        except KeyboardInterrupt:
            if kept is not None and rank.is_first:
                print("run the same command again to go on", file=sys.stderr)
            raise
        finally:
            _kept.reset(before)
        if kept is not None:
            gather_all(None)  # now no process reads there any more, so it may be removed


@contextmanager
def _joined(rank: Rank) -> Iterator[None]:
    """Connects the processes that share batches."""
    if rank.count == 1:
        yield
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
        yield
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


def deals_batches() -> bool:
    """Whether evaluation loaders need `RankBatches`: to share batches, or to leave some out."""
    return current_rank().count > 1 or _kept.get() is not None


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
        self.dealt: Sequence[int] = range(self.total)

    def deal(self, numbers: Sequence[int]) -> None:
        """Deals out only the batches of these numbers, which rise, from now on."""
        self.dealt = numbers

    def __iter__(self) -> Iterator[list[Any]]:
        samples, own = iter(self.samples), set(self._own())
        for number in range(self.total):
            batch = list(islice(samples, self.size))
            if number in own:
                yield batch

    def __len__(self) -> int:
        return len(self._own())

    def _own(self) -> Sequence[int]:
        return self.dealt[self.rank.number :: self.rank.count]


def in_order(loader: Iterable[Any], compute: Callable[[Any], T], title: str) -> Iterator[T]:
    """Yields a result for each batch of all processes, in the order of one process.

    Args:
        loader: The loader of this process, or any batches, which are not shared.
        compute: Function from a batch to its result: tensors on the CPU, numbers and texts, in
            tuples, lists and dictionaries. It changes nothing else, since batches whose results
            are kept are not computed again.
        title: Title of the progress bar.

    Raises:
        UserError: kept results are damaged, of another command, or not those of other processes.
    """
    shared = getattr(loader, "batch_sampler", None)
    if not isinstance(shared, RankBatches):
        yield from map(compute, progress(loader, title))
        return
    kept = _kept.get()
    if kept is None:
        yield from _compute(loader, shared, compute, title, None)
        return
    assert isinstance(loader, DataLoader)
    loop = kept.next_loop(loader.dataset, shared.size, shared.rank.number)  # type: ignore[arg-type]
    _check_agreement(kept, loop, shared)
    missing = [number for number in range(shared.total) if number not in loop.numbers]
    shared.deal(missing)
    if (unreadable := _unreadable_of(loader)) is not None:
        unreadable.add(sorted(loop.found))
    new = _compute(loader, shared, compute, title, loop)
    for number in range(shared.total):
        yield loop[number] if number in loop.numbers else next(new)


def _check_agreement(kept: KeptResults, loop: KeptLoop, shared: RankBatches) -> None:
    """Raises a UserError if the processes see different results; says how many there are."""
    first, *others = gather_all(sorted(loop.numbers))
    if any(numbers != first for numbers in others):
        raise UserError(
            f"{kept.folder}: the processes see different files there; it must be a folder that all "
            "of them share"
        )
    if loop.numbers and shared.rank.is_first:
        print(
            f"{len(loop.numbers)} of {shared.total} batches were done already ({kept.folder})",
            file=sys.stderr,
        )


def _unreadable_of(loader: Iterable[Any]) -> Any:
    """Returns the record of unreadable images of a loader's data set, or None."""
    return getattr(getattr(loader, "dataset", None), "unreadable", None)


def _compute(
    loader: Iterable[Any],
    shared: RankBatches,
    compute: Callable[[Any], T],
    title: str,
    loop: KeptLoop | None,
) -> Iterator[T]:
    """Yields the results of the batches that are dealt out, in order, and keeps own ones."""
    own, rank, unreadable = iter(progress(loader, title)), shared.rank, _unreadable_of(loader)

    def bad() -> list[int]:
        return [] if unreadable is None else unreadable.indices()

    try:
        for first in range(0, len(shared.dealt), rank.count):
            here, result = first + rank.number < len(shared.dealt), None
            if here:
                result = compute(next(own))
                if loop is not None:
                    loop.add(shared.dealt[first + rank.number], result, bad)
            yield from gather_all(result)[: len(shared.dealt) - first]  # type: ignore[misc]
    finally:
        if loop is not None:
            loop.write(bad())
