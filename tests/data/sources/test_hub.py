"""Data sets of `datasets`, in the forms in which they lie about."""

import json
from pathlib import Path

import pytest
from small_runs import make_photos

from spanets.classification.recipe import ClassificationData
from spanets.data.image_level.splits import read_splits
from spanets.data.run_data import RunData
from spanets.data.sources.folder import folder_parts
from spanets.data.sources.hub import hub_parts
from spanets.data.split_list import read_split, write_split
from spanets.data.splits import list_split
from spanets_runtime.errors import UserError
from spanets_runtime.images import ImageError, load_image

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    """Nothing is asked of the hub, nor kept in the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    make_photos(root / "train", cat=3, dog=4)
    make_photos(root / "val", cat=1, dog=2)
    return root


def table(samples, **columns):
    """A data set with the samples' images and labels, and more columns."""
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in samples.images]
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=samples.classes)}
    rows = {"image": images, "label": samples.labels}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


@pytest.fixture(scope="module")
def parts(folder):
    found = folder_parts(folder)
    return datasets.DatasetDict({"train": table(found["train"]), "validation": table(found["val"])})


def failure(*args) -> str:
    with pytest.raises(UserError) as caught:
        hub_parts(*map(str, args))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_samples_are_those_of_the_folder(form, parts, folder, tmp_path):
    if form == "saved":
        parts.save_to_disk(tmp_path / "set")
    else:
        for name, rows in parts.items():
            (tmp_path / "set").mkdir(exist_ok=True)
            rows.to_parquet(tmp_path / f"set/{name}-00000-of-00001.parquet")
    found, before = hub_parts(str(tmp_path / "set")), folder_parts(folder)
    assert list(found) == ["train", "val"]
    for name, samples in found.items():
        assert samples.labels == before[name].labels
        assert samples.classes == ["cat", "dog"]
        assert [i.read() for i in samples.images] == [p.read_bytes() for p in before[name].images]
    assert str(found["train"].images[2]) == f"{tmp_path}/set, train: row 2"
    assert load_image(found["train"].images[2]).size == (40, 40)
    assert samples.images[1:][0].read() == samples.images[1].read()


def test_one_part_alone_is_for_training(parts, tmp_path):
    parts["train"].save_to_disk(tmp_path / "set")
    assert list(hub_parts(str(tmp_path / "set"))) == ["train"]


@pytest.mark.parametrize(
    ("values", "labels", "classes"),
    [
        (["dog", "cat", "dog"], [1, 0, 1], ["cat", "dog"]),
        ([0, 3, 1], [0, 3, 1], ["0", "1", "2", "3"]),
        ([True, False, True], [1, 0, 1], ["0", "1"]),
    ],
)
def test_labels_without_names(values, labels, classes, parts, tmp_path):
    rows = parts["train"].select(range(3)).remove_columns("label").add_column("kind", values)
    rows.save_to_disk(tmp_path / "set")
    line = failure(tmp_path / "set")
    assert line.endswith(
        "none of image, kind is the label; name the column: --data.label_column NAME"
    )
    samples = hub_parts(str(tmp_path / "set"), None, "kind")["train"]
    assert samples.labels == labels
    assert all(type(label) is int for label in samples.labels)
    assert samples.classes == classes


def test_columns_that_may_all_be_meant(parts, tmp_path):
    rows = parts["train"].add_column("coarse", parts["train"]["label"][:])
    rows = rows.cast_column("coarse", datasets.ClassLabel(names=["a", "b"]))
    rows.save_to_disk(tmp_path / "set")
    assert "label and coarse could be the label; name the column" in failure(tmp_path / "set")
    samples = hub_parts(str(tmp_path / "set"), "image", "coarse")["train"]
    assert samples.classes == ["a", "b"]


def test_columns_that_are_not_there(parts, tmp_path):
    parts.save_to_disk(tmp_path / "set")
    path = tmp_path / "set"
    with pytest.raises(UserError, match=r"no column 'lable', as data\.label_column says; did you"):
        hub_parts(str(path), None, "lable")
    with pytest.raises(UserError, match=r"column 'label' holds no images \("):
        hub_parts(str(path), "label")


