"""The order in which samples are drawn, and the randomness of each, as functions of integers."""

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

    The data set is handed the epoch with the index, so that it can seed every random draw of an
    image's augmentation by (seed, epoch, index), see `seed_sample`. A run is then the same for
    any number of workers, and one resumed at an epoch goes on exactly as if never stopped. The
    pair carries the epoch because workers that outlive an epoch would not see it change otherwise.

    Args:
        length: number of samples.
        shuffle: whether each epoch has an order of its own; if not, it is that of the indices.
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
    """Draws a few shards at a time: they in a new order every epoch, their images shuffled.

    For shards that are slow to jump about in, or not yet here: only a window of them is read from
    at any time. Shuffling is as good as the windows are like the whole.

    Args:
        shards: number of the shard of each sample, from 0.
        window: how many shards are shuffled together.
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
    # Between two images nothing of it is in the processor's caches, and NumPy's SeedSequence took
    # 0.1 to 0.25 ms of some 3 that an image takes.
    mixed = hashlib.blake2b(struct.pack(f"<{len(key)}Q", *key), digest_size=12).digest()
    words = struct.unpack("<3I", mixed)
    random.seed(words[0])
    np.random.seed(words[1])
    # Not torch.manual_seed, which takes ten times as long and reseeds the accelerators as well.
    torch.default_generator.manual_seed(words[2])


@contextmanager
def isolated() -> Iterator[None]:
    """Puts the global generators back on leaving as they were, except in a worker.

    Without workers a data set shares the generators with the model: seeded and left so, every
    batch would decide the model's dropout too, and a run would depend on the number of workers.
    In a worker nobody else draws. Keeping the states takes ten times as long as seeding, so those
    who can do it once a batch.
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
    """Seeds as `seed_sample` does, and is `isolated`."""
    with isolated():
        seed_sample(*key)
        yield
