"""Folders of images and masks: pairs, classes, and everything that can be wrong with a mask."""

import numpy as np
import pytest
from PIL import Image
from small_runs import obey_permissions

from spanets.segmentation.masks.reading import MaskedImages, ade20k_parts, folder_parts
from spanets.segmentation.masks.values import IGNORED, plain_values
from spanets_runtime.errors import UsageError, UserError


def put(path, pixels, **how) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path, **how)


def picture(height=6, width=8) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def make_set(root, *parts, names="ab", masks="masks") -> None:
    """A picture of 8x6 pixels for each name, its mask full of zeros."""
    for part in parts:
        for name in names:
            put(root / "images" / part / f"{name}.jpg", picture())
            put(root / masks / part / f"{name}.png", np.zeros((6, 8), np.uint8))


@pytest.fixture
def root(tmp_path):
    make_set(tmp_path, "train", "val")
    (tmp_path / "classes.txt").write_text("ground\nroad\n\nsky\n")
    return tmp_path


def one_mask(tmp_path, pixels, classes=3, first=0, **how):
    """Loads a mask of a picture of 8x6 pixels."""
    put(tmp_path / "mask.png", pixels, **how)
    names = [str(i) for i in range(classes)]
    return masked(tmp_path, "mask.png", names, first).load_mask(0, (6, 8))


def masked(tmp_path, mask, names, first=0) -> MaskedImages:
    values = plain_values(len(names), first)
    return MaskedImages([tmp_path / "a.jpg"], [tmp_path / mask], list(names), values)


# ---- what is found


def test_pairs_by_stem(root):
    parts = folder_parts(root)
    assert list(parts) == ["train", "val"]
    assert parts["train"].classes == ["ground", "road", "sky"]
    for part, samples in parts.items():
        assert [path.name for path in samples.images] == ["a.jpg", "b.jpg"]
        assert samples.masks == [root / "masks" / part / f"{name}.png" for name in "ab"]


def test_images_in_deeper_folders(root):
    put(root / "images/train/north/c.png", picture())
    put(root / "masks/train/north/c.png", np.zeros((6, 8), np.uint8))
    assert folder_parts(root)["train"].masks[-1] == root / "masks/train/north/c.png"


def test_a_folder_without_parts_is_split(tmp_path):
    make_set(tmp_path, "", names="abcdefgh")
    first, again = (folder_parts(tmp_path, 2, 0.25, seed=3) for _ in range(2))
    assert first == again
    assert len(first["train"]) == 6
    assert len(first["val"]) == 2
    assert not set(first["train"].images) & set(first["val"].images)


def test_training_images_alone_are_split(root):
    make_set(root, "test")
    for path in (root / "images/val").iterdir():
        path.unlink()
    (root / "images/val").rmdir()
    parts = folder_parts(root, val_fraction=0.5)
    assert [len(parts[name]) for name in ("train", "test", "val")] == [1, 2, 1]


def test_ade20k(tmp_path):
    make_set(tmp_path, "training", "validation", masks="annotations")
    put(tmp_path / "annotations/training/a.png", np.full((6, 8), 150, np.uint8))
    parts = ade20k_parts(tmp_path)
    assert list(parts) == ["train", "val"]
    assert parts["train"].classes[::149] == ["1", "150"]
    assert (parts["train"].load_mask(0, (6, 8)) == 149).all()
    assert (parts["train"].load_mask(1, (6, 8)) == IGNORED).all()
    rows = [f"{i}\t0.1\t{i}\t{i}\tname {i}" for i in range(1, 151)]
    (tmp_path / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows]))
    assert ade20k_parts(tmp_path)["val"].classes[:2] == ["name 1", "name 2"]


# ---- what numbers mean


def test_numbers_are_classes(tmp_path):
    pixels = np.zeros((6, 8), np.uint8)
    pixels[0, :4] = 1, 2, 255, 0
    assert one_mask(tmp_path, pixels)[0, :4].tolist() == [1, 2, IGNORED, 0]
    assert one_mask(tmp_path, pixels, first=1)[0, :4].tolist() == [0, 1, IGNORED, IGNORED]