def test_a_test_part_without_labels_is_left_out(parts, tmp_path):
    blank = parts["validation"].remove_columns("label").add_column("label", [-1] * 3)
    blank = blank.cast(parts["train"].features)
    both = {"train": parts["train"], "test": blank}
    datasets.DatasetDict(both).save_to_disk(tmp_path / "set")
    assert list(hub_parts(str(tmp_path / "set"))) == ["train"]
    datasets.DatasetDict({"train": blank}).save_to_disk(tmp_path / "blank")
    assert failure(tmp_path / "blank").endswith("images of train have no label in column 'label'")


def test_test_images_with_a_label_stay(parts, tmp_path):
    mixed = parts["validation"].remove_columns("label").add_column("label", [1, -1, 0])
    both = {"train": parts["train"], "test": mixed.cast(parts["train"].features)}
    datasets.DatasetDict(both).save_to_disk(tmp_path / "set")
    test = hub_parts(str(tmp_path / "set"))["test"]
    assert test.notes[-1].endswith("1 of 3 images of test have no label, left out")
    assert test.labels == [1, 0]
    assert [image.index for image in test.images] == [0, 2]


def test_images_that_cannot_be_read(tmp_path):
    images = [{"bytes": b"no image", "path": None}, None]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = datasets.Dataset.from_dict({"image": images, "label": [0] * 2}, features=features)
    rows.save_to_disk(tmp_path / "set")
    found = hub_parts(str(tmp_path / "set"))["train"].images
    with pytest.raises(ImageError, match=r"set, train: row 0: not an image, or none of JPEG"):
        load_image(found[0])
    with pytest.raises(ImageError, match=r"set, train: row 1: no image"):
        load_image(found[1])


def test_images_that_are_files(tmp_path):
    root = make_photos(tmp_path / "photos", cat=2, dog=2)
    found = hub_parts(str(root))["train"].images
    assert load_image(found[0]).size == (40, 40)
    (root / "cat/1.png").unlink()
    with pytest.raises(ImageError, match=r"train: row 1: no such file as .*/photos/cat/1\.png"):
        load_image(found[1])


def test_data_sets_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for root in ("./none", "/none", "a b"):
        assert failure(root) == f"{root}: no such folder, and no name of a data set on the hub"
    assert failure("owner/none").startswith("owner/none: cannot be read as a data set (")
    (tmp_path / "code").mkdir()
    (tmp_path / "code/code.py").write_text("open('ran', 'w')")
    assert failure(tmp_path / "code").startswith(f"{tmp_path}/code: cannot be read as a data set")
    assert not (tmp_path / "ran").exists()


def test_parts_without_training_images(parts, tmp_path):
    datasets.DatasetDict({"validation": parts["train"]}).save_to_disk(tmp_path / "set")
    assert failure(tmp_path / "set").endswith("set: has validation, but no part named train")


def test_the_library_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    assert failure("x") == "datasets is not installed; run: pip install 'spanets[hf]'"


# ---- files that a data set names


def saved_paths(tmp_path: Path, *paths: str) -> Path:
    """A data set on disk whose images are files, by these paths."""
    features = datasets.Features(
        {
            "image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "label": datasets.Value("int64"),
        }
    )
    rows = {"image": [{"bytes": None, "path": path} for path in paths], "label": [0] * len(paths)}
    table = datasets.Dataset.from_dict(rows, features=features)
    root = tmp_path / "set"
    table.save_to_disk(root)
    (root / "own.png").write_bytes(b"own")
    return root


