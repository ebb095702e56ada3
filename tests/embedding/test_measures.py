"""Neighbours, probe, held-out part and copies, on vectors alone, against references."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spanets.embedding import duplicates, neighbours
from spanets.embedding.duplicates import find_duplicates, save_duplicates
from spanets.embedding.holdout import check_labels, divide, hold_out
from spanets.embedding.neighbours import TEMPERATURE, measure_knn, nearest
from spanets.embedding.probe import fit_probe, measure_probe
from spanets.embedding.vectors import Embeddings, Origin
from spanets_runtime.errors import UserError

ORIGIN = Origin("m", "pre_logits", "0", {}, False, "1")


def make(vectors, labels, parts=None, classes=None, contents=None) -> Embeddings:
    """Embeddings of images "0000", "0001", ... whose contents are their names."""
    names = [f"{i:04}" for i in range(len(vectors))]
    digests = [
        np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), np.uint8)
        for text in contents or names
    ]
    labels = np.asarray(labels, np.int32)
    classes = classes or [f"c{i}" for i in range(labels.max() + 1)]
    vectors = np.asarray(vectors, np.float32)
    return Embeddings(
        names, vectors, labels, classes, parts or [""] * len(names), np.stack(digests), ORIGIN
    )


def clouds(count=120, classes=4, spread=1.0, seed=0, size=10):
    """Vectors around one centre a class, far from the origin and of unequal scales."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    vectors = rng.normal(size=(classes, size))[labels] + spread * rng.normal(size=(count, size))
    return vectors * np.geomspace(0.1, 10, size) + 3, labels


def shuffled(given: Embeddings, seed: int = 1) -> Embeddings:
    order = np.random.default_rng(seed).permutation(len(given))
    return replace(
        given,
        paths=[given.paths[i] for i in order],
        vectors=given.vectors[order],
        labels=given.labels[order],
        parts=[given.parts[i] for i in order],
        digests=given.digests[order],
    )


def test_knn_equals_scikit_learn():
    sklearn = pytest.importorskip("sklearn.neighbors")
    found = make(*clouds(spread=1.5))
    split = hold_out(found)
    reference = sklearn.KNeighborsClassifier(
        7, weights=lambda distances: np.exp((1 - distances) / TEMPERATURE), metric="cosine"
    ).fit(found.vectors[split.train], found.labels[split.train])
    predicted = reference.predict(found.vectors[split.held_out])
    expected = (predicted == found.labels[split.held_out]).mean()
    measured = measure_knn(found, 7)
    assert measured["accuracy"] == pytest.approx(expected)
    assert 0.3 < expected < 1
    assert measured["interval"][0] < expected < measured["interval"][1]


def test_nearest_by_blocks_is_brute_force(monkeypatch):
    rng = np.random.default_rng(0)
    queries, vectors = (rng.normal(size=(n, 5)).astype(np.float32) for n in (13, 50))
    among = rng.permutation(50)[:37]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, vectors)]
    similar = unit[0] @ unit[1][among].T
    order = np.argsort(-similar, 1)[:, :4]
    monkeypatch.setattr(neighbours, "_QUERIES", 4)
    monkeypatch.setattr(
        neighbours, "blocks_of", lambda v, rows: neighbours_blocks(v, rows, numbers=35)
    )
    similarities, rows = nearest(queries, vectors, among, 4)
    assert (rows == among[order]).all()
    np.testing.assert_allclose(similarities, np.take_along_axis(similar, order, 1), atol=1e-6)
    assert nearest(queries, vectors, among, 99)[1].shape == (13, 37)


neighbours_blocks = neighbours.blocks_of


