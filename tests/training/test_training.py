"""What a run does, against what its recipe says."""

import fcntl
import json
import math
import os
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_runs import SMALL, call, make_photos
from squares import make_brightness
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

import spanets_cli
from spanets.checkpoint import load_checkpoint
from spanets.classification.module import Classification
from spanets.recipe import load_recipe, parse_recipe
from spanets.regression.module import Regression
from spanets.training.engine import per_device_batch, train
from spanets_runtime.errors import UsageError


@pytest.fixture
def no_pictures(monkeypatch):
    """They take longer than the training."""
    for name in ("training.report.plot_curves", "classification.report.plot_confusion"):
        monkeypatch.setattr(f"spanets.{name}", lambda *_, **__: None)


@pytest.fixture
def run(small_recipe, tmp_path, no_pictures):
    """Trains the small recipe with changes; returns its folder and its results."""
    numbers = iter(range(100))

    def run(*words) -> tuple[Path, dict]:
        out = tmp_path / f"run-{next(numbers)}"
        return out, train(load_recipe(small_recipe, [str(word) for word in words]), out)

    return run


def weights(path: Path) -> dict[str, Tensor]:
    return load_checkpoint(path)[1]


# ---- what is left


@pytest.mark.page
def test_train_ends_with_a_summary(small_recipe, tmp_path, capsys):
    out = tmp_path / "run"
    status, printed, said = call(capsys, "train", small_recipe, "--out", out)
    assert status == 0
    results = json.loads((out / "results.json").read_text())
    assert printed.splitlines()[1].startswith("test_resnet, 0.37 M parameters, 2 epochs in 0:")
    assert f"accuracy          {results['metrics']['accuracy']:.4f}" in printed
    assert f"next: spanets predict {out}/last.ckpt" in printed
    # Lines and no bar, where there is no terminal.
    first, second = said.splitlines()
    number = r"\d+\.\d{4}"
    form = rf"epoch 1/2  loss {number}  val loss {number}  val accuracy {number}  left \d+:\d\d"
    assert re.fullmatch(form, first)
    assert second.endswith("left 0:00")

    names = {"recipe.yaml", "last.ckpt", "best.ckpt", "previous.ckpt", "metrics.csv", "tensorboard"}
    names |= {"environment.json", "results.json", "report.html", "split.csv"}
    names |= {"learning_curve.png", "confusion_matrix.png"}
    assert set(os.listdir(out)) == names
    for name in ("learning_curve.png", "confusion_matrix.png"):
        assert min(Image.open(out / name).size) > 300
    assert call(capsys, "train", out / "recipe.yaml", "--out", out)[0] == 2  # not overwritten


def test_logs(run):
    out, results = run("--trainer.epochs", "3", "--trainer.val_every", "2")
    rows = (out / "metrics.csv").read_text().splitlines()
    header, *rows = (row.split(",") for row in rows)
    assert header[:2] == ["epoch", "seconds"]
    assert {"train/loss", "train/lr", "val/loss", "val/accuracy", "val/f1"} <= set(header)
    table = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    # Only the second epoch was validated, and the first's empty cells are no zeros.
    assert [bool(row["val/accuracy"]) for row in table] == [False, True, False]
    assert all(row["train/loss"] for row in table)
    assert results["best_epoch"] == 2
    assert results["epochs"] == 3

    board = EventAccumulator(str(out / "tensorboard")).Reload()
    assert {"train/loss", "train/lr", "val/accuracy"} <= set(board.Tags()["scalars"])
    losses = [event.value for event in board.Scalars("train/loss")]
    assert losses == pytest.approx([float(row["train/loss"]) for row in table])


def test_the_last_weights_are_measured(run):
    """The validation of the last epoch and the summary see the same weights and images."""
    out, results = run()
    last = (out / "metrics.csv").read_text().splitlines()
    last = dict(zip(last[0].split(","), last[-1].split(","), strict=True))
    logged = {name: v for name, v in results["metrics"].items() if name != "ece"}
    for name, value in logged.items():
        assert float(last[f"val/{name}"]) == pytest.approx(value, rel=1e-5)


