"""Sources of several labels an image: lists in cells, columns of 0 and 1, class folders."""

import json
import shutil

import numpy as np
import pytest
from squares import draw_square, make_tags, write_table

from spanets.data.run_data import RunData
from spanets.data.sources.table import table_parts
from spanets.multilabel.data import fit_labels, read_parts
from spanets.multilabel.recipe import MultilabelData
from spanets.multilabel.tables import find_known_separator, find_separator, make_reader
from spanets_runtime.errors import UsageError, UserError


@pytest.fixture
def table(tmp_path):
    """Returns a function that writes a table, of images that are there."""

    def write(*rows: str, header: str = "file,tags"):
        for number in range(len(rows)):
            draw_square(("red",), number).save(tmp_path / f"{number}.png")
        return write_table(tmp_path / "labels.csv", [header, *rows])

    return write


def tags_of(samples) -> dict[str, set[str]]:
    """Returns the labels of each image by its name."""
    values = np.asarray(samples.targets)
    return {
        image.name: {samples.classes[i] for i in np.flatnonzero(row)}
        for image, row in zip(samples.images, values, strict=True)
    }


def read(path, **keys):
    """Reads a table or folder; returns the labels of all images, and the notes."""
    parts = read_parts(MultilabelData(root=str(path), val_fraction=0.25, **keys))
    tags = {}
    for samples in parts.values():
        tags |= tags_of(samples)
    return tags, "\n".join(parts["train"].notes)


ROWS = [("a", "b"), ("b",), (), ("a",), ("a", "b"), ("b",), (), ("a",)]
EXPECTED = {f"{i}.png": set(tags) for i, tags in enumerate(ROWS)}


@pytest.mark.parametrize("separator", ["|", ";", " | ", "; "])
def test_separated_labels(table, separator):
    path = table(*(f"{i}.png,{separator.join(tags)}" for i, tags in enumerate(ROWS)))
    tags, notes = read(path)
    assert tags == EXPECTED
    assert f"2 cells hold several labels, separated by '{separator.strip()}'" in notes
    assert "8 images, 2 labels: 2 images with several, 2 with none" in notes


@pytest.mark.parametrize("write", [json.dumps, str])
def test_lists_in_brackets(table, write):
    rows = []
    for i, tags in enumerate(ROWS):
        cell = write(list(tags)).replace('"', '""')
        rows.append(f'{i}.png,"{cell}"')
    tags, notes = read(table(*rows))
    assert tags == EXPECTED
    assert "8 cells hold lists in brackets" in notes


def test_lists_of_json_lines(tmp_path, table):
    table(*(f"{i}.png," for i in range(8)))
    lines = [json.dumps({"file": f"{i}.png", "tags": tags}) for i, tags in enumerate(ROWS)]
    assert read(write_table(tmp_path / "labels.jsonl", lines))[0] == EXPECTED


def test_broken_lists_are_reported(table):
    path = table("0.png,[a", '1.png,"[a,]"', '2.png,"[""a"", {}]"', "3.png,a")
    with pytest.raises(UserError, match=r"2 labels \(1.png \(row 3\), 2.png .*no list of texts"):
        read(path)


def test_spaces_separate_only_where_words_recur():
    clear = ["clear primary", "clear water", "primary water", "clear", "haze primary", "haze clear"]
    assert find_separator(clear, "x") == " "
    assert find_separator(["polar bear", "brown bear", "fox"], "x") is None
    assert find_separator(["a", "b"], "x") is None


def test_two_separators_must_be_chosen_from(table):
    path = table('0.png,"a, b|c"', "1.png,a", "2.png,c", "3.png,a|c")
    with pytest.raises(UsageError, match=r"'\|' in 2 and ',' in 1 different cells"):
        read(path)
    assert read(path, separator="|")[0]["0.png"] == {"a, b", "c"}


def one_hot(names=("a", "b"), extra=()):
    cells = (",".join(["1" if n[-1:] in tags else "0" for n in names]) for tags in ROWS)
    return [f"{i}.png,{cell}{''.join(extra)}" for i, cell in enumerate(cells)]


def test_columns_of_zero_and_one_are_found(table):
    path = table(*one_hot(extra=",7"), header="file,a,b,seconds")
    tags, notes = read(path)
    assert tags == EXPECTED
    assert "2 columns of 0 and 1 are labels: a, b" in notes


def test_columns_by_pattern(table):
    path = table(*one_hot(("tag_a", "tag_b"), ",1"), header="file,tag_a,tag_b,checked")
    tags, _ = read(path, label_columns=["tag_*"])
    assert tags["0.png"] == {"tag_a", "tag_b"}
    with pytest.raises(UsageError, match="no column 'tags_"):
        read(path, label_columns=["tags_a"])


def test_a_label_may_be_called_like_a_role(table):
    path = table(*one_hot(), header="file,plant,weight")
    with pytest.raises(UsageError, match="column 'plant' holds only 0 and 1: is it a label, or"):
        read(path)
    tags, _ = read(path, label_columns=["plant", "weight"])
    assert tags["0.png"] == {"plant", "weight"}
    tags, _ = read(path, columns={"group": None, "weight": None})
    assert tags["0.png"] == {"plant", "weight"}


def test_other_cells_are_reported_with_counts(table):
    path = table("0.png,1,2", "1.png,,0", "2.png,0,1", "3.png,1,1", header="file,a,b")
    with pytest.raises(UserError, match=r"a \(1, such as 1.png \(row 3\)\), b \(1, such as 0.png"):
        read(path, label_columns=["a", "b"])