def test_palettes_and_sixteen_bits(tmp_path):
    numbers = np.full((6, 8), 2, np.uint8)
    image = Image.fromarray(numbers)
    image.putpalette([200, 0, 0, 0, 200, 0, 9, 9, 9])
    image.save(tmp_path / "p.png")
    assert Image.open(tmp_path / "p.png").mode == "P"
    assert (one_mask(tmp_path, numbers.astype(np.uint16)) == 2).all()
    assert (masked(tmp_path, "p.png", "xyz").load_mask(0, (6, 8)) == 2).all()


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((8, 6), np.uint8), r"mask.png: 6x8 pixels, but its image \S+a.jpg has 8x6"),
        (np.full((6, 8), 3, np.uint8), "has class number 3, but the 3 classes are 0 to 2"),
        (np.full((6, 8), 257, np.uint16), "has class number 257"),
        (
            np.full((6, 8, 3), [0, 0, 9], np.uint8),
            r"mask.png: its pixels are colours \(mode RGB\), not one class",
        ),
    ],
)
def test_masks_that_are_refused(tmp_path, pixels, message):
    with pytest.raises(UserError, match=message):
        one_mask(tmp_path, pixels)


def test_numbers_of_ade20k_are_told_as_in_the_file(tmp_path):
    with pytest.raises(UserError, match="number 151, but the 150 classes are 1 to 150"):
        one_mask(tmp_path, np.full((6, 8), 151, np.uint8), classes=150, first=1)


def test_files_that_are_refused(tmp_path):
    put(tmp_path / "mask.png", np.zeros((6, 8), np.uint8))
    whole = (tmp_path / "mask.png").read_bytes()
    samples = masked(tmp_path, "mask.png", "xy")
    for content, message in (
        (b"", "empty"),
        (b"none", "not an image"),
        (whole[:45], "truncated or corrupt"),
    ):
        (tmp_path / "mask.png").write_bytes(content)
        with pytest.raises(UserError, match=rf"mask\.png: .*{message}"):
            samples.load_mask(0, (6, 8))
    put(tmp_path / "mask.png", np.zeros((6, 8), np.uint8), format="JPEG")
    with pytest.raises(UserError, match="JPEG changes the numbers of pixels; save it as PNG"):
        samples.load_mask(0, (6, 8))


# ---- names of parts, and what is left out


@pytest.mark.parametrize(
    ("train", "val"), [("train", "valid"), ("Train", "VAL"), ("training", "validation")]
)
def test_other_names_of_parts(tmp_path, train, val):
    make_set(tmp_path, train, val, "testing")
    parts = folder_parts(tmp_path, 2)
    assert list(parts) == ["train", "val", "test"]
    assert [samples.masks[0].parent.name for samples in parts.values()] == [train, val, "testing"]
    assert parts["train"].notes == ()


def test_parts_of_images_and_masks_named_differently(tmp_path):
    make_set(tmp_path, "train", "validation")
    (tmp_path / "masks/validation").rename(tmp_path / "masks/Val")
    assert folder_parts(tmp_path, 2)["val"].masks[0] == tmp_path / "masks/Val/a.png"


def test_two_folders_for_one_part(tmp_path):
    make_set(tmp_path, "train", "val", "valid")
    with pytest.raises(UserError, match=r"images: val and valid are both for validation; keep one"):
        folder_parts(tmp_path, 2)


def test_what_lies_beside_the_parts_is_told(root):
    make_set(root, "", names=["x"])
    make_set(root, "extra/deep", names="xyz")
    notes = folder_parts(root)["val"].notes
    for folder in ("images", "masks"):
        suffix = {"images": "jpg", "masks": "png"}[folder]
        of_parts = "left out, outside of the part folders (train, val), such as x"
        assert f"{root}/{folder}: 1 image {of_parts}.{suffix}" in notes
        assert f"{root}/{folder}/extra: 3 images {of_parts}.{suffix}" in notes


def test_test_images_without_masks_are_left_out(root):
    put(root / "images/test/1.png", picture())
    parts = folder_parts(root)
    assert list(parts) == ["train", "val"]
    note = f"{root / 'images'}: 1 image of test left out, there are no masks of test"
    assert all(note in found.notes for found in parts.values())


