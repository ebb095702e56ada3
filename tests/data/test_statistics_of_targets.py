"""`spanets stats` of tables with several labels an image, and of numbers."""

import json
import shlex
import shutil
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import call
from squares import COLOURS, choose_colours, make_brightness, make_tags, write_table

from spanets.data.sources.labelled import Listed
from spanets.data.statistics import targets
from spanets.data.statistics.tables import TableKeys, _guess
from spanets.formats.statistics import describe_source
from spanets.recipe import load_recipe


@pytest.fixture
def tags(tmp_path):
    return make_tags(tmp_path / "tags", 24)


@pytest.fixture
def numbers(tmp_path):
    return make_brightness(tmp_path / "numbers", 24)


def as_columns(tags):
    """The same table with columns of 0 and 1."""
    lines = [f"file,{','.join(COLOURS)}"]
    for seed in range(24):
        bits = [str(int(colour in choose_colours(seed))) for colour in COLOURS]
        lines.append(f"{seed}.png,{','.join(bits)}")
    return write_table(tags.with_name("columns.csv"), lines)


def test_lists_and_columns_of_bits_count_the_same(tags):
    found = [describe_source(str(path))["labels"] for path in (tags, as_columns(tags))]
    for one in found:  # lists are sorted by name, columns have the order of the table
        assert one["labels"] == {colour: {"": 12} for colour in COLOURS}
        assert one["per_image"] == {"0": 3, "1": 9, "2": 9, "3": 3}
        assert one["without"] == {"": 3}
        assert {frozenset(pair["labels"]) for pair in one["pairs"]} == {
            frozenset(pair) for pair in combinations(COLOURS, 2)
        }
        assert [pair["images"] for pair in one["pairs"]] == [6, 6, 6]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), images=st.integers(1, 40), labels=st.integers(1, 8))
def test_pairs_are_counted_across_blocks(seed, images, labels):
    values = np.random.default_rng(seed).integers(0, 2, (images, labels)).astype(np.float32)
    before, targets._BLOCK = targets._BLOCK, 3
    try:
        found = targets._pairs(values)
    finally:
        targets._BLOCK = before
    expected = {
        (int((values[:, i] * values[:, j]).sum()), i, j) for i, j in combinations(range(labels), 2)
    }
    assert set(found) == {pair for pair in expected if pair[0]}
    assert [pair[0] for pair in found] == sorted((pair[0] for pair in found), reverse=True)


def test_numbers_are_those_of_numpy(numbers):
    lines = numbers.read_text().splitlines()
    lines[3] = "2.png,,n/a"
    write_table(numbers, lines)
    found = describe_source(str(numbers))
    cells = [line.split(",")[1] for line in lines[1:]]
    values = np.array([float(cell) for cell in cells if cell])
    row = found["numbers"]["brightness"][""]
    assert (row["count"], row["missing"]) == (23, 1)
    quartiles = [row[name] for name in ("min", "q1", "median", "q3", "max")]
    assert quartiles == pytest.approx(np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    assert (row["mean"], row["std"]) == pytest.approx((values.mean(), values.std()))
    assert found["numbers"]["double"][""]["missing"] == 1
    assert "1 of 24 images without a number in 'double', which training refuses" in found["odd"]
    assert any("no number in column 'double', such as 'n/a'; training" in n for n in found["notes"])
    assert found["command"] is None


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("file,tags", "a,x", ("multilabel", {})),
        ("file,label", "a,x|y", ("multilabel", {})),
        ("file,label", 'a,"[""x""]"', ("multilabel", {})),
        ("file,label", 'a,"hound, dog"', ("classification", {})),
        ("file,label", "a,3", ("classification", {})),
        ("file,label", "a,3.5", ("regression", {"targets": ["label"]})),
        ("file,label,age", "a,x,3.5", ("classification", {})),
        ("file,red,blue,split", "a,1,0,train", ("multilabel", {})),
        ("file,age,height,note", "a,3,1.7,x", ("regression", {"targets": ["age", "height"]})),
        ("file,note", "a,x", ("classification", {})),
    ],
)
def test_the_task_is_found(header, row, expected, tmp_path):
    assert _guess(write_table(tmp_path / "x.csv", [header, row]), {})[:2] == expected


