"""Data sets of `datasets`, in the forms in which they lie about."""

from pathlib import Path

import pytest
from small_runs import make_photos

from spanets.data.sources.folder import folder_parts
from spanets.data.sources.hub import hub_parts
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