@pytest.mark.parametrize("penalty", [1.0, 1e-2])
def test_probe_equals_scikit_learn(penalty):
    linear = pytest.importorskip("sklearn.linear_model")
    found = make(*clouds(spread=1.0))
    split = hold_out(found)
    train = found.vectors[split.train].astype(np.float64)
    mean, std = train.mean(0), train.std(0)
    reference = linear.LogisticRegression(
        C=1 / (penalty * len(split.train)), tol=1e-10, max_iter=5000
    ).fit((train - mean) / std, found.labels[split.train])
    probe = fit_probe(found, split.train, penalty)
    held = found.vectors[split.held_out]
    ours, theirs = probe.logits(held).softmax(1), reference.predict_proba((held - mean) / std)
    assert probe.converged
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_probe_of_blocks_from_a_start(monkeypatch):
    """Reading the vectors again at each step, and starting elsewhere, end at the same place."""
    found = make(*clouds())
    rows = np.arange(len(found))
    expected = fit_probe(found, rows, 0.01)
    monkeypatch.setattr("spanets.embedding.probe._IN_MEMORY", 0)
    other = fit_probe(found, rows, 0.01, fit_probe(found, rows, 1.0))
    torch.testing.assert_close(other.weight, expected.weight, atol=1e-5, rtol=1e-4)


def test_separable_classes_are_learned():
    found = make(*clouds(spread=0.05))
    for measured in (measure_knn(found), measure_probe(found)):
        assert measured["accuracy"] == measured["balanced_accuracy"] == 1
        assert measured["images"] + measured["train_images"] == len(found)
        assert sum(measured["held_out_images"].values()) == measured["images"]
        assert not measured["notes"]
    assert measured["chosen_on"]


def test_order_makes_no_difference():
    found = make(*clouds(spread=2.0))
    other = shuffled(found)
    assert measure_knn(found) == measure_knn(other)
    first, second = measure_probe(found), measure_probe(other)
    assert first == second


@given(st.lists(st.integers(0, 5), min_size=2, max_size=60), st.data())
def test_an_image_keeps_its_part(labels, data):
    """Every class with two contents is on both sides; others' presence changes no large class."""
    found = make(np.zeros((len(labels), 1)), labels)
    rows = np.arange(len(labels))
    first, second = divide(found, rows, 0.25, "held out")
    assert sorted([*first, *second]) == rows.tolist()
    counts = np.bincount(labels, minlength=6)
    for label in range(6):
        inside = [int((found.labels[part] == label).sum()) for part in (first, second)]
        if counts[label] >= 2:
            assert min(inside) >= 1
        elif counts[label] == 1:
            assert inside == [1, 0]
    kept = rows[: data.draw(st.integers(1, len(labels)))]
    before = set(second.tolist())
    after = set(divide(found, kept, 0.25, "held out")[1].tolist())
    moved = {row for row in kept.tolist() if (row in before) != (row in after)}
    # Only a class that lay on one side may differ, by one image.
    assert all(sum(labels[row] == label for row in moved) <= 2 for label in range(6))


def test_copies_lie_on_one_side():
    contents = [f"{i // 5}" for i in range(100)]
    found = make(np.zeros((100, 1)), [0, 1] * 50, contents=contents)
    first, second = divide(found, np.arange(100), 0.25, "held out")
    inside = [{contents[row] for row in part} for part in (first, second)]
    assert not inside[0] & inside[1]
    single = make(np.zeros((4, 1)), [0, 0, 0, 0], contents=["a"] * 4)
    assert not len(divide(single, np.arange(4), 0.25, "held out")[1])


@pytest.mark.parametrize("names", [["train", "val"], ["train", "test"], ["train", "val", "test"]])
def test_own_parts_are_held_out(names):
    vectors, labels = clouds(90, classes=3)
    found = make(vectors, labels, parts=[names[i % len(names)] for i in range(90)])
    split = hold_out(found)
    assert {found.parts[row] for row in split.held_out} == {names[-1]}
    assert {found.parts[row] for row in split.train} == {"train"}
    assert {found.parts[row] for row in split.choosing} == ({"val"} if len(names) == 3 else set())
    assert names[-1] in split.how
    assert measure_probe(found)["images"] == 90 // len(names)


def test_what_is_not_measured_is_said():
    vectors, labels = clouds(60, classes=3)
    labels[0], labels[1] = 3, -1
    measured = measure_knn(make(vectors, labels, classes=list("abcd")), 1000)
    assert measured["recall"]["d"] is None
    assert measured["k"] == measured["train_images"]
    notes = " ".join(measured["notes"])
    for words in ("1 image without a label", "1 of 4 classes, such as d", "no more training"):
        assert words in notes


