"""The GPU benchmark, which no test machine can run: its dry run does every step on the CPU."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_dry_run_measures_every_form_and_target() -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--dry-run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout[done.stdout.index("{") :])
    for step in ("inference", "training"):
        assert not result[step]["failed"]
        forms = result[step]["forms"]
        assert {"spanet_nano", "spanet_nano released float32 eager", "convnext_atto"} <= set(forms)
        assert all(row["images_per_s"] > 0 for row in forms.values())
    assert all(target["reached"] > 0 for target in result["targets"].values())
    assert result["training"]["kernels"]["spanet_nano"]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("gpu")


@pytest.mark.parametrize("missing", ["", "ours", "ours fft compiled", "peer"])
def test_a_form_that_fails_loses_no_other(gpu: ModuleType, missing: str) -> None:
    models = gpu.Models("ours", "theirs", ("peer",))
    seconds = {"ours": [1.0, 2.0], "ours fft compiled": [2.0, 6.0], "peer": [1.5, 3.0]}
    seconds.pop(missing, None)
    measured = {("inference", name): values for name, values in seconds.items()}
    measured |= {("training", name): values for name, values in seconds.items()}
    memory = dict.fromkeys(measured, 10)
    turns = gpu.Turns(measured, memory, {}, {}, {("inference", missing): "out of time"})
    rows = {step: gpu._rows(step, turns, models, 4) for step in gpu.STEPS}
    assert set(rows["training"]["forms"]) == set(seconds)
    assert rows["inference"]["failed"] == {missing: "out of time"}
    reached = [row["reached"] for row in gpu.verdict(models, **rows).values()]
    whole = [2.5, 2.5, 1.0, 1.5]
    lost = {
        "": [],
        "ours": [0, 1, 2, 3],
        "ours fft compiled": [0, 1, 2],
        "peer": [3],
    }[missing]
    assert reached == [None if i in lost else value for i, value in enumerate(whole)]
