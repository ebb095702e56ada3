"""Runs of several processes: the updates of one, whole evaluations, and what becomes of faults.

The processes are forked and find each other as torchrun's do; on GPUs nothing but the transport
of gradients differs.
"""

import csv
import os
import re
import signal
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from small_runs import free_port, make_photos, member

import spanets_cli
from spanets.checkpoint import load_checkpoint
from spanets.classification.module import Classification
from spanets.recipe import load_recipe, parse_recipe
from spanets.training.devices import count_processes, describe_devices
from spanets.training.engine import train
from spanets.training.peers import Peers
from spanets_runtime.errors import UsageError

# No batch norm, whose statistics are those of a device's images; no mixing and no drop path, whose
# draws are a process's own. All else is drawn for each image by its number.
WORDS = ["--model.name", "test_convnext", "--trainer.epochs", "3", "--optim.batch_size", "8"]
WORDS += ["--data.scale", "[0.5, 1]", "--optim.label_smoothing", "0.1"]


@pytest.fixture(scope="module")
def recipe_file(small_recipe, tmp_path_factory) -> str:
    """A recipe on 37 images: 26 for training, eleven for validation."""
    root = make_photos(tmp_path_factory.mktemp("more"), cat=18, dog=19)
    path = tmp_path_factory.mktemp("recipe") / "r.yaml"
    text = re.sub("data.root: .*", f"data.root: {root}", Path(small_recipe).read_text())
    path.write_text(f"{text}\ndata.val_fraction: 0.29")
    return str(path)


@pytest.fixture
def together(process, recipe_file):
    """Starts a command on several processes; returns them."""

    def start(count: int, out: Path, *more: str) -> list:
        words = ["train", recipe_file, *WORDS, "--trainer.devices", str(count), "--out", str(out)]
        port = free_port()
        runs = [
            member(rank, count, port, lambda: spanets_cli.main([*words, *more]))
            for rank in range(count)
        ]
        return [process(run) for run in runs]

    return start


def finish(running: list) -> None:
    for one in running:
        status, _, said = one.wait()
        assert status == 0, said


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take longer than the training."""
    for name in ("training.report.plot_curves", "classification.report.plot_confusion"):
        monkeypatch.setattr(f"spanets.{name}", lambda *_, **__: None)


@pytest.fixture(scope="module")
def alone(recipe_file, tmp_path_factory) -> Path:
    """The same run on one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("training.report.plot_curves", "classification.report.plot_confusion"):
            patch.setattr(f"spanets.{name}", lambda *_, **__: None)
        train(load_recipe(recipe_file, WORDS), out)
    return out