def test_what_is_assumed_is_said_and_can_be_chosen(tags, numbers, capsys, refused):
    status, printed, said = call(capsys, "stats", tags, "--workers", 0)
    assert status == 0
    assert "several labels an image, because there is a column 'tags'" in said.splitlines()[0]
    assert printed.startswith(f"{tags}: 24 images, 3 labels (3 images without any)\n")
    assert "most frequent pairs: blue + green 6" in printed
    words = ["stats", numbers, "--workers", 0, "--targets", "[double]", "--json"]
    status, printed, said = call(capsys, *words)
    assert status == 0 and "read as regression" not in said
    assert list(json.loads(printed)["numbers"]) == ["double"]
    line = refused(2, *words, "--separator", "|")
    assert "--separator is for multilabel, --targets is for regression; leave one" in line
    line = refused(2, "stats", tags.parent, "--targets", "[a]")
    assert line.startswith("--targets is for --source table")
    assert "no column 'ages'" in refused(2, "stats", numbers, "--targets", "[ages]")
    mixed = write_table(numbers.with_name("m.csv"), ["file,red,age", "1.png,1,3.5", "2.png,0,4"])
    line = refused(2, "stats", mixed)
    assert "has columns of 0 and 1 (red) and of other numbers (age)" in line
    status, printed, _ = call(capsys, "stats", mixed, "--label-columns", "[red]", "--json")
    assert status == 0 and json.loads(printed)["labels"]["labels"] == {"red": {"": 1}}


def test_the_command_reads_the_same(tags, numbers, tmp_path):
    for path, key in ((as_columns(tags), "labels"), (numbers, "numbers")):
        found = describe_source(str(path), out=str(tmp_path / f"out-{key}"))
        command = shlex.split(found["command"])
        recipe = load_recipe(command[2], command[3:])
        assert recipe.task == found["task"] == command[2]
        assert recipe.data.root == str(path)
        if key == "numbers":
            assert recipe.data.targets == ["brightness", "double"]
        assert (tmp_path / f"out-{key}/sheet.png").exists()
        stored = json.loads((tmp_path / f"out-{key}/stats.json").read_text())["stats"]
        assert stored[key] == found[key]


def test_what_looks_odd(tags, numbers):
    for table, other in ((tags, "red"), (numbers, "9999,1")):
        lines = table.read_text().splitlines()
        shutil.copy(table.parent / "0.png", table.parent / "copy.png")
        write_table(table, [*lines, f"copy.png,{other}"])
    odd = describe_source(str(tags))["odd"]
    assert "1 content in images with other labels, such as 0.png and copy.png" in odd
    odd = describe_source(str(numbers))["odd"]
    assert any("with other numbers, such as 0.png and copy.png" in line for line in odd)
    assert any(line.endswith("middle half, such as copy.png (9999)") for line in odd)


def test_parts_and_folds_have_their_own_rows(tags):
    lines = tags.read_text().splitlines()
    parts = ["split", *["train"] * 16, *["val"] * 8]
    write_table(tags, [f"{line},{part}" for line, part in zip(lines, parts, strict=True)])
    found = describe_source(str(tags), table=TableKeys(task="multilabel"))
    assert found["labels"]["labels"]["red"] == {"train": 8, "val": 4}
    assert found["labels"]["without"] == {"train": 2, "val": 1}
    assert found["pixels"]["part"] == "train"


def test_images_left_out_take_their_targets_along():
    listed = Listed(names=list("abc"), groups=list("xyz"), targets=np.eye(3))
    listed.images, listed.classes, listed.parts = list("abc"), [""] * 3, [""] * 3
    listed.keep([2, 0])
    assert listed.groups == ["z", "x"]
    assert listed.targets.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_a_comma_in_a_name_leaves_no_command(numbers):
    numbers.write_text(numbers.read_text().replace("double", '"double, of it"', 1))
    found = describe_source(str(numbers))
    assert found["command"] is None
    assert any("the comma in 'double, of it'" in note for note in found["notes"])
