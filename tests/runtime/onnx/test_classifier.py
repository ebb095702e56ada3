"""Exported models label images as their checkpoints do, without torch."""

import io
import json
import random
import signal
import time
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_runs import call_without_torch
from torch import nn

import spanets_cli
from spanets.classification.predict import Predictor
from spanets.deploy.export import export_model
from spanets_runtime.errors import UserError
from spanets_runtime.listing import gather_images
from spanets_runtime.onnx import OnnxPredictor

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(small_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "m.onnx"
    words = ["export", str(small_run / "last.ckpt"), "--out", str(path), "--static"]
    assert spanets_cli.main(words) == 0
    return path


def test_labels_are_the_checkpoints(exported, small_run, photos):
    images = gather_images([photos / "cat", photos / "dog"]).images
    ours = OnnxPredictor(exported)(images)
    theirs = Predictor(small_run / "last.ckpt", device="cpu")(images)
    for a, b in zip(ours, theirs, strict=True):
        assert a.image == b.image
        assert dict(a.labels) == pytest.approx(dict(b.labels), abs=1e-5)


def test_predicts_without_torch(exported, photos, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    words = ["predict", exported, photos / "cat", broken, "--top", "1", "--json"]
    status, printed, said = call_without_torch(*words)
    assert status == 1
    assert f"{broken}: not an image" in said
    found = json.loads(printed)
    assert len(found) == len(list((photos / "cat").iterdir()))
    for entry in found:
        assert len(entry["predictions"]) == 1
        assert entry["predictions"][0].keys() == {"label", "probability"}


class Tiny(nn.Module):
    """Two logits of the images' mean."""

    def forward(self, images):
        mean = images.mean((1, 2, 3))
        return torch.stack([mean, -mean], 1)


PREPROCESSING = {
    "input_size": [3, 64, 64],
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": [0.5, 0.5, 0.5],
    "std": [1.0, 1.0, 1.0],
}


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({}, "its metadata are damaged; export it again"),
        ({"preprocessing": {}}, "the preprocessing is damaged"),
        ({"preprocessing": PREPROCESSING, "classes": ["a"]}, "names 1 of 2 classes"),
    ],
)
def test_damaged_metadata(metadata, said, tmp_path):
    path = tmp_path / "m.onnx"
    export_model(Tiny(), path, size=64, metadata=metadata)
    with pytest.raises(UserError, match=said):
        OnnxPredictor(path)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
described = st.fixed_dictionaries(
    {"preprocessing": st.just(PREPROCESSING) | plain},
    optional={"classes": plain | st.just(["cat", "dog"])},
)
changed = st.tuples(st.sampled_from(sorted(PREPROCESSING)), plain).map(
    lambda pair: {"preprocessing": {**PREPROCESSING, pair[0]: pair[1]}}
)


@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.text(max_size=20) | (plain | described | changed).map(json.dumps))
def test_any_metadata_give_labels_or_one_line(exported, photos, tmp_path, text):
    model = onnx.load(exported)
    del model.metadata_props[:]
    model.metadata_props.add(key="spanets", value=text)
    path = tmp_path / "strange.onnx"
    onnx.save(model, path)
    try:
        (prediction,) = OnnxPredictor(path)([photos / "cat/0.png"])
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert prediction.labels or prediction.error


def test_classes_without_names_are_numbered(tmp_path, photos):
    path = tmp_path / "m.onnx"
    export_model(Tiny(), path, size=64, metadata={"preprocessing": PREPROCESSING})
    (prediction,) = OnnxPredictor(path)([photos / "cat/0.png"])
    assert {name for name, _ in prediction.labels} == {"0", "1"}


def test_a_fixed_size_must_be_that_of_the_preprocessing(tmp_path):
    path = tmp_path / "m.onnx"
    metadata = {"preprocessing": PREPROCESSING}
    export_model(Tiny(), path, size=(96, 128), dynamic=False, metadata=metadata)
    with pytest.raises(
        UserError, match="takes inputs of 1x3x96x128, but its preprocessing gives 1x3x64x64"
    ):
        OnnxPredictor(path)
    export_model(Tiny(), path, size=96, dynamic=False, metadata=metadata)
    assert OnnxPredictor(path).preprocess.size == 96


def test_foreign_and_damaged_files(exported, tmp_path):
    model = onnx.load(exported)
    del model.metadata_props[:]
    foreign = tmp_path / "foreign.onnx"
    onnx.save(model, foreign)
    truncated = tmp_path / "truncated.onnx"
    truncated.write_bytes(exported.read_bytes()[:1000])
    for path, said in [
        (foreign, "has no metadata on preprocessing and classes"),
        (truncated, "not an ONNX model that onnxruntime can read"),
        (tmp_path / "missing.onnx", "no such file"),
        (tmp_path, "is a folder"),
    ]:
        with pytest.raises(UserError, match=said) as caught:
            OnnxPredictor(path)
        assert "\n" not in str(caught.value)


