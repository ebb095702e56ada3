"""Exported files compute what the models compute, at any size, and say how to use them."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import spanets
import spanets_cli
from spanets.deploy.export import TOLERANCES, export_model, load_source
from spanets.deploy.quantize import calibration_images
from spanets_runtime import machine
from spanets_runtime.arrays import PixelFormat
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.onnx import open_session
from spanets_runtime.preprocessing import Preprocessing

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import numpy_helper  # noqa: E402

SHALLOW = {"depths": (1, 1, 1, 1)}


def run_onnx(path, x: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(y) for y in session.run(None, {"images": x.numpy()})]


def neutral_nodes(graph) -> list[str]:
    """The nodes that multiply by one or add zero."""
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    found = []
    for node in graph.node:
        neutral = {"Mul": 1, "Add": 0}.get(node.op_type)
        held = [constants[name] for name in node.input if name in constants]
        if neutral is not None and any(c.size and (c == neutral).all() for c in held):
            found.append(node.name)
    return found


def shape_of(value) -> list[int | str]:
    return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]


def error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.fixture
def shallow(smallest, build) -> nn.Module:
    return build(smallest, num_classes=3, **SHALLOW).eval()


def test_onnx_at_any_size(shallow, tmp_path):
    path = tmp_path / "m.onnx"
    written = export_model(shallow, path, size=96, metadata={"classes": ["a", "b", "c"]})
    assert written.inputs == {"images": ["batch", 3, "height", "width"]}
    assert written.outputs == ["logits"]
    assert len(written.differences) == 3
    assert max(written.differences.values()) < 1e-5
    for shape in [(1, 3, 64, 64), (2, 3, 150, 77)]:
        x = torch.randn(*shape)
        with torch.no_grad():
            assert error(run_onnx(path, x)[0], shallow(x)) < 1e-5
    graph = onnx.load(path)
    kinds = {node.op_type for node in graph.graph.node}
    assert not kinds & {"DFT", "If", "Loop"}
    assert not neutral_nodes(graph.graph)
    told = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(told["spanets"]) == {"classes": ["a", "b", "c"]}
    assert shape_of(graph.graph.input[0]) == ["batch", 3, "height", "width"]
    assert shape_of(graph.graph.output[0]) == ["batch", 3]
    assert str(Path(spanets.__file__).parent).encode() not in path.read_bytes()


@pytest.mark.slow
def test_free_sizes_of_maps_are_told_in_those_of_the_images(smallest, build, tmp_path):
    model = build(smallest, features_only=True, **SHALLOW).eval()
    export_model(model, tmp_path / "m.onnx", size=64)
    for output in onnx.load(tmp_path / "m.onnx").graph.output:
        batch, _, height, width = shape_of(output)
        assert batch == "batch"
        assert "height" in height
        assert "width" in width


@pytest.mark.slow  # the README has one
def test_onnx_of_maps(smallest, build, tmp_path):
    model = build(smallest, features_only=True, **SHALLOW).eval()
    written = export_model(model, tmp_path / "m.onnx", size=64, dynamic=False)
    assert written.outputs == ["stage0", "stage1", "stage2", "stage3"]
    assert written.inputs == {"images": [1, 3, 64, 64]}
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(run_onnx(tmp_path / "m.onnx", x), model(x), strict=True):
            assert error(ours, theirs) < 1e-5


@pytest.mark.slow
def test_half_precision(smallest, build, tmp_path):
    shallow = build(smallest, num_classes=3, **SHALLOW).eval()
    before = {key: value.clone() for key, value in shallow.state_dict().items()}
    full = export_model(shallow, tmp_path / "f.onnx", size=64, dynamic=False)
    half = export_model(shallow, tmp_path / "h.onnx", size=64, dynamic=False, dtype="float16")
    assert half.bytes < 0.75 * full.bytes  # the graph, and filters to be resized, stay as they are
    assert 1e-5 < max(half.differences.values()) < 2e-2
    assert all(torch.equal(value, before[key]) for key, value in shallow.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_program_of_torch(smallest, build, tmp_path, dynamic):
    """That programs hold at any size is tested in `test_precision.py`, without a file."""
    shallow = build(smallest, num_classes=3, **SHALLOW).eval()
    path = tmp_path / "m.pt2"
    export_model(shallow, path, size=64, dynamic=dynamic, metadata={"model": "x"})
    program = torch.export.load(path).module()
    x = torch.randn(1, 3, *((70, 91) if dynamic else (64, 64)))
    with torch.no_grad():
        assert error(program(x), shallow(x)) < 1e-5


def test_a_checkpoint_keeps_its_classes(small_run, tmp_path, capsys):
    path = tmp_path / "m.onnx"
    words = ["export", str(small_run / "last.ckpt"), "--out", str(path), "--json", "--static"]
    assert spanets_cli.main(words) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["path"] == str(path)
    written = onnx.load(path)
    assert not neutral_nodes(written.graph)
    told = json.loads({entry.key: entry.value for entry in written.metadata_props}["spanets"])
    model, metadata, _ = load_source(str(small_run / "last.ckpt"))
    assert told == metadata
    assert len(told["classes"]) == model.num_classes


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["spanet_nan"], 2, "unknown model 'spanet_nan'; did you mean 'spanet_nano'?"),
        (["missing.ckpt"], 1, "missing.ckpt: no such file"),
        (["a.onnx"], 2, "a.onnx is an exported file; give the checkpoint it was exported from"),
        (
            ["spanet_nano", "--dtype", "float8"],
            2,
            "--dtype is 'float8', must be float32, float16 or int8",
        ),
        (["spanet_nano", "--opset", "9"], 2, "--opset is 9, must be 18 to 23"),
        (
            ["spanet_nano", "--size", "16"],
            2,
            "16 is no side from 32 to 8192, nor two such as 256x512",
        ),
        (["spanet_nano", "--size", "64x"], 2, "64x is no side from 32 to 8192"),
        (["spanet_nano", "--size", "64x96x3"], 2, "64x96x3 is no side from 32 to 8192"),
        (["spanet_nano", "--weights", "none.pth"], 1, "none.pth: no such file"),
    ],
)
def test_bad_words(words, status, said, tmp_path, capsys):
    assert spanets_cli.main(["export", *words, "--out", str(tmp_path / "m.onnx")]) == status
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("command", ["named", "checkpoint"])
def test_sizes_need_not_be_square(command, small_run, photos, tmp_path, capsys):
    source = "test_resnet" if command == "named" else str(small_run / "last.ckpt")
    path = tmp_path / "m.onnx"
    words = ["export", "--static", "--out", str(path), "--json", "--size", "64x96", source]
    words += ["--no-pretrained"] * (command == "named")
    assert spanets_cli.main(words) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["inputs"] == {"images": [1, 3, 64, 96]}
    assert "`spanets predict` cannot use this file: it takes im" in printed["notes"][-1]
    assert run_onnx(path, torch.randn(1, 3, 64, 96))[0].shape[0] == 1
    if command == "checkpoint":  # its preprocessing makes squares
        assert spanets_cli.main(["predict", str(path), str(photos / "cat")]) == 1
        said = "takes inputs of 1x3x64x96, but its preprocessing gives 1x3x32x32; export it with "
        assert said in capsys.readouterr().err
        path.unlink()
        words += ["--dtype", "int8", "--calibration", str(photos)]
        assert spanets_cli.main(words) == 2
        said = "the calibration images are 32x32, the file would take 64x96"
        assert said in capsys.readouterr().err
        assert not path.exists()


@pytest.mark.parametrize("size", [64, (64, 96)])
def test_a_fixed_size_is_that_of_the_metadata(size, tmp_path):
    class Mean(torch.nn.Module):
        def forward(self, images):
            return images.mean((-2, -1))

    path, given = tmp_path / "m.onnx", {"preprocessing": {"input_size": [3, 224, 224]}}
    written = export_model(Mean().eval(), path, size, dynamic=False, metadata=given)
    stored = {entry.key: entry.value for entry in onnx.load(path).metadata_props}["spanets"]
    found = json.loads(stored)["preprocessing"]["input_size"]
    if isinstance(size, int):
        assert (found, written.notes) == ([3, 64, 64], [])
    else:
        (note,) = written.notes
        assert note.endswith("it takes images of 64x96, and preprocessing makes squares")
    assert given == {"preprocessing": {"input_size": [3, 224, 224]}}


def test_a_program_of_torch_has_no_opset(tmp_path, capsys):
    words = ["export", "test_resnet", "--out", str(tmp_path / "m.pt2"), "--opset", "20"]
    words.append("--no-pretrained")
    assert spanets_cli.main(words) == 2
    assert f"--opset is ONNX's, leave it out for {tmp_path}/m.pt2" in capsys.readouterr().err


def test_a_suffix_must_be_known(tmp_path):
    with pytest.raises(UsageError, match=r"m\.pb: the suffix must be one of \.onnx, \.pt2, "):
        export_model(nn.Identity(), tmp_path / "m.pb")


def test_a_size_that_the_model_refuses(tmp_path):
    model = timm.create_model("spanet_nano", **SHALLOW)
    with pytest.raises(UsageError, match=r"cannot take images of 16x16 .*the smallest is 32x32"):
        export_model(model, tmp_path / "m.onnx", size=16, dynamic=False)


def test_free_sizes_start_somewhere(tmp_path):
    with pytest.raises(UsageError, match=r"size is 40, but free sizes start at 64; .*--static"):
        export_model(timm.create_model("test_resnet"), tmp_path / "m.onnx", size=40)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"onnxscript is not installed; run: pip install .spanets"):
        export_model(nn.Identity(), tmp_path / "m.onnx")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    model = timm.create_model("test_resnet")
    with pytest.raises(UserError, match=r"m\.pt2: cannot be written"):
        export_model(model, tmp_path / "file" / "m.pt2", size=64, dynamic=False)


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(UserError, match=r"cannot be written \(it is a folder"):
        export_model(nn.Identity(), tmp_path / "m.onnx")


def test_images_that_no_memory_holds(tmp_path):
    with pytest.raises(UsageError, match="size is 1000000, too large for this machine's memory"):
        export_model(timm.create_model("test_resnet"), tmp_path / "m.onnx", 10**6, dynamic=False)


def test_a_transform_in_the_graph_is_refused(tmp_path):
    model = timm.create_model("spanet_nano", spectral_method="fft", **SHALLOW)
    with pytest.raises(UserError, match="the graph has DFT"):
        export_model(model, tmp_path / "m.onnx", size=64, dynamic=False)


def test_eight_bits_of_a_fixed_batch_are_those_of_single_images(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * 8 * 8, 3)).eval()
    images = [torch.randn(3, 8, 8).numpy() for _ in range(5)]
    outputs, told = [], []
    for batch in (1, 2):
        path = tmp_path / f"{batch}.onnx"
        written = export_model(net, path, 8, "int8", dynamic=False, batch=batch, calibration=images)
        x = torch.from_numpy(np.stack([*images, images[-1]]))
        outputs.append(torch.cat([run_onnx(path, part)[0] for part in x.split(batch)]))
        told.append((written.agreement, written.differences))
    assert torch.equal(*outputs) and told[0] == told[1]


def test_a_wrong_file_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setitem(TOLERANCES, "float32", 0.0)
    model = timm.create_model("test_resnet")
    with pytest.raises(UserError, match="not written: for images of 1x3x64x64 it is off by"):
        export_model(model, tmp_path / "m.onnx", size=64, dynamic=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "flags", "setting"),
    [
        ("x86_64", "fpu avx2 avx512f", "1"),
        ("x86_64", "fpu avx2 avx512f avx512_vnni", ""),
        ("x86_64", "fpu avx2 avx_vnni", ""),
        ("AMD64", "", "1"),  # Windows tells no flags
        ("aarch64", "", ""),
    ],
)
def test_eight_bits_do_not_overflow_on_old_processors(tmp_path, monkeypatch, kind, flags, setting):
    """There, onnxruntime by default adds products of maps and signed weights in 16 bits."""
    path = tmp_path / "m.onnx"
    export_model(nn.Conv2d(3, 3, 1).eval(), path, 8, dynamic=False)
    monkeypatch.setattr("platform.machine", lambda: kind)
    monkeypatch.setattr(machine, "_told", lambda key: flags if key == "flags" else "")
    options = open_session(path).get_session_options()
    key = "session.x64quantprecision"
    assert _entry(options, key) == setting


def _entry(options, key: str) -> str:
    try:
        return options.get_session_config_entry(key)
    except RuntimeError:  # not set
        return ""


@pytest.mark.slow  # test_eight_bits_by_command has a smaller network
def test_eight_bits(smallest, build, tmp_path):
    model = build(smallest, num_classes=3, **SHALLOW).eval()
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(3, 64, 64, generator=generator).numpy() for _ in range(8)]
    path = tmp_path / "m.onnx"
    whole = sum(4 * value.numel() for value in model.parameters())
    written = export_model(
        model, path, size=64, dtype="int8", calibration=images, metadata={"classes": ["a"]}
    )
    assert written.bytes < 0.7 * whole
    assert written.agreement is not None and written.agreement > 0.5
    # Random weights: a trained classifier is what tells (benchmarks/int8.py).
    assert written.differences["8 calibration images"] < 0.5
    graph = onnx.load(path)
    kinds = [node.op_type for node in graph.graph.node]
    assert "QuantizeLinear" in kinds
    assert {e.key: json.loads(e.value) for e in graph.metadata_props}["spanets"] == {
        "classes": ["a"]
    }
    for shape in [(2, 3, 64, 64), (1, 3, 80, 97)]:  # sizes are still free
        assert run_onnx(path, torch.randn(*shape))[0].shape == (shape[0], 3)


@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 20])  # the first has no GELU: it is a product there
def test_what_spreads_far_stays_in_float(smallest, build, tmp_path, opset):
    model = build(smallest, num_classes=3, **SHALLOW).eval()
    images = [torch.randn(3, 64, 64).numpy() for _ in range(2)]
    path = tmp_path / "m.onnx"
    export_model(model, path, size=64, dtype="int8", calibration=images, opset=opset)
    graph = onnx.load(path).graph
    weights = {value.name for value in graph.initializer}
    whole = {n.input[1] for n in graph.node if n.op_type in ("Conv", "Gemm")} & weights
    dense = {
        f"{name}.weight"
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.groups == 1
    }
    kept = {n for n in dense if "stem" in n or "downsample" in n or n.endswith("proj_out.weight")}
    assert kept and whole & dense == kept


@pytest.mark.parametrize(
    "ending",
    [
        "product",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("bounded", "norm", "square")),
        "convolution",
    ],
)
def test_products_of_maps_stay_in_float(ending, tmp_path):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = (nn.Conv2d(3, 3, 1) for _ in range(3))
            self.classifier = nn.Linear(3, 2)

        def forward(self, images: Tensor) -> Tensor:
            a, b = self.first(images), self.second(images)
            if ending == "product":
                return self.classifier(self.last((0.5 * (a * b) + 1) / 3 - 1).mean((2, 3)))
            if ending == "bounded":
                gate = b.mean((2, 3)).sigmoid()[:, :, None, None]
                return self.classifier(self.last(a * gate).mean((2, 3)))
            if ending == "norm":
                return self.classifier(self.last(a * b.square().mean(1, True).rsqrt()).mean((2, 3)))
            if ending == "square":
                a = a.relu()
                return self.classifier(self.last(a * a).mean((2, 3)) + b.mean((2, 3)))
            return self.last(a.relu() + b)

    images = [torch.randn(3, 64, 64).numpy() for _ in range(2)]
    path = tmp_path / "m.onnx"
    export_model(Net().eval(), path, size=64, dtype="int8", calibration=images, dynamic=False)
    graph = onnx.load(path).graph
    weights = {value.name for value in graph.initializer}
    whole = {n.input[1] for n in graph.node if n.op_type in ("Conv", "Gemm")} & weights
    assert whole == ({"last.weight"} if ending in ("product", "convolution") else set())
    if ending != "convolution":  # logits are not rounded to 256 steps
        maker = next(n for n in graph.node if graph.output[0].name in n.output)
        assert maker.op_type == "Gemm"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dtype", "int8"], "--dtype int8 needs images: --calibration DIR"),
        (["--calibration", "nowhere"], "nowhere: no such folder"),
        (["--calibration", "EMPTY"], "a folder without images"),
        (["--calibration", "PHOTOS"], "--calibration goes with --dtype int8, not float32"),
    ],
)
def test_calibration_and_its_mistakes(words, said, tmp_path, photos, capsys):
    (tmp_path / "empty").mkdir()
    folders = {"EMPTY": str(tmp_path / "empty"), "PHOTOS": str(photos)}
    words = [folders.get(word, word) for word in words]
    assert spanets_cli.main(["export", "spanet_nano", *words, "--out", str(tmp_path / "m.onnx")])
    assert said in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()


def test_eight_bits_by_command(small_run, photos, tmp_path, capsys):
    words = ["export", str(small_run / "last.ckpt"), "--out", str(tmp_path / "m.onnx"), "--static"]
    assert spanets_cli.main([*words, "--dtype", "int8", "--calibration", str(photos)]) == 0
    assert "of the calibration images" in capsys.readouterr().out


def test_calibration_images_of_bands_need_those_of_the_first(tmp_path):
    (tmp_path / "x_B03.tif").touch()
    pixels = PixelFormat(2, bands=("B02", "B03"))
    preprocess = Preprocessing(32, 0.9, "bilinear", (0.5,) * 2, (0.5,) * 2, pixels)
    with pytest.raises(UserError, match="a folder without images of the first band"):
        calibration_images(tmp_path, preprocess)