@pytest.mark.parametrize("form", ["{0}/secret.png", "../secret.png", "link.png", "dir/secret.png"])
def test_files_outside_of_the_data_set_are_not_read(form, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    root = saved_paths(tmp_path, form.format(tmp_path), "own.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "dir").symlink_to(tmp_path)
    images = hub_parts(str(root), "image", "label")["train"].images
    assert images[1].read() == b"own"
    with pytest.raises(UserError, match=r"row 0: names '.*', which lies outside of the data set;"):
        images[0].read()
    with pytest.raises(UserError) as caught:
        images[0].read()
    assert not isinstance(caught.value, ImageError)  # which may be skipped


@pytest.mark.parametrize("place", ["http://127.0.0.1:1/x.png", "/etc/passwd", "file:///etc/passwd"])
def test_addresses_are_not_files(place, tmp_path):
    images = hub_parts(str(saved_paths(tmp_path, place)), "image", "label")["train"].images
    with pytest.raises(UserError, match="which lies outside of the data set"):
        images[0].read()


@pytest.mark.parametrize(
    "text",
    [
        "configs:\n- config_name: default\n  data_files: http://127.0.0.1:1/x.csv",
        "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: ../x.csv",
        "configs:\n- config_name: default\n  data_files:\n    train: [a.csv, /etc/passwd]",
        "configs:\n- config_name: default\n  data_dir: ..",
    ],
)
@pytest.mark.parametrize("name", ["README.md", ".huggingface.yaml"])
def test_a_readme_cannot_point_elsewhere(text, name, tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    (tmp_path / "x.csv").write_text("image,label\na,0\n")
    (root / "a.csv").write_text("image,label\na,0\n")
    (root / name).write_text(f"---\n{text}\n---\n# Set\n" if name == "README.md" else text)
    assert "which lies outside of the data set; only its own files are read" in failure(root)


def test_what_was_saved_cannot_point_elsewhere(parts, tmp_path):
    parts.save_to_disk(tmp_path / "other")
    parts.save_to_disk(tmp_path / "set")
    (tmp_path / "set/dataset_dict.json").write_text('{"splits": ["../other/train"]}')
    assert "names '../other/train', which lies outside" in failure(tmp_path / "set")
    (tmp_path / "set/dataset_dict.json").write_text('{"splits": ["train"]}')
    state = tmp_path / "set/train/state.json"
    values = json.loads(state.read_text())
    values["_data_files"] = [{"filename": "../../other/train/data-00000-of-00001.arrow"}]
    state.write_text(json.dumps(values))
    assert "other/train/data-00000-of-00001.arrow', which lies outside" in failure(tmp_path / "set")


# ---- splits


def test_a_split_is_kept_by_what_is_in_the_images(parts, tmp_path):
    """The number of a row is another's once one before it is gone."""
    rows = datasets.concatenate_datasets([parts["train"], parts["validation"]] * 2)
    rows.save_to_disk(tmp_path / "set")
    data = ClassificationData(source="hf", root=str(tmp_path / "set"))
    found = read_splits(data, RunData(tmp_path, is_new=True))
    write_split(tmp_path, list_split(found))
    assert sum(map(len, found.values())) == 20  # each image twice, under a name for each
    trained = {image.read() for image in found["train"].images}
    evaluated = list(found["val"].names)
    rows.select([*range(1, 12), 15, 14, 13, 12, *range(16, 20), 0]).save_to_disk(tmp_path / "moved")
    moved = ClassificationData(source="hf", root=str(tmp_path / "moved"))
    now = read_splits(moved, RunData(tmp_path, split=read_split(tmp_path)))
    assert sorted(now["val"].names) == sorted(evaluated)
    assert {image.read() for image in now["train"].images} == trained
    rows.select(range(1, 20)).save_to_disk(tmp_path / "fewer")
    fewer = ClassificationData(source="hf", root=str(tmp_path / "fewer"))
    now = read_splits(fewer, RunData(tmp_path, split=read_split(tmp_path)))
    assert set(now["val"].names) <= set(evaluated)
    assert len(now["train"].notes) == 1


def test_a_split_of_image_files_is_kept_by_their_paths(tmp_path):
    root = make_photos(tmp_path / "photos", cat=4, dog=4)
    data = ClassificationData(source="hf", root=str(root))
    found = read_splits(data, RunData(tmp_path, is_new=True))
    every = [*found["train"].names, *found["val"].names]
    assert sorted(every) == sorted(f"{c}/{i}.png" for c in ("cat", "dog") for i in range(4))


def test_parts_that_are_none_are_told(parts, tmp_path):
    both = {"train": parts["train"], "extra": parts["train"], "Validation": parts["validation"]}
    datasets.DatasetDict(both).save_to_disk(tmp_path / "set")
    found = hub_parts(str(tmp_path / "set"))
    assert list(found) == ["train", "val"]
    assert found["val"].notes == (f"{tmp_path}/set: left out, because they are not parts: extra",)
