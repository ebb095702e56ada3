"""Targets of `spanets export`: the table, its errors, files side by side, and each runtime."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from spanets.deploy import targets
from spanets.deploy.constants import fold_constants
from spanets.deploy.export import export_model
from spanets.deploy.targets import TARGETS, choose_target
from spanets.deploy.tracing import Traceable
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.onnx import ENGINES, OnnxPredictor, is_exported, open_exported

METADATA = {
    "model": "m",
    "task": "classification",
    "classes": ["cat", "dog", "owl"],
    "preprocessing": {
        "input_size": [3, 32, 32],
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    },
}


class Small(nn.Module):
    """A classifier with a mask that only depends on the size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.arange(x.shape[2])
        mask = ((rows >= 2) & (rows <= 9)).to(x.dtype)
        return self.conv(x * mask[:, None]).mean((2, 3))


def test_every_target_has_its_suffix_and_every_engine_a_target():
    suffixes = [target.suffix for target in TARGETS.values()]
    assert len(set(suffixes)) == len(suffixes)
    assert set(ENGINES) < set(suffixes)
    for name, target in TARGETS.items():
        assert choose_target(Path(f"a{target.suffix}"))[0] == name
        assert target.holds_metadata or target.suffix in ENGINES or name == "tensorrt"
    assert all(is_exported(f"a{suffix}") for suffix in ENGINES)


@pytest.mark.parametrize(
    ("name", "to", "said"),
    [
        ("m.onnx", "openvno", "--to is 'openvno', allowed: onnx, .*; did you mean 'openvino'"),
        ("m.onnx", "openvino", r"--to openvino writes a file FILE.xml, and --out is .*m\.onnx"),
        ("m.bin", None, "the suffix must be one of .onnx, .pt2, .xml"),
        ("m.pte", None, "executorch takes images of one size; add --static"),
    ],
)
def test_targets_that_cannot_be(name, to, said, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=said):
        export_model(Small(), tmp_path / name, 64, to=to)
    assert not list(tmp_path.iterdir())


def test_an_engine_of_tensorrt_is_built_where_it_runs(tmp_path):
    with pytest.raises(UsageError, match=r"there run: trtexec --onnx=m.onnx --saveEngine=m.engine"):
        export_model(Small(), tmp_path / "m.engine", 32, dynamic=False)


@pytest.mark.parametrize(("suffix", "extra"), [(".xml", "openvino"), (".mlpackage", "coreml")])
def test_a_missing_package_is_named_with_its_command(suffix, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, TARGETS[extra].needs[0], None)
    with pytest.raises(
        UserError, match=rf"is not installed; run: pip install 'spanets\[{extra}\]'"
    ):
        export_model(Small(), tmp_path / f"m{suffix}", 32, dynamic=False)


@pytest.fixture
def fake(monkeypatch):
    """A runtime that runs the model itself, in the place of OpenVINO."""
    models = {}

    def write(given: Traceable, path) -> list[str]:
        models[path.name] = given.model
        path.with_suffix(".bin").write_text("weights")
        path.write_text("program")
        return ["one note"]

    def read(module, path, threads):
        model = models[Path(path).name]
        return lambda images: [model(torch.from_numpy(images)).detach().numpy()]

    monkeypatch.setitem(sys.modules, "fake_engine", ModuleType("fake_engine"))
    engine = targets.TARGETS["openvino"]
    changed = type(engine)(".xml", (), "openvino", write, targets._open_engine)
    monkeypatch.setitem(TARGETS, "openvino", changed)
    kind = type(ENGINES[".xml"])
    monkeypatch.setitem(ENGINES, ".xml", kind("OpenVINO", "fake_engine", "openvino", read))