SECONDS = settings().max_examples // 20  # 2 in the default run


def mutate(content: bytes, draw: random.Random) -> bytes:
    """Changes, leaves out or doubles some bytes, half of them near the ends, where the graph is."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 12)):
        at = draw.choice(
            [draw.randrange(4000), -draw.randint(1, 4000), draw.randrange(len(content))]
        )
        at %= len(changed)
        old = changed[at : at + draw.randint(1, 8)]
        new = draw.choice([draw.randbytes(1), draw.randbytes(len(old)), b"", old + old])
        changed[at : at + len(old)] = new
    return bytes(changed)


def test_mutated_files_give_labels_or_one_line(exported, photos, tmp_path, process):
    """In a process of its own, because what reads them is native code that may crash or hang."""
    seed, path = random.randrange(2**32), tmp_path / "mutated.onnx"
    content = exported.read_bytes()

    def predict_some() -> int:
        signal.alarm(15 * SECONDS)
        draw, end = random.Random(seed), time.monotonic() + SECONDS
        while time.monotonic() < end:
            path.write_bytes(mutate(content, draw))
            out, err = io.StringIO(), io.StringIO()
            with redirect_stdout(out), redirect_stderr(err):
                words = ["predict", path, photos / "cat/0.png", "--json"]
                status = spanets_cli.main([str(word) for word in words])
            assert status in (0, 1)
            assert err.getvalue().count("\n") == status
            assert not status or err.getvalue().startswith(f"spanets: {path}: ")
            assert status or len(json.loads(out.getvalue())) == 1
        return 0

    # The last of them lies at `path`.
    assert process(predict_some).wait() == (0, "", ""), f"seed {seed}"


def test_a_graph_that_cannot_be_computed(exported, photos, tmp_path, refused):
    """It is read without complaint, but its first convolution wants other channels."""
    model = onnx.load(exported)
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    group = next(a for a in convolution.attribute if a.name == "group")
    group.i = 51
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    line = refused(1, "predict", path, photos / "cat/0.png")
    assert line.startswith(f"{path}: onnxruntime cannot run it on images of 1x3x")


def test_images_of_another_size_than_the_file_takes(tmp_path):
    path = tmp_path / "m.onnx"
    told = {"preprocessing": PREPROCESSING}
    export_model(Tiny(), path, size=64, dynamic=False, metadata=told)
    with pytest.raises(UserError) as caught:
        OnnxPredictor(path).file.run(np.zeros((1, 3, 96, 96), np.float32))
    assert str(caught.value) == f"{path}: takes inputs of 1x3x64x64, not 1x3x96x96"


def test_maps_are_no_classes(tmp_path):
    class Maps(nn.Module):
        def forward(self, images):
            return [2 * images, images[:, :, ::2, ::2]]

    path = tmp_path / "maps.onnx"
    export_model(Maps(), path, size=64, metadata={"preprocessing": PREPROCESSING})
    with pytest.raises(UserError, match="outputs feature maps, not classes"):
        OnnxPredictor(path)


def test_an_elongated_image_is_told_and_the_others_go_on(exported, photos, tmp_path):
    """Resizing its short side would make millions of rows."""
    from PIL import Image

    long = tmp_path / "long.png"
    Image.new("RGB", (1, 200_000)).save(long)
    first, second = OnnxPredictor(exported)([long, photos / "cat/0.png"])
    assert first.error == f"{long}: 1x200000 pixels are too elongated to be resized to 35"
    assert second.error is None


@pytest.mark.slow
def test_a_fixed_size_of_ones_own_is_what_predict_takes(small_run, photos, tmp_path):
    path = tmp_path / "m.onnx"
    words = ["export", str(small_run / "last.ckpt"), "--out", str(path)]
    words += ["--static", "--size", "48", "--dtype", "int8", "--calibration", str(photos)]
    assert spanets_cli.main(words) == 0
    (prediction,) = OnnxPredictor(path)([photos / "cat/0.png"])
    assert prediction.error is None


@pytest.mark.parametrize("command", ["explain", "analyze", "push", "export"])
def test_commands_that_need_the_checkpoint(command, exported, photos, tmp_path, refused):
    image, out = photos / "cat/0.png", tmp_path / "out"
    words = {
        "explain": [image, "--out", out],
        "analyze": ["--images", photos, "--out", out],
        "push": ["--to", out],
        "export": ["--out", tmp_path / "n.onnx"],
    }
    said = refused(2, command, exported, *words[command])
    assert said.startswith(f"{exported} is an exported file")
    assert said.endswith("; give the checkpoint it was exported from")


def test_bands_need_no_layers(exported, photos, tmp_path, capsys):
    words = ["analyze", exported, "--images", photos, "--out", tmp_path, "--limit", "2"]
    assert spanets_cli.main([*map(str, words), "--what", "bands"]) == 0
    assert "bands: 2 images" in capsys.readouterr().out