def test_a_class_without_training_images_counts_as_wrong():
    vectors, labels = clouds(40, classes=2, spread=0.01)
    labels[:4] = 2
    parts = ["val"] * 4 + ["train", "val"] * 18
    for measured in (
        measure_knn(make(vectors, labels, parts)),
        measure_probe(make(vectors, labels, parts)),
    ):
        assert measured["recall"]["c2"] == 0
        assert "1 of 3 classes have no training image" in " ".join(measured["notes"])


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ([], "no class folders"),
        (["", ""], "no class folders"),
        (["a", "a", ""], "only one class, 'a'"),
        (["a", "b", "c"], "each of the 3 classes has one"),
    ],
)
def test_too_few_classes(classes, words):
    with pytest.raises(UserError, match=words):
        check_labels(classes)


def test_few_images_are_measured():
    """Three images a class, one class with one."""
    vectors, _ = clouds(7, classes=2)
    found = make(vectors, [0, 0, 0, 1, 1, 1, 2])
    for measured in (measure_knn(found), measure_probe(found)):
        assert measured["images"] >= 2
        assert measured["recall"]["c2"] is None


def brute_pairs(found: Embeddings, threshold: float) -> set[tuple[int, int]]:
    unit = found.vectors / np.linalg.norm(found.vectors, axis=1, keepdims=True)
    similar = unit @ unit.T
    return {(i, j) for i in range(len(unit)) for j in range(i) if similar[i, j] >= threshold}


def test_pairs_by_blocks_are_all_pairs(monkeypatch):
    vectors, labels = clouds(90, spread=0.3)
    found = make(vectors, labels, parts=["train", "val", ""] * 30)
    expected = brute_pairs(found, 0.95)
    assert 50 < len(expected) < 3000
    monkeypatch.setattr(duplicates, "_ROWS", 16)
    copies = find_duplicates(found, 0.95)
    assert copies.near == len(expected)
    pairs = {(max(p.first, p.second), min(p.first, p.second)) for p in copies.pairs}
    assert pairs == expected
    parts = {(i, j) for i, j in expected if {found.parts[i], found.parts[j]} == {"train", "val"}}
    assert copies.leaks == len(parts) == len(copies.leaking(found))
    assert copies.conflicts == sum(labels[i] != labels[j] for i, j in expected)
    monkeypatch.setattr(duplicates, "MOST_PAIRS", 10)
    few = find_duplicates(found, 0.95)
    assert few.near == copies.near
    assert few.pairs == copies.pairs[:10]


def test_exact_copies_are_told_apart(tmp_path):
    vectors = np.eye(4)[[0, 0, 1, 2, 1]]
    found = make(vectors, [0, 0, 1, 1, 0], ["train", "val", "", "", ""], contents=list("aabcd"))
    copies = find_duplicates(found, 0.9)
    assert [(p.exact, p.first, p.second) for p in copies.pairs] == [(True, 0, 1), (False, 2, 4)]
    assert (copies.exact, copies.near, copies.leaks, copies.conflicts) == (1, 1, 1, 1)
    table = tmp_path / "pairs.csv"
    save_duplicates(found, copies, table)
    save_duplicates(found, copies, table)
    assert table.read_text().splitlines() == [
        "kind,cosine,first,second,first_part,second_part,first_label,second_label",
        "exact,1.0,0000,0001,train,val,c0,c0",
        "near,1.0,0002,0004,,,c1,c0",
    ]
    table.write_text("my own")
    with pytest.raises(UserError, match="did not write it"):
        save_duplicates(found, copies, table)


def test_no_pair_of_one_image():
    copies = find_duplicates(make(np.ones((1, 3)), [0]), 0.5)
    assert (copies.exact, copies.near, copies.pairs) == (0, 0, [])


def test_equal_vectors_are_pairs_at_the_highest_threshold():
    vectors = np.random.default_rng(0).normal(size=(50, 37)).repeat(2, 0)
    assert find_duplicates(make(vectors, np.zeros(100)), 1.0).near == 50