def history(out: Path) -> list[dict[str, float]]:
    with (out / "metrics.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    for row in rows:
        del row["seconds"]
    return rows


def assert_same_curves(a: Path, b: Path) -> None:
    first, second = history(a), history(b)
    assert len(first) == 3
    assert first[0]["train/loss"] > 1.001 * first[-1]["train/loss"]  # something was learnt
    for row, other in zip(first, second, strict=True):
        # Sums in another order: float32's precision, carried on by nine updates.
        assert row == pytest.approx(other, rel=1e-5, abs=1e-5)


# ---- exactness


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_curves_are_those_of_one_process(count, alone, together, tmp_path):
    """Eleven images for validation divide neither by two nor by four: none counts twice."""
    out = tmp_path / "run"
    finish(together(count, out))
    assert_same_curves(alone, out)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_curves_of_a_spanet(count, together, recipe_file, tmp_path):
    words = ["--model.name", "spanet_nano"]
    train(load_recipe(recipe_file, [*WORDS, *words]), tmp_path / "alone")
    finish(together(count, tmp_path / "run", *words))
    assert_same_curves(tmp_path / "alone", tmp_path / "run")


@pytest.mark.slow
def test_sharded_curves_are_those_of_one_process(alone, together, tmp_path):
    """FSDP, on the CPU; and its checkpoint is like any other."""
    out = tmp_path / "run"
    finish(together(2, out, "--trainer.strategy", "fsdp"))
    assert_same_curves(alone, out)
    (_, a), (_, b) = load_checkpoint(alone / "last.ckpt"), load_checkpoint(out / "last.ckpt")
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert type(b[key]) is torch.Tensor
        torch.testing.assert_close(b[key], value, rtol=1e-4, atol=1e-4)


# ---- faults


def pause_at(step: int, folder: Path, monkeypatch, seconds: float = 60) -> None:
    """Makes every process touch a marker before an update, and the second one wait there."""
    train_step = Classification.training_step

    def step_or_wait(self, batch, index):
        if self.global_step == step and not (folder / f"marker-{self.global_rank}").exists():
            (folder / f"marker-{self.global_rank}").touch()
            time.sleep(seconds if self.global_rank else 0)
        return train_step(self, batch, index)

    monkeypatch.setattr(Classification, "training_step", step_or_wait)


def wait_for(path: Path, running: list) -> None:
    while not path.exists():
        for one in running:
            assert os.waitpid(one.pid, os.WNOHANG) == (0, 0), one.files[1].read_text()
        time.sleep(0.05)


def same_weights(a: Path, b: Path) -> bool:
    first, second = load_checkpoint(a / "last.ckpt")[1], load_checkpoint(b / "last.ckpt")[1]
    return all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("lost", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_process_is_named_and_ends_the_others(lost, together, tmp_path, monkeypatch):
    monkeypatch.setattr("spanets.training.peers.SILENCE", 3)
    pause_at(4, tmp_path, monkeypatch)
    out = tmp_path / "run"
    running = together(2, out)
    wait_for(tmp_path / "marker-1", running)
    start = time.monotonic()
    os.kill(running[lost].pid, signal.SIGKILL)
    status, _, said = running[1 - lost].wait()
    assert running[lost].wait()[0] == -signal.SIGKILL
    assert status == 1
    assert time.monotonic() - start < 60
    line = said.splitlines()[-1]
    expected = rf"spanets: process {lost} of 0 to 1 \(\S+, pid {running[lost].pid}\) "
    assert re.match(expected + "(has been silent for 3 s|died); fix this, then go on", line)
    assert line.endswith(f"spanets train {out}/recipe.yaml --out {out} --resume")


def test_an_error_of_one_process_is_told_by_the_others(together, tmp_path, monkeypatch):
    forward = Classification.forward

    def diverge(self, images):
        wrong = self.training and self.global_rank and self.global_step == 4
        return forward(self, images * float("nan") if wrong else images)

    monkeypatch.setattr(Classification, "forward", diverge)
    first, second = together(2, tmp_path / "run")
    status, _, said = second.wait()
    assert status == 1
    assert said.splitlines()[-1].startswith("spanets: the loss is nan in epoch 2, batch 2; ")
    status, _, said = first.wait()
    assert status == 1
    assert re.match(
        r"spanets: process 1 of 0 to 1 \(.*\) stopped: the loss is nan", said.splitlines()[-1]
    )


@pytest.mark.parametrize(
    "signum", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_to_one_process_stops_all_at_one_update(signum, together, tmp_path, monkeypatch):
    """And resumed, the run is bit for bit that which was never stopped."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    finish(together(2, whole))
    with monkeypatch.context() as patch:
        pause_at(4, tmp_path, patch, seconds=1)
        running = together(2, out)
        wait_for(tmp_path / "marker-1", running)
        os.kill(running[1].pid, signum)
        ends = [one.wait() for one in running]
    assert [status for status, _, _ in ends] == [143, 143], ends
    assert "stopped by a signal, all is saved; go on with: " in ends[0][2]
    finish(together(2, out, "--resume"))
    assert same_weights(whole, out)
    assert history(whole) == history(out)


@pytest.mark.parametrize(
    ("given", "watches"),
    [
        ({}, True),
        ({"TORCHELASTIC_RUN_ID": "x"}, False),
        ({"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "small"}, False),
        ({"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "bash"}, True),  # an interactive job, without srun
    ],
)
def test_processes_are_watched_where_no_launcher_does(given, watches, monkeypatch):
    for variable in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_JOB_NAME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    watch = Mock()
    monkeypatch.setattr("spanets.training.peers._Watch", watch)
    callback = Peers("go on")
    callback.on_fit_start(Mock(world_size=2), Mock())
    callback.on_exception(Mock(), Mock(), ValueError())
    callback.on_train_end(Mock(), Mock())
    assert watch.called == watches


# ---- what is refused


def test_torchrun_and_recipe_disagree(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    line = "torchrun started 8 processes, but trainer.devices 4 × trainer.num_nodes 1 = 4"
    with pytest.raises(UsageError, match=line):
        count_processes(parse_recipe({"trainer": {"devices": 4}}))
    assert count_processes(parse_recipe({"trainer": {"num_nodes": 2}})) == 8


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"trainer": {"devices": 1}}, "1 device; it needs two"),
        ({"optim": {"ema_decay": 0.9}}, "optim.ema_decay"),
        ({"trainer": {"precision": "16-mixed"}}, "trainer.precision 16-mixed; allowed: 32-true"),
        ({"trainer": {"compile": True}}, "trainer.compile"),
        ({"optim": {"batch_size": 2}}, "one image a device; raise optim.batch_size"),
    ],
)
def test_what_sharding_does_not_do(values, said):
    base = {"strategy": "fsdp", "devices": 2, "accelerator": "cpu"}
    trainer = {**base, **values.get("trainer", {})}
    with pytest.raises(UsageError, match=f"trainer.strategy fsdp cannot be combined with {said}"):
        describe_devices(parse_recipe({**values, "trainer": trainer}))
