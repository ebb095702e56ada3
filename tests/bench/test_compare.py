"""`spanets bench`: rows, forms, backends, pictures, and what does not go together."""

import json
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from matplotlib.figure import Figure
from PIL import Image

import spanets_cli
from spanets.bench import timing
from spanets.bench.compare import _count_as_run, compare
from spanets.bench.memory import peak_memory
from spanets.bench.report import plot, table_rows
from spanets.bench.running import Setting
from spanets.bench.timed_models import build_form
from spanets.bench.timing import interleave, summarise
from spanets.deploy.export import export_model
from spanets_runtime.errors import UsageError, UserError

FAST = {"rounds": 2, "warmup": 1}


def test_rows_tell_what_was_run():
    result = compare(
        ["spanet_nano", "test_resnet"], Setting(), [1, 2], [32, 64], ["default", "fft"], **FAST
    )
    keys = [(row["model"], row["form"], row["batch"], row["size"]) for row in result["rows"]]
    assert keys == [
        (*kind, batch, size)
        for size in (32, 64)
        for batch in (1, 2)
        for kind in [("spanet_nano", "default"), ("spanet_nano", "fft"), ("test_resnet", "default")]
    ]
    for row in result["rows"]:
        assert 0 < row["quartile1_ms"] <= row["latency_ms"] <= row["quartile3_ms"]
        assert row["images_per_s"] == pytest.approx(row["batch"] / row["latency_ms"] * 1e3, rel=0.1)
        assert (row["fft_flops"] > 0) == (row["form"] == "fft")
        assert row["parameters"] > 0
        assert row["macs"] > 0
    told = result["circumstances"]
    assert {"date", "processor", "threads", "torch", "timm", "spanets"} <= told.keys()
    assert result["setting"]["backend"] == "eager"


@pytest.mark.parametrize(
    "setting",
    [
        Setting(train=True),
        Setting(train=True, dtype="bfloat16"),
        Setting(dtype="bfloat16", channels_last=True),
        pytest.param(Setting(backend="onnx"), marks=pytest.mark.slow),
    ],
)
def test_ways_to_run(setting):
    # Exporting takes as long as a model has operators.
    model = "test_resnet" if setting.backend == "onnx" else "spanetv2_nano_pure"
    (row,) = compare([model], setting, [2], [64], **FAST)["rows"]
    assert row["latency_ms"] > 0


@pytest.mark.slow  # compiles twelve times
def test_every_batch_is_compiled_for_its_own_size(monkeypatch):
    compiled = []
    original = torch.compile

    def watched(model, **options):
        def backend(graph, inputs):
            compiled.extend(x.shape[0] for x in inputs if x.shape[1:] == (3, 32, 32))
            return graph.forward

        return original(model, backend=backend, **options)

    monkeypatch.setattr(torch, "compile", watched)
    compare(["test_resnet"], Setting(backend="compile"), [1, 2, 3], [32], rounds=1, warmup=0)
    assert compiled == [1, 2, 3]
    # By itself torch compiles a piece of code eight times.
    compiled.clear()
    compare(["test_resnet"] * 9, Setting(backend="compile"), [1], [32], rounds=1, warmup=0)
    assert compiled == [1] * 9


@pytest.mark.slow
def test_compiled():
    (row,) = compare(["test_resnet"], Setting(backend="compile"), [1], [32], **FAST)["rows"]
    assert row["latency_ms"] > 0


def test_a_model_may_stand_beside_itself(tmp_path, monkeypatch):
    result = compare(["test_resnet"] * 2, Setting(), [1], [32], **FAST)
    assert [row["model"] for row in result["rows"]] == ["test_resnet"] * 2
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    plot(result, tmp_path / "b.png")
    (axes,) = drawn[0].axes
    assert len({bar.get_y() for bar in axes.patches}) == 2


@pytest.mark.parametrize(("backend", "device"), [("onnx", "cpu"), ("compile", "cpu")])
def test_costs_are_those_of_what_runs(backend, device):
    """SPANetV2's filters are products there, and FFTs in eager mode."""
    model = build_form("spanetv2_nano_pure")
    eager = _count_as_run(model, Setting(), 64)
    ours = _count_as_run(model, Setting(backend=backend, device=device), 64)
    assert eager.fft_flops > 0
    assert ours.fft_flops == 0
    assert ours.macs > eager.macs
    assert _count_as_run(model, Setting(), 64) == eager  # it is left as it was
    fft = build_form("spanetv2_nano_pure", "fft")
    assert _count_as_run(fft, Setting(backend=backend), 64) == eager


