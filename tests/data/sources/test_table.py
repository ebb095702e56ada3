"""Tables as spreadsheets and scripts write them, and what is said of those that are wrong."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanets.classification.data import make_loaders
from spanets.classification.recipe import ClassificationData, ClassificationRecipe
from spanets.data.balanced_draw import draw_parts
from spanets.data.folds import read_folds, write_folds
from spanets.data.image_level.dataset import ImageDataset
from spanets.data.image_level.splits import read_splits
from spanets.data.image_level.tables import draw_folds
from spanets.data.run_data import RunData
from spanets.data.sources.folder import folder_splits
from spanets.data.sources.table import is_table, table_parts
from spanets.data.split_list import read_split, write_split
from spanets.data.splits import list_split
from spanets.recipe import parse_recipe
from spanets.recipe.trust import places_outside
from spanets_runtime.errors import UsageError, UserError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def make(root: Path, text: str, name: str = "labels.csv", encoding: str = "utf-8") -> str:
    path = root / name
    path.write_text(text, encoding)
    return str(path)


def numbered(root: Path, count: int, **columns) -> str:
    """A table of `count` images of two classes, with columns computed from the number."""
    columns = {"path": lambda i: f"{i}.jpg", "label": lambda i: "ab"[i % 2], **columns}
    touch(root, *(f"{i}.jpg" for i in range(count)))
    rows = [",".join(str(cell(i)) for cell in columns.values()) for i in range(count)]
    return make(root, "\n".join([",".join(columns), *rows]))


def failure(function, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def opened(samples) -> dict[str, str]:
    """The class of each image, by its name."""
    pairs = zip(samples.images, samples.labels, strict=True)
    return {path.name: samples.classes[label] for path, label in pairs}


THREE = {"1.jpg": "007", "2.jpg": "oak, red", "3.jpg": "007"}


@pytest.mark.parametrize(
    ("text", "name", "encoding"),
    [
        ('path,label\n1.jpg,007\n2.jpg,"oak, red"\n3.jpg,007\n', "t.csv", "utf-8"),
        ("path;label\r\n1.jpg;007\r\n2.jpg;oak, red\r\n3.jpg;007\r\n", "t.csv", "utf-8-sig"),
        ("sep=;\nFile Name;Label;\n1.jpg;007;\n2.jpg;oak, red;;\n3.jpg;007\n;\n", "t.csv", "utf-8"),
        ("image\tclass\n1.jpg\t007\n\n2.jpg\toak, red\n3.jpg\t007\n", "t.TSV", "utf-16"),
        ('{"file_name":"1.jpg","label":"007"}\n{"file_name":"2.jpg","label":"oak, red"}\n'
         '{"file_name":"3.jpg","label":"007","more":[1]}\n', "t.jsonl", "utf-8"),
    ],
)  # fmt: skip
def test_formats(tmp_path, text, name, encoding):
    touch(tmp_path, *THREE)
    found = table_parts(make(tmp_path, text, name, encoding))["train"]
    assert opened(found) == THREE
    assert found.classes == ["007", "oak, red"]


@pytest.mark.parametrize(
    ("header", "name"),
    [("path\tlabel\tsize, mm, or none", "t.tsv"), ('path,label,"a;b;c;d"', "t.csv")],
)
def test_delimiters_within_a_column_name(tmp_path, header, name):
    touch(tmp_path, "1.jpg", "2.jpg")
    mark = "\t" if name == "t.tsv" else ","
    rows = (mark.join(row) for row in (("1.jpg", "a", "1"), ("2.jpg", "b", "2")))
    samples = table_parts(make(tmp_path, "\n".join([header, *rows]), name))["train"]
    assert samples.classes == ["a", "b"]


def test_parquet_of_numbers_and_categories(tmp_path):
    touch(tmp_path, *THREE)
    columns = {
        "path": pyarrow.array(list(THREE)).dictionary_encode(),
        "label": pyarrow.array([7, None, 7]),
        "split": ["train", "test", "train"],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    assert "only one class, '7'" in failure(table_parts, str(tmp_path / "t.parquet"))
    columns["label"] = pyarrow.array([7, None, 8])
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    parts = table_parts(str(tmp_path / "t.parquet"))
    assert opened(parts["train"]) == {"1.jpg": "7", "3.jpg": "8"}
    assert "test" not in parts and "test have no labels" in " ".join(parts["train"].notes)


CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf"]), min_size=1).filter(
    lambda text: text == text.strip() and text.isprintable()
)


@settings(deadline=None)
@given(labels=st.lists(CELLS, min_size=2, max_size=6, unique_by=lambda s: s.casefold()))
def test_round_trip_through_each_format(tmp_path_factory, labels):
    import csv
    import unicodedata

    root = tmp_path_factory.mktemp("table")
    names = [f"{i}.jpg" for i in range(len(labels))]
    touch(root, *names)
    rows = list(zip(names, labels, strict=True))
    for name, delimiter in (("t.csv", ","), ("u.csv", ";"), ("t.tsv", "\t")):
        with (root / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=delimiter).writerows([("path", "label"), *rows])
    lines = [json.dumps({"path": path, "label": label}) for path, label in rows]
    make(root, "\n".join(lines), "t.jsonl")
    pyarrow.parquet.write_table(pyarrow.table({"path": names, "label": labels}), root / "t.parquet")
    expected = {path: unicodedata.normalize("NFC", label) for path, label in rows}
    for name in ("t.csv", "u.csv", "t.tsv", "t.jsonl", "t.parquet"):
        assert opened(table_parts(str(root / name))["train"]) == expected


def test_numbers_of_json_keep_their_text(tmp_path):
    touch(tmp_path, *THREE)
    text = '{"path":"1.jpg","label":1.50}\n{"path":"2.jpg","label":1}\n'
    samples = table_parts(make(tmp_path, text, "t.jsonl"))["train"]
    assert samples.classes == ["1", "1.50"]


def test_a_table_equals_the_folder_in_classes_order_and_split(tmp_path):
    names = [f"{c}/{i}.jpg" for c in ("oak", "Ash", "a b") for i in (10, 9, 1, 3)] + ["oak/x/1.jpg"]
    touch(tmp_path / "photos", *names)
    rows = "".join(f"{name},{name.split('/')[0]}\n" for name in sorted(names, reverse=True))
    data = ClassificationData(
        root=make(tmp_path, "path,label\n" + rows), images=str(tmp_path / "photos")
    )
    folder, table = folder_splits(tmp_path / "photos"), read_splits(data)
    for part in ("train", "val"):
        assert list(table[part].images) == list(folder[part].images)
        assert table[part].labels == folder[part].labels
        assert table[part].classes == folder[part].classes
        assert list(table[part].names) == list(folder[part].names)


def test_columns_are_found_or_named(tmp_path):
    touch(tmp_path, *THREE)
    root = make(tmp_path, "Image_ID,Species,Weight\n1,a,3\n2,b,4\n")
    assert "no column is known as label; it has Image_ID, Species" in failure(table_parts, root)
    found = table_parts(root, columns={"label": "species"})["train"]
    assert opened(found) == {"1.jpg": "a", "2.jpg": "b"} and found.weights == [3, 4]
    assert any("without its suffix" in note for note in found.notes)
    found = table_parts(root, columns={"label": "species", "weight": None})["train"]
    assert found.weights is None
    assert "did you mean 'Species'" in failure(table_parts, root, columns={"label": "Specie"})
    assert "unknown 'lable'; did you mean 'label'" in failure(
        table_parts, root, columns={"lable": "Species"}
    )
    root = make(tmp_path, "file,image,label\n1,1,a\n")
    assert "'file' and 'image' could be the path" in failure(table_parts, root)
    root = make(tmp_path, "file,label,label\n1,1,a\n")
    assert "two columns are called 'label'" in failure(table_parts, root)


def test_all_faults_are_named_at_once(tmp_path):
    touch(tmp_path, *THREE)
    rows = [
        "path,label,split,weight",
        "1.jpg,a,train,1",
        "1.jpg,b,train,1",
        "2.jpg,,train,1",
        "3.jpg,b,extra,1",
        "../x.jpg,b,train,1",
        "/etc/passwd,b,train,1",
        "https://host/x.jpg,b,train,1",
        "C:\\x.jpg,b,train,1",
        "4.jpg,b,train,1",
        "5.jpg,b,train,-1",
        ",b,train,1",
        "6.jpg,b",
        ",,,",
    ]
    said = failure(table_parts, make(tmp_path, "\n".join(rows)))
    for words in (
        "row 13 with 2, has another number of cells (the header has 4)",
        "row 12, has no path",
        "4 paths (../x.jpg (row 6), /etc/passwd (row 7), https://host/x.jpg (row 8), …) lead",
        "2 files (4.jpg (row 10), 5.jpg (row 11)) are missing",
        "'extra' (1 rows)",
        "1 label, 2.jpg (row 4), is empty",
        "1.jpg (row 3), stands also in a row with another label",
    ):
        assert words in said, said


def test_a_missing_file_is_left_out_where_unreadable_images_are_allowed(tmp_path):
    root = numbered(tmp_path, 10)
    os.remove(tmp_path / "4.jpg")
    assert "4.jpg (row 6), is missing" in failure(table_parts, root)
    found = table_parts(root, max_missing=0.1)["train"]
    assert len(found) == 9 and "1 of 10 images left out" in " ".join(found.notes)


def test_repeated_rows_count_once(tmp_path):
    touch(tmp_path, "a/1.jpg", "2.jpg")
    here = tmp_path / "a" / "1.jpg"
    root = make(tmp_path, f"path,label\na\\1.jpg,x\n./a/1.jpg,x\n{here},x \n2.jpg,y\n\n")
    found = table_parts(root)["train"]
    assert opened(found) == {"1.jpg": "x", "2.jpg": "y"}
    notes = " ".join(found.notes)
    for words in ("2 rows repeat a path", "1 paths with backslashes", "1 blank", "1 labels have"):
        assert words in notes


def test_split_column_chooses_the_parts(tmp_path):
    words = ["train", "Validation", "test_set", "TRAIN", "train"]
    root = numbered(tmp_path, 20, split=lambda i: words[i // 4])
    parts = read_splits(ClassificationData(root=root))
    assert {part: len(samples) for part, samples in parts.items()} == {
        "train": 12, "val": 4, "test": 4
    }  # fmt: skip
    assert list_split(parts) == {}
    root = numbered(tmp_path, 8, split=lambda i: "test")
    assert "all for test, none to train on" in failure(table_parts, root)
    root = numbered(tmp_path, 8, split=lambda i: "val" if i % 2 else "train")
    assert "1 classes have no training images ('b')" in failure(table_parts, root)


def test_group_in_two_given_parts_is_told(tmp_path):
    root = numbered(
        tmp_path, 12, split=lambda i: "val" if i > 7 else "train", group=lambda i: f"p{i // 5}"
    )
    notes = " ".join(read_splits(ClassificationData(root=root))["train"].notes)
    assert "1 groups are in several parts" in notes and "'p1' (train and val)" in notes


def test_weights_have_a_mean_of_one(tmp_path):
    root = numbered(tmp_path, 16, weight=lambda i: i + 1)
    data = ClassificationData(root=root)
    train = read_splits(data)["train"]
    assert np.mean(train.weights) == pytest.approx(1)
    assert "weighs the images in the training loss" in " ".join(train.notes)
    numbers = [int(path.stem) + 1 for path in train.images]
    assert np.allclose(np.array(train.weights) / train.weights[0], np.array(numbers) / numbers[0])
    assert ImageDataset(train, lambda image: image).weights is None
    data.mixup = 0.2
    recipe = ClassificationRecipe(data=data)
    assert "cannot be combined with data.mixup" in failure(make_loaders, recipe, 4)


# ---- folds and groups


@settings(deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=120),
    count=st.integers(2, 6),
    seed=st.integers(0, 99),
)
def test_folds_are_stratified_to_within_one_image(labels, count, seed):
    folds = draw_parts(labels, list(map(str, range(len(labels)))), [1 / count] * count, seed)
    for label in set(labels):
        sizes = [sum(np.equal(labels, label) & (folds == fold)) for fold in range(count)]
        assert max(sizes) - min(sizes) <= 1


@settings(deadline=None)
@given(
    groups=st.lists(st.integers(0, 12), min_size=4, max_size=80),
    count=st.integers(2, 5),
    order=st.randoms(use_true_random=False),
)
def test_groups_never_straddle_and_row_order_does_not_matter(groups, count, order):
    names = [f"g{group}" for group in groups]
    labels = [group % 3 for group in groups]
    folds = draw_parts(labels, names, [1 / count] * count, 0)
    homes = dict(zip(names, folds.tolist(), strict=True))
    assert [homes[name] for name in names] == folds.tolist()
    places = list(range(len(groups)))
    order.shuffle(places)
    again = draw_parts(
        [labels[i] for i in places], [names[i] for i in places], [1 / count] * count, 0
    )
    assert [homes[names[i]] for i in places] == again.tolist()


def test_few_images_change_their_fold_without_a_list():
    names = [f"{i}.jpg" for i in range(1000)]
    before = draw_parts([0] * 1000, names, [0.2] * 5, 0)
    after = draw_parts([0] * 900, names[100:], [0.2] * 5, 0)
    assert np.mean(before[100:] != after) < 0.08


@settings(deadline=None)
@given(gone=st.sets(st.integers(0, 39), max_size=20), come=st.integers(0, 30))
def test_recorded_folds_stay_when_images_come_and_go(tmp_path_factory, gone, come):
    root = tmp_path_factory.mktemp("folds")
    table = numbered(root, 40)
    data = ClassificationData(root=table, folds=4, fold=1)
    write_folds(root, draw_folds(data))
    write_split(root, list_split(read_splits(data)))
    folds = read_folds(root)
    before = dict(zip(folds.names, folds.numbers, strict=True))
    lines = Path(table).read_text().split("\n")
    kept = [line for i, line in enumerate(lines) if i - 1 not in gone]
    touch(root, *(f"new{i}.jpg" for i in range(come)))
    new = [f"new{i}.jpg,{'ab'[i % 2]}" for i in range(come)]
    make(root, "\n".join([kept[0], *new, *kept[1:]]))
    for split in (folds.split_list(1, root / "folds.csv"), read_split(root)):
        parts = read_splits(data, RunData(root, split=split))
        for part in ("train", "val"):
            for name in parts[part].names:
                assert (before[name] == 1) == (part == "val")
        assert sum(map(len, parts.values())) == 40 - len(gone)


def test_a_drawn_split_keeps_groups_together(tmp_path):
    root = numbered(tmp_path, 80, patient=lambda i: f"p{i // 7}")
    parts = read_splits(ClassificationData(root=root))
    groups = [set(parts[part].groups) for part in ("train", "val")]
    assert not groups[0] & groups[1] and 12 <= len(parts["val"]) <= 28
    assert "12 groups, none is in both parts" in " ".join(parts["train"].notes)


def test_images_without_a_group_are_groups_of_their_own(tmp_path):
    root = numbered(tmp_path, 80, patient=lambda i: f"p{i % 5}" if i < 20 else " " * (i % 2))
    parts = read_splits(ClassificationData(root=root))
    assert 12 <= len(parts["val"]) <= 28
    notes = " ".join(parts["train"].notes)
    assert "60 of 80 images have no group in column 'patient'; each is a group of its" in notes
    assert "65 groups, none is in both parts" in notes
    folds = np.array(draw_folds(ClassificationData(root=root, folds=4)).numbers)
    assert np.bincount(folds).tolist() == [20] * 4
    (named,) = table_parts(root, for_training=False).values()
    lone = {i.name: g for i, g in zip(named.images, named.groups, strict=True) if g[0] != "p"}
    assert len(lone) == 60 and all(name == group for name, group in lone.items())


def test_an_empty_group_column_is_none(tmp_path):
    root = numbered(tmp_path, 16, patient=lambda i: "")
    (found,) = table_parts(root).values()
    assert found.groups is None and "column 'patient' is empty" in " ".join(found.notes)


def test_fold_column(tmp_path):
    root = numbered(tmp_path, 30, fold=lambda i: -1 if i < 6 else i // 6, split=lambda i: "train")
    assert draw_folds(ClassificationData(root=root)).choices() == [1, 2, 3, 4]
    parts = read_splits(ClassificationData(root=root, fold=2))
    assert set(opened(parts["val"])) == {f"{i}.jpg" for i in range(12, 18)}
    assert len(parts["train"]) == 24
    assert "no fold 7" in failure(read_splits, ClassificationData(root=root, fold=7))
    assert "has 4 folds, and data.folds is 5" in failure(
        read_splits, ClassificationData(root=root, fold=2, folds=5)
    )
    notes = " ".join(read_splits(ClassificationData(root=root))["train"].notes)
    assert "fold column is not used" in notes
    root = numbered(tmp_path, 8, fold=lambda i: "x" if i else "1.0")
    assert "7 folds" in failure(table_parts, root)


def test_folds_leave_the_test_part_alone(tmp_path):
    root = numbered(tmp_path, 40, split=lambda i: ["train", "val", "train", "test"][i // 10])
    parts = read_splits(ClassificationData(root=root, folds=3, fold=0))
    assert len(parts["test"]) == 10 and len(parts["val"]) == 10 and len(parts["train"]) == 20
    assert "10 images of val are joined" in " ".join(parts["train"].notes)


# ---- keys


def test_keys(tmp_path):
    def check(*words: str) -> str:
        return failure(parse_recipe, {"task": "classification"}, words)

    assert "data.fold is not set" in check("--data.folds", "5")
    assert "0 to 4, or all" in check("--data.folds", "5", "--data.fold", "5")
    assert "map of texts" in check("--data.columns", "{path: 3}")
    recipe = parse_recipe(
        {"task": "classification"},
        ["--data.columns", "{path: file, group: null}", "--data.fold", "all"],
    )
    assert recipe.data.columns == {"path": "file", "group": None} and recipe.data.fold == "all"
    recipe.data.images = "//host/photos"
    assert places_outside(recipe) == {"data.images": "is an address"}
    said = failure(read_splits, ClassificationData(root=str(tmp_path), fold=1))
    assert "data.fold is for tables" in said
    with pytest.raises(UsageError, match=r"only `spanets train` runs"):
        read_splits(ClassificationData(root=numbered(tmp_path, 8), fold="all", folds=2))


def test_what_is_a_table(tmp_path):
    (tmp_path / "odd.csv").mkdir()
    touch(tmp_path, "a.xlsx")
    assert is_table("labels.CSV") and not is_table(str(tmp_path / "odd.csv"))
    assert not is_table("photos") and not is_table("https://host/labels.csv")
    assert "save it as 'CSV UTF-8'" in failure(is_table, str(tmp_path / "a.xlsx"))
    assert failure(table_parts, str(tmp_path / "no.csv")).endswith("no.csv: no such file")


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        ("path,label\nÄ.jpg,ö\n".encode("cp1252"), "t.csv", "not text in UTF-8"),
        (b'path,label\n1.jpg,"a\n2.jpg,b\n', "t.csv", "quotation mark that is not closed"),
        (b"path,label\n", "t.csv", "has no rows"),
        (b"", "t.csv", "has no rows"),
        (b"path,label\n,\n", "t.csv", "all rows are blank"),
        (b"[1]\n{\n" + b"[" * 100_000, "t.jsonl", "it has ; name the column"),
        (b"PAR1", "t.parquet", "cannot be read as parquet"),
    ],
)
def test_damaged_tables(tmp_path, content, name, words):
    (tmp_path / name).write_bytes(content)
    assert words in failure(table_parts, str(tmp_path / name))
