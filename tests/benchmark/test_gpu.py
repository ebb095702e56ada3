"""The GPU benchmark, which no test machine can run: its dry run does every step on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

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
    assert result["kernels_of_a_training_step"]
