"""The order of samples and the random state of each, as functions of (seed, epoch, index)."""

import hashlib
import random
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import Sampler, get_worker_info


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields `(epoch, index)` pairs, in an order that depends on the seed and the epoch alone.

    The data set gets the epoch with the index, so that it can seed an image's augmentation by
    (seed, epoch, index), see `seed_sample`. A run is then the same for any number of workers, and a
    resumed run continues as if it had never stopped. The pair carries the epoch because persistent
    workers do not see an attribute of the data set change.

    Args:
        length: number of samples.
        shuffle: whether each epoch has its own random order; if not, indices ascend.
        seed: zero or more.
    """

    def __init__(self, length: int, shuffle: bool, seed: int) -> None:
        if length < 0 or seed < 0:
            raise ValueError(f"length and seed must not be negative, not {length} and {seed}")
        self.length = length
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch of the next iteration; Lightning calls this by itself."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch  # an iteration under way keeps its epoch
        order: Sequence[int] = range(self.length)
        if self.shuffle:
            order = self._shuffle(np.random.default_rng((self.seed, epoch))).tolist()
        return ((epoch, index) for index in order)

    def __len__(self) -> int:
        return self.length

    def _shuffle(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(self.length)


class ShardSampler(EpochSampler):
    """Shuffles the shards in every epoch, and the images within each window of shards.

    For shards with slow random access, or not downloaded yet: at any time samples come from one
    window only. Shuffling is good if each window is representative of the data set.

    Args:
        shards: number of the shard of each sample, from 0.
        window: number of shards that are shuffled together.
        seed: zero or more.
    """

    def __init__(self, shards: Sequence[int], window: int, seed: int) -> None:
        super().__init__(len(shards), shuffle=True, seed=seed)
        self.shards = np.asarray(shards, np.int64)
        self.window = window

    def _shuffle(self, rng: np.random.Generator) -> np.ndarray:
        places = rng.permutation(self.shards.max(initial=-1) + 1)
        windows = places[self.shards] // self.window  # (N,)
        order = rng.permutation(self.length)
        return order[np.argsort(windows[order], kind="stable")]


class BalancedSampler(EpochSampler):
    """Draws every class equally often, in each epoch as many samples as there are.

    A class with fewer samples than its part of the epoch repeats all of them before it repeats one
    again; a class with more leaves others out in each epoch. Like every order here, it depends on
    the seed and the epoch alone.

    Args:
        labels: Class of each sample, from 0.
        seed: Zero or more.
    """

    def __init__(self, labels: Sequence[int], seed: int) -> None:
        super().__init__(len(labels), shuffle=True, seed=seed)
        array = np.asarray(labels, np.int64)
        self.members = [np.flatnonzero(array == label) for label in np.unique(array)]

    def _shuffle(self, rng: np.random.Generator) -> np.ndarray:
        each, rest = divmod(self.length, max(1, len(self.members)))
        one_more = set(rng.permutation(len(self.members))[:rest].tolist())
        drawn = [
            _draw_evenly(members, each + (number in one_more), rng)
            for number, members in enumerate(self.members)
        ]
        return rng.permutation(np.concatenate(drawn)) if drawn else np.empty(0, np.int64)


def _draw_evenly(members: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws `count` members; their numbers of occurrences differ by one at most."""
    times, rest = divmod(count, len(members))
    return np.concatenate([np.repeat(members, times), rng.permutation(members)[:rest]])


def seed_sample(*key: int) -> None:
    """Seeds the global generators of `random`, NumPy and torch (CPU) from integers.

    Args:
        key: integers of zero or more, below 2^64, such as seed, epoch and index. A hash mixes
            them, so that neighbouring keys give unrelated numbers on every platform.

    Raises:
        ValueError: one is negative.
    """
    if min(key) < 0:
        raise ValueError(f"a key must not be negative: {key}")
    # With cold caches, NumPy's SeedSequence took 0.1 to 0.25 ms of the 3 ms that an image takes.
    mixed = hashlib.blake2b(struct.pack(f"<{len(key)}Q", *key), digest_size=12).digest()
    words = struct.unpack("<3I", mixed)
    random.seed(words[0])
    np.random.seed(words[1])
    # Not torch.manual_seed, which takes ten times as long and reseeds the accelerators as well.
    torch.default_generator.manual_seed(words[2])


@contextmanager
def isolated() -> Iterator[None]:
    """Restores the global random generators on exit, except in a worker process.

    Without workers, the data set shares the generators with the model. Without restoring them, each
    batch would also set the model's dropout, and a run would depend on the number of workers.
    Saving the states takes ten times as long as seeding, so do it once a batch where possible.
    """
    if get_worker_info() is not None:
        yield
        return
    states = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@contextmanager
def isolated_seed(*key: int) -> Iterator[None]:
    """Combines `isolated` and `seed_sample`."""
    with isolated():
        seed_sample(*key)
        yield