def test_sessions_are_timed_while_others_sleep(monkeypatch):
    """Each waits, runs untimed so that its own threads are awake, and is timed."""
    told = []
    monkeypatch.setattr(timing, "sleep", lambda seconds: told.append(f"sleep {seconds}"))
    monkeypatch.setattr(timing, "_cpu_seconds", lambda task: told.append("timed") or task() or 1.0)
    tasks = {name: partial(told.append, name) for name in "ab"}
    assert interleave(tasks, 1, warmup=0, settle=0.5) == {"a": [1.0], "b": [1.0]}
    assert told == ["sleep 0.5", "a", "timed", "a", "sleep 0.5", "b", "timed", "b"]
    told.clear()
    assert interleave(tasks, 1, warmup=0) == {"a": [1.0], "b": [1.0]}
    assert told == ["timed", "a", "timed", "b"]


@pytest.mark.slow
def test_only_sessions_are_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(timing, "sleep", waited.append)
    compare(["test_resnet"], Setting(), [1], [64], **FAST)
    assert waited == []
    compare(["test_resnet"], Setting(backend="onnx"), [1], [64], **FAST)
    assert len(waited) == FAST["rounds"] + FAST["warmup"]


def test_checkpoints_stand_beside_models(small_run):
    path = str(small_run / "last.ckpt")
    for setting in (Setting(), Setting(train=True)):
        forms = ["default", "fft"]  # of models by name
        own, named = compare([path, "test_resnet"], setting, [2], [64], forms, **FAST)["rows"]
        assert own["model"] == path
        assert own["latency_ms"] > 0 and own["macs"] > 0 and own["parameters"] > 0
        assert named["model"] == "test_resnet"


def test_functions_stand_beside_models(tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(
        "from torch import nn\n\ndef small():\n    return nn.Conv2d(3, 2, 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own, named = compare(
        ["own_networks:small", "test_resnet"], Setting(), [1], [64], ["default"], **FAST
    )["rows"]
    assert (own["model"], own["parameters"]) == ("own_networks:small", 8)
    assert named["model"] == "test_resnet"


FOLDING = """
from torch import nn

class Folding(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1)
        self.first.requires_grad_(False)
        self.train_form = True

    def forward(self, x):
        x = self.first(x)
        return (self.second(x) if self.train_form else x).mean((2, 3))

    def reparameterize(self):
        self.second, self.train_form = nn.Identity(), False

def small():
    return nn.Sequential(Folding())
"""


@pytest.mark.parametrize(("train", "parameters", "macs"), [(False, 8, 6), (True, 14, 10)])
def test_costs_are_those_of_the_network_that_is_timed(
    tmp_path, monkeypatch, train, parameters, macs
):
    """Inference is timed folded; frozen parameters are parameters."""
    (tmp_path / f"folding_{train}.py").write_text(FOLDING)
    monkeypatch.syspath_prepend(tmp_path)
    (row,) = compare([f"folding_{train}:small"], Setting(train=train), [1], [8], **FAST)["rows"]
    assert (row["parameters"], row["macs"]) == (parameters, macs * 64)


@pytest.mark.slow  # exports twice
def test_exported_files_stand_beside_models(tmp_path):
    whole, eight = str(tmp_path / "whole.onnx"), str(tmp_path / "eight.onnx")
    model = timm.create_model("test_resnet").eval()
    export_model(model, whole, 64, dynamic=False)
    images = [torch.randn(3, 64, 64).numpy() for _ in range(2)]
    export_model(model, eight, 64, "int8", dynamic=False, calibration=images)
    result = compare([whole, "test_resnet", eight], Setting(backend="onnx"), [1], [64], **FAST)
    assert [row["model"] for row in result["rows"]] == [whole, "test_resnet", eight]
    assert all(row["latency_ms"] > 0 for row in result["rows"])
    for row, cells in zip(result["rows"], table_rows(result), strict=True):
        known = row["model"] == "test_resnet"
        assert known == (row["macs"] is not None) == (row["parameters"] is not None)
        assert known == all(cells[-3:])
    json.dumps(result)
    with pytest.raises(UsageError, match="its input is 1x3x64x64, not 2x3x64x64; set --batch and"):
        compare([eight], Setting(backend="onnx"), [2], [64], **FAST)


def test_files_that_cannot_be_timed(tmp_path):
    bad = tmp_path / "bad.onnx"
    with pytest.raises(UserError, match=r"bad\.onnx: no such file"):
        compare([str(bad)], Setting(backend="onnx"), [1], [64], **FAST)
    bad.write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"bad\.onnx: not an ONNX model that onnxruntime can read"):
        compare([str(bad)], Setting(backend="onnx"), [1], [64], **FAST)
    with pytest.raises(UserError, match=r"a\.ckpt: no such file"):
        compare(["a.ckpt"], Setting(), [1], [64], **FAST)