def test_notes_of_class_names_and_masks_reach_every_part(root):
    put(root / "masks/train/c.png", np.zeros((6, 8), np.uint8))
    parts = folder_parts(root)
    assert any("blank line" in note for note in parts["val"].notes)
    assert any("masks/train: 1 file left out" in note for note in parts["train"].notes)
    assert parts["train"].subset([0]).notes == parts["train"].notes


def test_classes_without_a_file(root):
    (root / "classes.txt").unlink()
    names = ["sea", "land", "air"]
    assert folder_parts(root, classes=names)["train"].classes == names
    assert folder_parts(root, mask_values={0: "sea", 9: "land"})["val"].classes == ["sea", "land"]
    assert folder_parts(root, mask_values="binary")["val"].classes == ["background", "foreground"]
    with pytest.raises(UsageError, match=r"num_classes is 3, but data\.mask_values names 2"):
        folder_parts(root, 3, mask_values="binary")


def test_numbers_of_masks_are_mapped(root):
    put(root / "masks/train/a.png", np.full((6, 8), 200, np.uint8))
    given = {0: "ground", 200: "sky", 9: "road"}
    samples = folder_parts(root, mask_values=given)["train"]
    assert (samples.load_mask(0, (6, 8)) == 2).all()
    put(root / "masks/train/a.png", np.full((6, 8), 2, np.uint8))
    with pytest.raises(
        UserError, match=r"has class number 2, but the 3 classes are 0, 9, 200 \(and"
    ):
        samples.load_mask(0, (6, 8))


@pytest.mark.parametrize("folder", ["images/train/sub", "masks/train/sub", "images/extra"])
def test_folders_that_cannot_be_read_stop_the_scan(root, folder, process):
    make_set(root, "train", names=["sub/x"])
    put(root / "images/extra/x.png", picture())

    def scan() -> int:
        obey_permissions()
        (root / folder).chmod(0)
        try:
            folder_parts(root)
        except UserError as error:
            print(error)
            return 1
        finally:
            (root / folder).chmod(0o755)
        return 0

    status, printed, said = process(scan).wait()
    if status == 77:
        pytest.skip("a superuser may read everywhere")
    assert (status, printed) == (1, f"{root / folder}: cannot be read (Permission denied)\n"), said


# ---- folders that are refused


def test_an_image_without_a_mask(root):
    (root / "masks/val/b.png").unlink()
    line = (
        rf"1 of 2 images without a mask, such as {root}/images/val/b.jpg \({root}/masks/val/b.png "
        "is missing"
    )
    with pytest.raises(UserError, match=line):
        folder_parts(root)


def test_two_images_of_one_name(root):
    put(root / "images/train/a.png", picture())
    with pytest.raises(UserError, match=r"train/a\.png: is the mask of several images"):
        folder_parts(root)


def test_folders_that_are_refused(tmp_path, root):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        folder_parts(tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match="bare: has no folder images"):
        folder_parts(tmp_path / "bare")
    (tmp_path / "empty/images/train").mkdir(parents=True)
    with pytest.raises(UserError, match="without images"):
        folder_parts(tmp_path / "empty", 2)
    with pytest.raises(UsageError, match=r"data.num_classes is 7, but .* names 3"):
        folder_parts(root, 7)
    (root / "classes.txt").write_text("ground\n")
    with pytest.raises(UserError, match="names 1 class, must be 2 to 255"):
        folder_parts(root)
    (root / "classes.txt").write_text("ground\nsky\nground\n")  # their IoUs would be one
    with pytest.raises(UserError, match=r"classes\.txt: names 'ground' twice"):
        folder_parts(root)
    (root / "classes.txt").write_bytes(b"\xff\xfe\n")
    with pytest.raises(UserError, match=r"classes\.txt: is not a text file"):
        folder_parts(root)
    (root / "classes.txt").write_text("ground,road,sky")
    with pytest.raises(UserError, match="names 1 class, must be 2 to 255, a line each"):
        folder_parts(root)
    (root / "classes.txt").unlink()
    with pytest.raises(UsageError, match=r"write the class names there.* or set data\.num_classes"):
        folder_parts(root)
    with pytest.raises(UserError, match=r"1 images are too few for a val_fraction of 0\.5"):
        make_set(tmp_path / "one", "", names="a")
        folder_parts(tmp_path / "one", 2, 0.5)
