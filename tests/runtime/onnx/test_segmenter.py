"""What is done to an exported segmenter's logits is what torch does to a checkpoint's."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from small_runs import call_without_torch
from torch import nn

from spanets import segmentation
from spanets.deploy.export import export_model
from spanets.segmentation import labels
from spanets_runtime.errors import UserError
from spanets_runtime.onnx.file import ExportedFile, Output
from spanets_runtime.onnx.segmenter import OnnxMaskPredictor, label_map, slide
from spanets_runtime.resize_to_fit import ResizeToFit

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PREPROCESSING = {
    "resize": [64, 128],
    "mean": [0.5, 0.5, 0.5],
    "std": [1.0, 1.0, 1.0],
    "test": "whole",
    "slide": [43, 64],
    "first": 0,
}
TOLD = {"task": "segmentation", "preprocessing": PREPROCESSING, "classes": ["dark", "bright"]}


@pytest.mark.parametrize("size", [(33, 20), (7, 5), (3, 50), (100, 6)])
def test_classes_are_those_of_torch(size):
    logits = torch.randn(1, 5, 8, 6, generator=torch.Generator().manual_seed(0))
    same = label_map(logits[0].numpy(), *size) == labels.label_map(logits, *size).numpy()
    assert same.mean() > 0.99  # where two classes are equal but for rounding


@pytest.mark.parametrize("size", [(40, 70), (90, 90)])
def test_windows_are_those_of_torch(size):
    images = torch.randn(1, 3, *size)

    def model(x):
        return F.avg_pool2d(x, 9, 1, 4)  # sees the windows' borders

    def run(pixels):
        return model(torch.from_numpy(pixels)[None])[0].numpy()

    expected = segmentation.slide(model, images, window=64, stride=43)[0].numpy()
    # a rounding of values up to 5
    np.testing.assert_allclose(slide(run, images[0].numpy(), (43, 64)), expected, atol=1e-6)


class Brightness(nn.Module):
    """Two logits of each pixel: dark, bright."""

    output_names = ("logits",)

    def forward(self, images):
        mean = images.mean(1, keepdim=True)
        return torch.cat([-mean, mean], 1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "masks.onnx"
    export_model(Brightness(), path, size=64, metadata=TOLD)
    return path


def retold(exported, tmp_path, **changes):
    """The file with other metadata."""
    model = onnx.load(exported)
    told = {**TOLD, "preprocessing": {**PREPROCESSING, **changes}}
    onnx.helper.set_model_props(model, {"spanets": json.dumps(told)})
    onnx.save(model, tmp_path / "retold.onnx")
    return tmp_path / "retold.onnx"


@pytest.mark.parametrize("size", [(40, 20), (8, 300), (300, 200), (4000, 2)])
@pytest.mark.parametrize("test", ["whole", "slide"])
def test_the_bright_half_is_found(exported, tmp_path, size, test):
    """In images smaller and larger than the window, and in one that is very elongated."""
    image = Image.new("RGB", size)
    image.paste("white", (size[0] // 2, 0, *size))
    found = OnnxMaskPredictor(retold(exported, tmp_path, test=test)).label(image)
    expected = np.zeros(size[::-1], bool)
    expected[:, size[0] // 2 :] = True
    assert found.shape == expected.shape
    assert (found == expected).mean() > 0.9  # columns at the edge may go either way


def test_numbers_start_where_those_of_the_training_masks_did(exported, tmp_path):
    Image.new("RGB", (64, 64), "white").save(tmp_path / "a.png")
    predictor = OnnxMaskPredictor(retold(exported, tmp_path, first=1))
    (found,) = predictor([tmp_path / "a.png"], tmp_path / "out")
    assert found.shares == {"bright": 1.0}
    assert (np.asarray(Image.open(found.mask)) == 2).all()


def test_what_the_network_sees_is_what_a_checkpoint_shows_it(exported):
    """Also of images that are small or thin, down to what backbones take."""
    predictor, seen = OnnxMaskPredictor(exported), []
    predictor._run = lambda pixels: seen.append(pixels) or np.zeros((2, *pixels.shape[1:]), "f4")
    noise = np.random.default_rng(0).integers(0, 255, (3, 97, 3), np.uint8)
    for image in map(Image.fromarray, (noise, noise[:, :2], noise.repeat(40, 0))):
        predictor.label(image)
        fitting = ResizeToFit.parse(PREPROCESSING, "the checkpoint")
        assert np.array_equal(seen.pop(), fitting(image))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"values": [0]}, r"damaged .values is \[0\]"),
        ({"test": "maybe"}, "damaged .test is 'maybe'"),
        ({"test": "slide", "slide": [65, 64]}, r"damaged .*slide is \[65, 64\]"),
        ({"test": "slide", "slide": 3}, "damaged .*slide is 3"),
        ({"first": 7}, "damaged .first is 7"),
        ({"resize": [0, 9]}, "the preprocessing is damaged"),
    ],
)
def test_damaged_metadata(exported, tmp_path, changes, said):
    with pytest.raises(UserError, match=said) as caught:
        OnnxMaskPredictor(retold(exported, tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_a_fixed_size_is_refused(tmp_path):
    export_model(Brightness(), tmp_path / "a.onnx", size=64, dynamic=False, metadata=TOLD)
    with pytest.raises(UserError, match=r"takes only images of 64x64, .* without --static"):
        OnnxMaskPredictor(tmp_path / "a.onnx")


def test_a_format_of_fixed_sizes_is_left_for_another(tmp_path):
    file = ExportedFile("a.pte", TOLD, [1, 3, 64, 64], [Output("logits", [1, 2, 16, 16])])
    with pytest.raises(UserError, match=r"export it to a FILE\.onnx, without --static"):
        OnnxMaskPredictor(file)


def test_masks_need_a_folder(exported, refused):
    line = refused(2, "predict", exported, "x.png")
    assert line == f"{exported} finds masks: name a folder for them with --out DIR"
    line = refused(2, "predict", exported, "a.png", "--tta", "--out", "out")
    assert (
        line == f"--tta takes a checkpoint, and {exported} is an exported file; use the checkpoint"
    )


def test_predict_imports_no_torch(exported, tmp_path):
    Image.new("RGB", (80, 70), "white").save(tmp_path / "a.png")
    words = ["predict", exported, tmp_path / "a.png", "--out", tmp_path / "out", "--json"]
    status, printed, _ = call_without_torch(*words)
    assert status == 0
    (found,) = json.loads(printed)
    assert found["classes"] == [{"label": "bright", "share": 1.0}]


def test_the_old_name_warns():
    with pytest.warns(DeprecationWarning, match="from spanets_runtime.onnx"):
        from spanets_runtime import onnx_masks
    assert onnx_masks.OnnxMaskPredictor is OnnxMaskPredictor