def test_learning_works(run):
    """Colours are told apart."""
    _, results = run("--trainer.epochs", "8", "--optim.lr", "3e-3")
    assert results["metrics"]["accuracy"] == 1


# ---- updates


def test_learning_rates(run, monkeypatch):
    """Linear warm-up, cosine, and cool-down at its end, update by update."""
    seen: list[float] = []
    step = Classification.training_step

    def record(self, batch, index):
        seen.append(self.optimizers().param_groups[0]["lr"])
        return step(self, batch, index)

    monkeypatch.setattr(Classification, "training_step", record)
    run(
        *("--trainer.epochs", 4, "--optim.warmup_epochs", 2, "--optim.cooldown_epochs", 2),
        *("--optim.lr", 0.1, "--optim.lr_batch_size", 8, "--optim.batch_size", 4),
        *("--optim.warmup_lr", 0.001, "--optim.min_lr", 0.002),
    )
    top, updates = 0.1 * 4 / 8, 3  # an epoch has 12 images
    expected = [0.001 + (top - 0.001) * t / (2 * updates) for t in range(2 * updates)]
    expected += [
        0.002 + 0.5 * (top - 0.002) * (1 + math.cos(math.pi * t / (4 * updates)))
        for t in range(2 * updates, 4 * updates)
    ]
    expected += [0.002] * 2 * updates
    assert seen == pytest.approx(expected)


def test_a_run_uses_the_threads_it_is_told_and_gives_them_back(run, monkeypatch):
    seen = []
    step = Classification.training_step

    def counted(self, *args):
        seen.append(torch.get_num_threads())
        return step(self, *args)

    monkeypatch.setattr(Classification, "training_step", counted)
    before = torch.get_num_threads()
    # As Lightning does where it starts several processes.
    monkeypatch.setattr(
        Classification, "setup", lambda *_, **__: torch.set_num_threads(before + 2), raising=False
    )
    for words, expected in [((), before + 2), (("--trainer.threads", before + 1), before + 1)]:
        seen.clear()
        run("--trainer.epochs", "1", *words)
        assert set(seen) == {expected}
        assert torch.get_num_threads() == before


def test_gradients_are_clipped(run):
    """Of one update with plain momentum: the step is lr times the gradient."""
    words = ["--optim.name", "momentum", "--optim.weight_decay", 0, "--optim.batch_size", 12]
    words += ["--trainer.epochs", 1, "--optim.warmup_epochs", 0, "--optim.lr", 0.5]
    still, _ = run(*words[:-1], 0)
    free, _ = run(*words)
    clipped, _ = run(*words, "--optim.clip_grad", 0.01)
    start = weights(still / "last.ckpt")
    lengths = [
        sum(
            (w - start[k]).pow(2).sum()
            for k, w in weights(out / "last.ckpt").items()
            if is_trained(k)
        ).sqrt()
        for out in (free, clipped)
    ]
    assert lengths[0] > 0.5 * 0.1
    assert lengths[1] == pytest.approx(0.5 * 0.01, rel=1e-3)  # float32 differences of weights


def is_trained(key: str) -> bool:
    return "running_" not in key and "num_batches" not in key


