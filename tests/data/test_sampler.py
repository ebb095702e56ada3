"""Order and randomness are functions of (seed, epoch, index) and of nothing else."""

import random
import timeit

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from spanets.data.sampler import (
    BalancedSampler,
    EpochSampler,
    ShardSampler,
    isolated_seed,
    seed_sample,
)


def order(seed: int, epoch: int, length: int = 50) -> list[int]:
    sampler = EpochSampler(length, shuffle=True, seed=seed)
    sampler.set_epoch(epoch)
    pairs = list(sampler)
    assert {drawn for drawn, _ in pairs} == {epoch}
    return [index for _, index in pairs]


def draws() -> tuple[float, float, float]:
    return random.random(), np.random.rand(), torch.rand(()).item()


class Draws(Dataset):
    """Returns what the augmentation of a sample would draw."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, pair: tuple[int, int]) -> torch.Tensor:
        with isolated_seed(0, *pair):
            return torch.tensor(draws(), dtype=torch.float64)


def test_unshuffled_order_is_that_of_the_indices():
    sampler = EpochSampler(4, shuffle=False, seed=0)
    sampler.set_epoch(2)
    assert list(sampler) == [(2, 0), (2, 1), (2, 2), (2, 3)]
    assert len(sampler) == 4
    assert list(EpochSampler(0, shuffle=True, seed=0)) == []


def test_every_epoch_draws_every_index_once():
    assert sorted(order(0, 5)) == list(range(50))


def test_order_depends_on_seed_and_epoch_alone():
    assert order(1, 2) == order(1, 2)
    orders = {tuple(order(seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16
    before = draws_state()
    order(1, 2)
    assert draws_state() == before


def draws_state() -> tuple:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def test_same_on_every_platform_and_version_of_numpy():
    assert order(0, 1, length=8) == [1, 3, 7, 6, 0, 4, 2, 5]


def test_an_iteration_keeps_its_epoch():
    sampler = EpochSampler(3, shuffle=True, seed=0)
    pairs = iter(sampler)
    sampler.set_epoch(1)
    assert [epoch for epoch, _ in pairs] == [0, 0, 0]


@pytest.mark.parametrize("window", [1, 2, 3, 5, 99])
def test_shards_are_drawn_a_window_at_a_time(window):
    sizes = [7, 1, 4, 9, 3]
    shards = np.random.default_rng(0).permutation(np.repeat(np.arange(5), sizes)).tolist()
    sampler = ShardSampler(shards, window, seed=0)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        order = [index for _, index in sampler]
        assert sorted(order) == list(range(sum(sizes)))
        seen = list(dict.fromkeys(shards[index] for index in order))
        rest = order
        while seen:
            now, seen = set(seen[:window]), seen[window:]
            count = sum(sizes[shard] for shard in now)
            assert {shards[index] for index in rest[:count]} == now
            rest = rest[count:]
        orders.append(order)
        assert order == [index for _, index in sampler]
    assert len(set(map(tuple, orders))) == 3


def test_no_shards():
    assert list(ShardSampler([], 2, seed=0)) == []


@pytest.mark.parametrize(("length", "seed"), [(-1, 0), (1, -1)])
def test_negative_arguments(length, seed):
    with pytest.raises(ValueError, match="negative"):
        EpochSampler(length, shuffle=True, seed=seed)


def test_seed_sample_seeds_every_generator():
    seed_sample(1, 2, 3)
    first = draws()
    seed_sample(1, 2, 3)
    assert draws() == first
    assert first == pytest.approx((0.2193185, 0.7308520, 0.2274428))


def test_neighbouring_keys_are_unrelated():
    seen = []
    for key in np.ndindex(4, 5, 5):
        seed_sample(*key)
        seen.append(draws())
    columns = np.array(seen)  # (100, 3)
    assert all(len(set(column)) == len(seen) for column in columns.T)
    # Three standard errors of the mean of 100 uniform numbers.
    assert np.abs(columns.mean(0) - 0.5).max() < 3 * (1 / 12) ** 0.5 / 10


def test_negative_key():
    with pytest.raises(ValueError):
        seed_sample(-1)


def test_isolated_seed_leaves_no_trace():
    before = draws_state()
    with pytest.raises(KeyError), isolated_seed(1, 2, 3):
        inside = draws()
        raise KeyError
    assert draws_state() == before
    seed_sample(1, 2, 3)
    assert draws() == inside


def test_seeding_costs_little_beside_decoding_an_image():
    seconds = min(timeit.repeat(lambda: seed_sample(1, 2, 3), number=100, repeat=20)) / 100
    assert seconds < 500e-6  # 13 us on a quiet machine; torch.manual_seed alone takes 150


def test_a_run_is_the_same_for_any_number_of_workers():
    def run(workers: int) -> torch.Tensor:
        sampler = EpochSampler(len(Draws()), shuffle=True, seed=0)
        loader = DataLoader(Draws(), batch_size=2, sampler=sampler, num_workers=workers)
        sampler.set_epoch(3)
        return torch.cat(list(loader))

    alone = run(0)
    assert len(alone.unique(dim=0)) == len(Draws())
    assert torch.equal(alone, run(2))


@pytest.mark.parametrize("labels", [[0] * 90 + [1] * 9 + [2], [0, 1], [0] * 5, [3, 0, 0, 3, 3]])
def test_balanced_draws_every_class_and_every_member_equally_often(labels):
    sampler = BalancedSampler(labels, seed=0)
    labels = np.asarray(labels)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        drawn = np.array([index for _, index in sampler])
        assert len(drawn) == len(labels) == len(sampler)
        per_class = [np.sum(labels[drawn] == label) for label in np.unique(labels)]
        assert max(per_class) - min(per_class) <= 1
        for label in np.unique(labels):
            times = np.bincount(drawn, minlength=len(labels))[labels == label]
            assert times.max() - times.min() <= 1


def test_balanced_order_depends_on_seed_and_epoch_alone():
    labels = [0] * 20 + [1] * 3

    def order(seed: int, epoch: int) -> list:
        sampler = BalancedSampler(labels, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
    assert list(BalancedSampler([], 0)) == []
