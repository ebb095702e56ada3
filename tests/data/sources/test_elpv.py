"""The ELPV data as installed, and what is said without it."""

import importlib.util
from collections import Counter
from types import SimpleNamespace

import pytest

from spanets.data.sources.elpv import elpv_splits, load_elpv
from spanets_runtime.errors import UserError
from spanets_runtime.images import load_image


@pytest.fixture
def installed():
    pytest.importorskip("elpv_dataset")


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """A package folder of our own in the place of the installed one."""
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def test_counts_are_those_of_the_paper(installed):
    samples = load_elpv()
    assert len(samples) == 2624
    assert samples.counts() == {"functional": 1803, "defective": 821}
    assert Counter(samples.strata) == {
        "0/mono": 588,
        "0/poly": 920,
        "0.333/mono": 117,
        "0.333/poly": 178,
        "0.667/mono": 56,
        "0.667/poly": 50,
        "1/mono": 313,
        "1/poly": 402,
    }


def test_targets_are_probabilities_that_agree_with_the_labels(installed):
    samples = load_elpv()
    for label, (functional, defective) in zip(samples.labels, samples.targets, strict=True):
        assert functional + defective == pytest.approx(1)
        assert label == (defective > functional)


def test_the_images_are_there(installed):
    samples = load_elpv()
    assert all(path.is_file() for path in samples.images)
    assert load_image(samples.images[0]).size == (300, 300)


def test_splits_are_alike_and_disjoint(installed):
    parts = elpv_splits()
    assert (len(parts["train"]), len(parts["val"])) == (1968, 656)
    assert not set(parts["train"].images) & set(parts["val"].images)
    total = Counter(load_elpv().strata)
    for stratum, count in Counter(parts["val"].strata).items():
        assert abs(count - total[stratum] / 4) < 1
    assert parts == elpv_splits(seed=0)
    assert parts != elpv_splits(seed=1)


def test_rows_become_samples(made_up):
    (made_up / "labels.csv").write_text(
        "images/cell0001.png  1.0                 mono\n"
        "images/cell0002.png  0.3333333333333333  poly\n"
    )
    samples = load_elpv()
    assert samples.images == [made_up / "images/cell0001.png", made_up / "images/cell0002.png"]
    assert samples.labels == [1, 0]
    assert samples.targets[1] == pytest.approx([2 / 3, 1 / 3])
    assert samples.strata == ["1/mono", "0.333/poly"]


def test_missing_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install elpv-dataset .*CC BY-NC-SA 4\.0"):
        load_elpv()


@pytest.mark.parametrize("content", [None, "images/cell0001.png mono\n", "a b c\n"])
def test_damaged_package(made_up, content):
    if content is not None:
        (made_up / "labels.csv").write_text(content)
    with pytest.raises(UserError, match="missing or damaged; run: pip install --force-reinstall"):
        load_elpv()