def test_accumulated_batches_make_the_updates_of_one_large_one(run):
    words = ["--model.name", "test_convnext", "--optim.name", "sgd", "--optim.lr", 0.1]
    words += ["--optim.batch_size", 8, "--optim.warmup_epochs", 0]
    large, _ = run(*words)
    small, _ = run(*words, "--trainer.accumulate", 4)
    still, _ = run(*words, "--optim.lr", 0)
    moved = 0.0
    start, b = weights(still / "last.ckpt"), weights(small / "last.ckpt")
    for key, value in weights(large / "last.ckpt").items():
        # Means of means are rounded otherwise.
        torch.testing.assert_close(value, b[key], rtol=1e-4, atol=1e-5)
        moved = max(moved, (value - start[key]).abs().max().item())
    assert moved > 1e-2


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_averaged_weights_are_those_saved_and_measured(precision, run, monkeypatch):
    after: list[dict[str, Tensor]] = []
    step = Classification.lr_scheduler_step

    def record(self, *arguments):
        # In float32, as the average of bfloat16 weights is, which a validation does not round.
        state = self.model.state_dict()
        after.append({key: value.float().clone() for key, value in state.items()})
        return step(self, *arguments)

    monkeypatch.setattr(Classification, "lr_scheduler_step", record)
    out, results = run("--optim.ema_decay", "0.7", "--trainer.precision", precision)
    assert len(after) == 6
    average = after[0]
    for state in after[1:]:
        average = {key: 0.7 * value + 0.3 * state[key] for key, value in average.items()}
    saved = weights(out / "last.ckpt")
    for key, value in average.items():
        if is_trained(key):
            torch.testing.assert_close(saved[key], value)
    assert not torch.allclose(saved["fc.weight"], after[-1]["fc.weight"])
    history = (out / "metrics.csv").read_text().splitlines()
    last = dict(zip(history[0].split(","), history[-1].split(","), strict=True))
    error = 1e-5 if precision == "32-true" else 1e-2  # validated in bfloat16
    assert float(last["val/loss"]) == pytest.approx(results["metrics"]["loss"], rel=error)


def test_low_precision_does_not_round_the_targets(tmp_path, monkeypatch):
    keys = {**SMALL, "model.pretrained": "false", "data.targets": "[brightness]"}
    keys |= {"data.root": make_brightness(tmp_path / "data", 12), "optim.layer_decay": "null"}
    keys |= {"trainer.precision": "bf16-true", "optim.loss": "huber", "trainer.epochs": 1}
    keys |= {"trainer.patience": "null"}
    seen: list[Tensor] = []
    losses = Regression.losses

    def record(self, outputs, targets):
        seen.append(targets)
        return losses(self, outputs, targets)

    monkeypatch.setattr(Regression, "losses", record)
    monkeypatch.setattr("spanets.training.report.plot_curves", lambda *_, **__: None)
    monkeypatch.setattr("spanets.regression.report.plot_scatter", lambda *_, **__: None)
    words = [word for key, value in keys.items() for word in (f"--{key}", str(value))]
    train(load_recipe("regression", words), tmp_path / "run")
    assert {targets.dtype for targets in seen} == {torch.float32}
    assert not all(targets.equal(targets.bfloat16().float()) for targets in seen)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_low_precision(precision, run):
    exact, _ = run()
    rough, results = run("--trainer.precision", precision)
    a, b = weights(exact / "last.ckpt")["fc.weight"], weights(rough / "last.ckpt")["fc.weight"]
    assert b.dtype == (torch.float32 if precision == "bf16-mixed" else torch.bfloat16)
    assert 0 < (a - b.float()).abs().max() < 0.1
    assert results["images"] == 4


# ---- batches


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ([], 32),
        (["--trainer.accumulate", "4"], 8),
        (["--trainer.devices", "2", "--trainer.num_nodes", "2", "--trainer.accumulate", "2"], 4),
    ],
)
def test_batch_arithmetic(words, size):
    words = ["--trainer.accelerator", "cpu", "--optim.batch_size", "32", *words]
    assert per_device_batch(parse_recipe({}, words)) == size


def test_batches_that_do_not_divide():
    words = ["--optim.batch_size", "32", "--trainer.devices", "3", "--trainer.accumulate", "2"]
    line = "32 is not divisible by 3 devices × 1 nodes × 2 accumulated batches = 6"
    with pytest.raises(UsageError, match=re.escape(line)):
        per_device_batch(parse_recipe({}, words))