def test_labels_without_training_images(table):
    rows = ["0.png,a|b,train", "1.png,b,train", "2.png,a|c,val", "3.png,a,val"]
    path = table(*rows, header="file,tags,split")
    with pytest.raises(UserError, match=r"1 labels have no training images \('c'\)"):
        read(path)


def test_an_unlabelled_test_part_is_left_out(table):
    rows = ["0.png,a|b,train", "1.png,b,train", "2.png,a,val", "3.png,,test"]
    parts = read_parts(MultilabelData(root=str(table(*rows, header="file,tags,split"))))
    assert set(parts) == {"train", "val"}
    assert any("1 images of test have no labels, left out" in n for n in parts["train"].notes)


def test_the_same_path_with_other_labels(table):
    rows = ["0.png,a|b", "0.png,b|a", "1.png,a", "1.png,b", "2.png,a", "3.png,b"]
    with pytest.raises(UserError, match=r"1 path, 1.png .*stands also in a row with another"):
        read(table(*rows))


def test_class_folders_of_links_and_copies(tmp_path):
    root = tmp_path / "photos"
    for name in ("red", "blue"):
        (root / name).mkdir(parents=True)
    for number in range(6):
        draw_square(("red",), number).save(root / f"red/{number}.png")
        draw_square(("blue",), 10 + number).save(root / f"blue/{10 + number}.png")
    (root / "blue/link.png").symlink_to(root / "red/0.png")
    shutil.copy(root / "red/1.png", root / "blue/copy.png")
    tags, notes = read(root)
    assert len(tags) == 12
    assert [n for n, t in tags.items() if len(t) == 2] != []
    assert sum(len(t) == 2 for t in tags.values()) == 2
    assert "12 images, of which 2 stand in several class folders (1 repeated as links, 1" in notes


def test_a_split_has_each_label_in_both_parts(tmp_path):
    parts = read_parts(MultilabelData(root=str(make_tags(tmp_path, 64)), val_fraction=0.25))
    for samples, share in ((parts["train"], 0.75), (parts["val"], 0.25)):
        assert np.asarray(samples.targets).sum(0).tolist() == [32 * share] * 3


def test_groups_and_folds(tmp_path):
    path = make_tags(tmp_path, 32)
    lines = path.read_text().splitlines()
    rows = [f"{line},g{i // 4}" for i, line in enumerate(lines[1:])]
    write_table(path, [f"{lines[0]},group", *rows])
    parts = read_parts(MultilabelData(root=str(path), folds=4, fold=1))
    assert not set(parts["train"].groups) & set(parts["val"].groups)
    assert len(parts["val"]) == 8


def test_the_models_labels_win(tmp_path):
    samples = read_parts(MultilabelData(root=str(make_tags(tmp_path, 16))))["train"]
    fitted = fit_labels(samples, ["red", "none", "blue", "green"])
    assert tags_of(fitted) == tags_of(samples)
    with pytest.raises(UserError, match="the model has no class 'blue'"):
        fit_labels(samples, ["red", "green"])


def test_a_recorded_split_is_followed(tmp_path):
    data = MultilabelData(root=str(make_tags(tmp_path, 16)))
    first, again = (read_parts(data, RunData(tmp_path / "run", is_new=True)) for _ in range(2))
    assert list(first["val"].names) == list(again["val"].names)


def measured(path, classes, data=None):
    """Reads the images of a table to measure a model of these labels."""
    reader = make_reader(str(path), data, classes)
    parts = table_parts(str(path), for_training=False, targets=reader)
    return tags_of(fit_labels(parts["train"], classes))


@pytest.mark.parametrize("separator", ["|", ";", " ", "; "])
@pytest.mark.parametrize("data", [None, MultilabelData(separator="|")])
def test_the_models_labels_tell_the_separator(table, separator, data):
    rows = [("clear", "primary"), ("haze", "primary", "polar bear"), ("haze",), ()]
    kept = [[name for name in row if separator != " " or " " not in name] for row in rows]
    path = table(*(f"{i}.png,{separator.join(row)}" for i, row in enumerate(kept)))
    found = measured(path, ["haze", "polar bear", "primary", "clear"], data)
    assert found == {f"{i}.png": set(row) for i, row in enumerate(kept)}
    with pytest.raises(UserError, match="the model has no class 'primary'"):
        measured(path, ["haze", "polar bear", "clear"], data)


def test_whole_names_win_over_their_words():
    assert find_known_separator(["polar bear", "bear"], ["polar", "bear", "polar bear"]) is None
    assert find_known_separator([], ["a"]) is None


def test_each_label_of_a_model_needs_its_column(table):
    path = table(*one_hot(), header="file,a,b")
    assert measured(path, ["b", "a"]) == EXPECTED
    for data in (None, MultilabelData(label_columns=["[ab]"]), MultilabelData(separator="|")):
        expected = r"no column for 1 of the model's 3 labels \(c\); it has .*add columns of 0 and 1"
        with pytest.raises(UsageError, match=expected):
            measured(path, ["a", "c", "b"], data)
    with pytest.raises(UsageError, match=r"2 labels \(c, d\); .*call the column of lists 'labels'"):
        measured(path, ["c", "d"])


def test_columns_are_matched_in_either_form_of_unicode(table):
    path = table(*one_hot(), header="file,re\u0301,b")
    assert set(measured(path, ["b", "r\u00e9"])["0.png"]) == {"b", "r\u00e9"}
