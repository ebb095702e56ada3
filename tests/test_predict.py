"""Prediction: every kind of image, and why an image has none."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spanets.classification.evaluation import evaluate
from spanets.classification.predict import Predictor
from spanets_cli import main
from spanets_runtime.errors import UserError
from spanets_runtime.listing import gather_images
from spanets_runtime.masks import predict_masks
from spanets_runtime.predict import check_answer, predict_images


@pytest.fixture(scope="module")
def predictor(small_run) -> Predictor:
    return Predictor(small_run / "last.ckpt", device="cpu")


def probabilities(predictor, path) -> dict[str, float]:
    (prediction,) = predictor([path])
    assert prediction.error is None
    assert prediction.image == str(path)
    return dict(prediction.labels)


def photo(size: int = 40) -> Image.Image:
    """Differs from its mirror images and rotations."""
    y, x = np.mgrid[:size, :size] * 255 // size
    return Image.fromarray(np.stack([x, y, (x * y) // 255], axis=2).astype(np.uint8))


def test_labels_come_sorted_with_probabilities(predictor, photos):
    images = gather_images([photos / "cat", photos / "dog"]).images
    for prediction in predictor(images):
        values = [p for _, p in prediction.labels]
        assert sorted(label for label, _ in prediction.labels) == ["cat", "dog"]
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1, abs=1e-6)  # float32
        assert all(0 <= value <= 1 for value in values)


@pytest.mark.parametrize(("top", "count"), [(1, 1), (2, 2), (9, 2)])
def test_top(top, count, predictor, photos):
    (prediction,) = predictor([photos / "cat/0.png"], top)
    assert len(prediction.labels) == count


def test_prediction_and_evaluation_agree(predictor, small_run, photos):
    """The loss that `eval` reports is that of the probabilities that `predict` reports."""
    results = evaluate(small_run / "last.ckpt", str(photos), workers=0, batch_size=5)
    losses, right = [], []
    for truth in ("cat", "dog"):
        for prediction in predictor(gather_images([photos / truth]).images):
            losses.append(-np.log(dict(prediction.labels)[truth]))
            right.append(prediction.labels[0][0] == truth)
    # Batches of another size sum in another order.
    assert results["metrics"]["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert results["metrics"]["accuracy"] == pytest.approx(np.mean(right))
    assert results["images"] == len(losses) == 16


def test_a_model_decides_by_what_it_sees(predictor, photos):
    a = probabilities(predictor, photos / "cat/0.png")
    b = probabilities(predictor, photos / "dog/0.png")
    assert a != b


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_photos_are_seen_upright(orientation, predictor, tmp_path):
    """The same pixels, stored in each of the eight ways that EXIF knows."""
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = photo()
    stored = upright.transpose(turns[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright.save(tmp_path / "upright.png")
    stored.save(tmp_path / "stored.png", exif=exif)
    expected = probabilities(predictor, tmp_path / "upright.png")
    assert probabilities(predictor, tmp_path / "stored.png") == expected
    if orientation > 1:  # so that the test could fail
        stored.save(tmp_path / "plain.png")
        assert probabilities(predictor, tmp_path / "plain.png") != expected


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "I;16"])
def test_every_kind_of_pixels(mode, predictor, tmp_path):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    if mode == "I;16":
        Image.fromarray(np.asarray(photo().convert("L")).astype(np.uint16) * 257).save(path)
    else:
        photo().convert(mode).save(path)
    assert sum(probabilities(predictor, path).values()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (3000, 2)])
def test_extreme_sizes(size, predictor, tmp_path):
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    assert sum(probabilities(predictor, tmp_path / "a.png").values()) == pytest.approx(1, abs=1e-6)


def test_unreadable_images_are_reported_and_the_rest_predicted(predictor, photos, tmp_path):
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "png")
    whole = (photos / "cat/0.png").read_bytes()
    for name, content in (
        ("bomb.png", bomb.getvalue()),
        ("half.png", whole[: len(whole) // 2]),
        ("text.png", b"no image"),
        ("empty.png", b""),
    ):
        (tmp_path / name).write_bytes(content)
    names = ["bomb.png", "half.png", "text.png", "empty.png", "none.png"]
    paths = [tmp_path / name for name in names]
    found = list(predictor([photos / "cat/0.png", *paths, photos / "dog/0.png"]))
    assert [bool(prediction.error) for prediction in found] == [False, *[True] * 5, False]
    for path, prediction in zip(paths, found[1:-1], strict=True):
        assert prediction.labels == []
        assert prediction.error.startswith(f"{path}: ")


def test_folders_are_expanded(tmp_path):
    for name in ("b.png", "a.JPG", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/c.png").touch()
    found = gather_images([tmp_path, "missing.png", tmp_path / "notes.txt"])
    names = [image.path.name for image in found.images]
    assert names == ["a.JPG", "b.png", "c.png", "missing.png", "notes.txt"]
    assert [image.place for image in found.images] == ["a", "b", "deep/c", "missing", "notes"]
    assert found.notes == (f"{tmp_path}: 1 file left out, not known as images (1 .txt)",)


def test_folders_without_images(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: a folder without images"):
        gather_images([tmp_path, tmp_path / "empty"])


def test_damaged_preprocessing(small_run, tmp_path):
    content = torch.load(small_run / "last.ckpt", weights_only=True)
    for key, value in (("std", [0, 0, 0]), ("input_size", 3), ("interpolation", "none")):
        content["spanets"]["preprocessing"] = {
            **content["spanets"]["preprocessing"],
            key: value,
        }
        torch.save(content, tmp_path / "a.ckpt")
        with pytest.raises(UserError, match=r"preprocessing is damaged|damaged preprocessing"):
            Predictor(tmp_path / "a.ckpt")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_answer_that_is_no_number_is_a_failed_image(tmp_path, bad):
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path)
    answers = iter([np.array([bad, 0.0]), np.array([0.0, 1.0])])
    failed, good = predict_images([path, path], lambda _: next(answers), ["a", "b"], 1)
    assert failed.error.startswith(f"{path}: the model's output is NaN or infinite")
    assert failed.to_dict() == {"image": str(path), "predictions": None}
    assert failed.was_read
    assert good.labels[0][0] == "b"


def test_pictures_keep_their_place_in_the_folder(tmp_path):
    for name in ("a/1.png", "b/1.png", "b/1.bmp", "2.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "in" / name)
    images = gather_images([tmp_path / "in"]).images
    found = list(
        predict_masks(images, lambda _: np.zeros((4, 4), np.uint8), ["x"], tmp_path / "out", [0])
    )
    assert [prediction.image for prediction in found] == [str(image) for image in images]
    names = [str(Path(prediction.mask).relative_to(tmp_path / "out")) for prediction in found]
    assert names == ["2.png", "a/1.png", "b/1.png", "b/1-2.png"]
    assert all(Path(prediction.mask).is_file() for prediction in found)


def test_a_segmenters_answer_that_is_no_number(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    def fail(image):
        check_answer(False)

    (found,) = predict_masks([tmp_path / "a.png"], fail, ["x"], tmp_path / "out", [0])
    assert found.error.startswith(f"{tmp_path}/a.png: the model's output is NaN or infinite")
    assert found.to_dict()["mask"] is None
    assert not (tmp_path / "out").exists()


def test_a_published_folder_predicts_and_evaluates(small_run, photos, tmp_path, capsys):
    checkpoint, folder = str(small_run / "last.ckpt"), str(tmp_path / "published")
    assert main(["push", checkpoint, "--to", folder]) == 0
    image = str(next(photos.rglob("*.png")))
    found = []
    for source in (checkpoint, folder):
        capsys.readouterr()
        assert main(["predict", source, image, "--json"]) == 0
        predicted = json.loads(capsys.readouterr().out)
        assert main(["eval", source, "--data", str(photos), "--workers", "0", "--json"]) == 0
        found.append((predicted, json.loads(capsys.readouterr().out)["metrics"]))
    assert found[0] == found[1]


@pytest.mark.parametrize("words", [["predict", "NAME", "IMAGE"], ["eval", "NAME", "--data", "."]])
def test_a_model_without_published_weights(words, photos, capsys):
    names = {"NAME": "spanet_nano", "IMAGE": str(next(photos.rglob("*.png")))}
    assert main([names.get(word, word) for word in words]) == 2
    message = capsys.readouterr().err
    assert "no weights of spanet_nano are published; the nearest model" in message
    assert "spanet_small" in message