@pytest.mark.parametrize(
    ("words", "updates"),
    [
        (["--optim.batch_size", "11"], 1),  # a last image would be a batch without variance
        (["--optim.batch_size", "64"], 1),
        (["--optim.batch_size", "5"], 2),
        (["--optim.batch_size", "64", "--trainer.accumulate", "32"], 1),
        (["--optim.batch_size", "4", "--trainer.accumulate", "2"], 3),
        (["--optim.batch_size", "8", "--data.mixup", "1", "--data.val_fraction", "0.3"], 1),
    ],
)
def test_any_batch_size_trains(words, updates, run):
    """Twelve images are for training, eleven in the last case."""
    out, _ = run("--trainer.epochs", "1", *words)
    assert torch.load(out / "last.ckpt", weights_only=True)["global_step"] == updates


# ---- on a terminal


def test_a_bar_on_a_terminal(small_recipe, tmp_path, process, monkeypatch):
    step = Classification.training_step

    def step_slowly(self, *arguments):
        time.sleep(0.15)  # a bar moves ten times a second at most
        return step(self, *arguments)

    monkeypatch.setattr(Classification, "training_step", step_slowly)
    terminal, inner = os.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))

    def train_on_a_terminal() -> int:
        os.dup2(inner, 2)
        sys.stderr = os.fdopen(2, "w", closefd=False, buffering=1)
        return spanets_cli.main(["train", small_recipe, "--out", str(tmp_path / "run")])

    running = process(train_on_a_terminal)
    os.close(inner)
    shown = b""
    try:
        while part := os.read(terminal, 10_000):
            shown += part
    except OSError:  # how Linux says that the other end is closed
        pass
    status, printed, _ = running.wait()
    os.close(terminal)
    assert status == 0
    assert "test_resnet, 0.37 M parameters" in printed
    frames = re.split(r"[\r\n]+", shown.decode())
    number = r"\d+\.\d{4}"
    bar = rf"epoch 2/2 .*/3, loss {number}  val accuracy {number}  left \d:\d\d"
    assert any(re.match(bar, frame) for frame in frames)
    assert any(frame.startswith("epoch 1/2 validation") for frame in frames)
    assert (
        sum(
            re.match(rf"epoch [12]/2  loss {number}  val loss", frame) is not None
            for frame in frames
        )
        == 2
    )


# ---- several devices


@pytest.mark.slow
def test_two_processes_make_the_updates_of_one(small_recipe, tmp_path, run):
    """A batch shared by two processes, in a real run that starts the second one."""
    words = ["--model.name", "test_convnext", "--optim.name", "sgd", "--optim.lr", "0.1"]
    words += ["--optim.batch_size", "4", "--data.val_fraction", "0.3"]
    one, results = run(*words)
    two = tmp_path / "two"
    command = [sys.executable, "-m", "spanets_cli", "train", small_recipe, *words]
    done = subprocess.run(
        [*command, "--trainer.devices", "2", "--out", str(two)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 2
    a, b = weights(one / "last.ckpt"), weights(two / "last.ckpt")
    for key, value in a.items():
        torch.testing.assert_close(value, b[key], rtol=1e-4, atol=1e-5)
    found = json.loads((two / "results.json").read_text())
    assert found["images"] == results["images"] == 5
    assert found["metrics"]["loss"] == pytest.approx(results["metrics"]["loss"], rel=1e-3)


def test_pictures_of_many_classes(tmp_path, small_recipe):
    root = make_photos(tmp_path / "photos", **{f"class-{i}": 2 for i in range(7)})
    recipe = load_recipe(small_recipe, ["--data.root", str(root), "--data.val_fraction", "0.5"])
    results = train(recipe, tmp_path / "run")
    assert "accuracy_top5" in results["metrics"]