def test_files_beside_one_another(fake, tmp_path):
    path = tmp_path / "m.xml"
    written = export_model(Small(), path, 32, dynamic=False, metadata=METADATA)
    assert written.differences == {"1x3x32x32": 0.0}
    assert written.notes == ["one note"]
    names = ["m.bin", "m.xml.json", "m.xml"]
    assert written.files == [str(tmp_path / name) for name in names]
    assert written.bytes == sum((tmp_path / name).stat().st_size for name in names)
    predictor = OnnxPredictor(path)
    assert predictor.classes == METADATA["classes"]
    file = open_exported(path)
    with pytest.raises(UserError, match="takes inputs of 1x3x32x32, not 1x3x40x32"):
        file.run(np.zeros((1, 3, 40, 32), np.float32))
    export_model(Small(), path, 32, dynamic=False, metadata=METADATA)  # its own files are replaced
    (tmp_path / "m.xml.json").unlink()
    with pytest.raises(UserError, match=r"m\.xml\.json, with its preprocessing and classes, is"):
        open_exported(path)


def test_a_file_without_metadata_is_compared_too(fake, tmp_path):
    written = export_model(Small(), tmp_path / "m.xml", 32, dynamic=False)
    assert written.differences == {"1x3x32x32": 0.0}


def test_a_file_of_others_is_not_replaced(fake, tmp_path):
    (tmp_path / "m.bin").write_text("weights of years")
    with pytest.raises(UsageError, match=r"m\.bin: exists and would be replaced"):
        export_model(Small(), tmp_path / "m.xml", 32, dynamic=False, metadata=METADATA)
    assert (tmp_path / "m.bin").read_text() == "weights of years"


@pytest.mark.parametrize(
    "broken",
    [
        "{",
        '{"preprocessing": 1}',
        '{"preprocessing": {}, "images": [1, 2], "outputs": {"a": [1]}}',
        '{"preprocessing": {}, "images": [1, 3, 8, 8], "outputs": {"a": 1}}',
        '{"preprocessing": {}, "images": [1, 3, 8, 8], "outputs": {}}',
    ],
)
def test_damaged_metadata_are_refused(broken, tmp_path):
    (tmp_path / "m.xml").write_text("")
    (tmp_path / "m.xml.json").write_text(broken)
    with pytest.raises(UserError, match="damaged"):
        open_exported(tmp_path / "m.xml")


def test_what_depends_on_the_size_alone_is_constant():
    images = torch.randn(1, 3, 32, 32)
    model = Small().eval()
    given = Traceable(model, images, {"logits": [1, 3]}, dynamic=False)
    folded = fold_constants(given.program, images)
    kinds = {str(node.target) for node in folded.graph.nodes if node.op == "call_function"}
    assert not [kind for kind in kinds if "arange" in kind or "and" in kind or "assert" in kind]
    torch.testing.assert_close(folded.module()(images), model(images))


def test_permutations_that_undo_each_other_are_dropped():
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.permute(0, 2, 3, 1).permute(0, -1, 1, 2)
            return y + x.permute(0, 2, 3, 1).permute(0, 2, 1, 3).sum(-1)

    x = torch.randn(1, 3, 3, 3)
    program = fold_constants(torch.export.export(Twice(), (x,)), x)
    assert sum("permute" in str(node.target) for node in program.graph.nodes) == 2
    torch.testing.assert_close(program.module()(x), Twice()(x))


@pytest.mark.parametrize("name", ["spanet_nano", "spanetv2_nano_pure"])
@pytest.mark.parametrize("to", ["openvino", "executorch", "coreml", "litert"])
@pytest.mark.slow
def test_networks_in_each_runtime(name, to, tmp_path):
    target = TARGETS[to]
    for module in target.needs:
        pytest.importorskip(module)
    network = timm.create_model(name, num_classes=3, depths=(1, 1, 1, 1)).eval()
    path = tmp_path / f"m{target.suffix}"
    metadata = json.loads(json.dumps(METADATA))
    written = export_model(network, path, 64, dynamic=target.is_free, metadata=metadata)
    assert (not written.differences) == (to == "coreml")
    if to == "executorch":
        share = float(written.notes[0].partition("(")[2].partition("%")[0])
        assert share >= 95
