"""Where the kernels run, and that they compute what they say, by Triton's interpreter."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from spanets import kernels
from spanets.kernels import availability

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="torch for the CPU alone")


@needs_triton
@pytest.mark.parametrize("speed", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_kernels_agree_with_plain_torch(speed: str) -> None:
    options = ["-o", "addopts=--import-mode=importlib"]  # without -q, a summary tells of skips
    files = [str(HERE / f"{name}.py") for name in ("test_interpreted", "test_interpreted_blocks")]
    command = [sys.executable, "-m", "pytest", *options, *files, "-m", speed]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=HERE.parents[1]
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout


def test_nothing_is_taken_on_the_cpu() -> None:
    assert not kernels.is_supported(torch.zeros(1, 8, 4, 4).to(memory_format=torch.channels_last))


def test_models_work_without_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = sys.modules['triton.language'] = None\n"
        "import timm, torch, spanets\n"
        "from spanets.kernels import availability\n"
        "assert availability.triton is None\n"
        "assert not availability._has_support(0)\n"
        "timm.create_model('spanet_nano')(torch.zeros(2, 3, 64, 64)).sum().backward()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Triton" not in done.stderr


def test_versions_that_the_kernels_are_written_for() -> None:
    served = {"3.3.1": False, "3.4.0": True, "3.10.0": True, "4.0.0+git1": True}
    assert {version: availability._is_recent(version) for version in served} == served


@needs_triton
def test_gpus_that_triton_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPANETS_KERNELS", raising=False)
    for capability, served in [((9, 0), True), ((8, 0), True), ((7, 5), False)]:
        availability._has_support.cache_clear()
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert availability._has_support(0) is served
    availability._has_support.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setenv("SPANETS_KERNELS", "0")
    assert not availability._has_support(0)
    availability._has_support.cache_clear()