@pytest.mark.parametrize("batch", [10**8, 10**17])
def test_what_does_not_fit_into_memory(batch):
    with pytest.raises(UserError, match="does not fit into memory; make --size or --batch small"):
        compare(["test_resnet"], Setting(), [batch], [64], **FAST)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["spanet_nan"], "unknown model 'spanet_nan'; did you mean 'spanet_nano'?"),
        (["spanet_nano", "--form", "fth"], "--form is 'fth', allowed: default, fft"),
        (["spanet_nano", "--dtype", "int4"], "--dtype is 'int4', allowed: float32, bfloat16, floa"),
        (["spanet_nano", "--backend", "tvm"], "--backend is 'tvm', allowed: eager, compile, onnx"),
        (["spanet_nano", "--backend", "onnx", "--train"], "onnx runs inference on the CPU; leave"),
        (["spanet_nano", "--backend", "onnx", "--dtype", "bfloat16"], "float32 or float16, not bf"),
        (["spanet_nano", "--backend", "onnx", "--compile"], "--compile does not go with --backend"),
        (["spanet_nano", "--device", "abacus"], "--device is 'abacus', allowed: cpu, cuda, cuda:1"),
        (["spanet_nano", "--plot", "a.txt"], "--plot a.txt: the suffix must be .png, .svg, .pdf"),
        (["spanet_nano", "--backend", "onnx", "--channels-last"], "leave out --channels-last"),
        (["spanet_nano", "test_resnet", "--form", "fft"], "test_resnet has only one form; leave"),
        (["spanet_nano", "--backend", "eager", "--compile"], "--compile does not go with --backe"),
        (["a.onnx"], "a.onnx runs with onnxruntime, not eager; add --backend onnx"),
        (["a.onnx", "--backend", "onnx", "--dtype", "float16"], "does not change exported files"),
        (["resnt18.a1_in1k"], "unknown model 'resnt18.a1_in1k'; did you mean 'resnet18"),
        (["tests"], "tests is a folder; give a checkpoint or a file in it"),
        (["hf-hub:timm/resnet18"], "unknown model 'hf-hub:timm/resnet18'"),
        (["a.pt2"], "a.pt2 is a torch.export program; bench takes FILE.onnx, a che"),
        (
            ["a.ckpt", "--form", "fft"],
            "--form fft: a.ckpt has only one form; leave out --form, or name a SPANet or SPANetV2",
        ),
        (["spanet_nano", "--batch", "0"], "argument --batch: 0 is no whole number from 1 to 65536"),
    ],
)
def test_bad_words(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tests").mkdir()
    assert spanets_cli.main(["bench", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_size_that_a_model_refuses():
    with pytest.raises(UserError, match=r"^spanet_nano at 1x16x16: image is 16x16 pixels, the sm"):
        compare(["spanet_nano"], Setting(), [1], [16], **FAST)


def test_table_json_and_picture(tmp_path, capsys):
    words = ["bench", "spanet_nano", "test_resnet", "--size", "64", "--rounds", "2"]
    picture = tmp_path / "b.png"
    assert spanets_cli.main([*words, "--plot", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("inference, eager, float32, ")
    assert lines[1].split()[:3] == ["model", "batch", "size"]
    assert [line.split()[0] for line in lines[2:]] == ["spanet_nano", "test_resnet"]
    with Image.open(picture) as image:
        assert image.width > 500
    assert spanets_cli.main([*words, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 2


def test_a_bad_place_for_the_picture_is_told_first(tmp_path, capsys):
    (tmp_path / "b.png").mkdir()
    words = ["bench", "spanet_nano", "--plot", str(tmp_path / "b.png")]
    assert spanets_cli.main(words) == 1
    assert "b.png: cannot be written (it is a folder; name a file" in capsys.readouterr().err


def test_tasks_take_turns():
    order = []
    tasks = {name: (lambda name=name: order.append(name)) for name in "ab"}
    seconds = interleave(tasks, rounds=3, warmup=1)
    assert order == ["a", "b"] * 4
    assert [len(values) for values in seconds.values()] == [3, 3]


def test_ratios_are_taken_within_rounds():
    rows = summarise({"a": [1.0, 10.0, 1.0], "b": [2.0, 20.0, 2.0]}, "a")
    assert rows["b"]["relative_to_a"] == 2
    assert rows["b"]["median_s"] == 2


def test_memory_of_a_known_array():
    used = peak_memory(lambda: torch.ones(25_000_000).sum())
    if used is None:
        pytest.skip("this system does not tell")
    assert used == pytest.approx(1e8, rel=0.1)


def test_setting_is_checked_first():
    with pytest.raises(UsageError):
        Setting(dtype="float8").check()
