"""A run that was stopped, by whatever, and resumed is the run that was never stopped."""

import csv
import errno
import os
import random
import resource
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from opened import restore_model
from resuming import assert_same_run, content, differences, history
from small_runs import free_port, make_photos, member
from tensorboard.summary.writer.record_writer import RecordWriter

import spanets_cli
from spanets.classification.module import Classification
from spanets.classification.task import ClassificationTask
from spanets.recipe import load_recipe
from spanets.runs.record import recorded
from spanets.training.callbacks import RunKeeper
from spanets.training.engine import train
from spanets.training.errors import StoppedError
from spanets.training.resuming import _read_newest
from spanets.training.run_folder import claim_run_folder, write_recipe
from spanets.training.stopping import StopRequest
from spanets_runtime.errors import UsageError, UserError

EPOCHS = ["--trainer.epochs", "3", "--optim.cooldown_epochs", "1"]

VARIANTS = {
    "plain": [],
    "frozen": ["--model.freeze", "conv1.1,layer1"],  # with batch norms
    "ema": ["--optim.ema_decay", "0.9"],
    "mixup": ["--data.mixup", "0.8", "--data.cutmix", "1.0", "--optim.label_smoothing", "0.1"],
    "erasing": ["--data.random_erasing", "0.5", "--data.erasing_mode", "pixel"],
    "drop path": ["--model.name", "test_convnext", "--model.args.drop_path_rate", "0.5"],
    "accumulation": ["--trainer.accumulate", "2", "--optim.clip_grad", "0.1"],
    "sparse validation": ["--trainer.val_every", "3"],
    "mixed precision": ["--trainer.precision", "16-mixed"],
}

# All others are slow tests. Other tests of this file resume plain runs.
QUICK = ("frozen",)

# Those in which what is saved between training and validation could differ.
BEFORE_VALIDATION = ("plain", "frozen", "ema", "accumulation", "sparse validation")


@pytest.fixture(autouse=True)
def interruptible():
    """Ctrl-C as in a terminal: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def stop_after(epoch: int, monkeypatch) -> None:
    """Makes runs stop, as with Ctrl-C, once they have saved an epoch."""
    save = RunKeeper.on_train_epoch_end

    def save_and_stop(self, trainer, module):
        save(self, trainer, module)
        if trainer.current_epoch + 1 == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunKeeper, "on_train_epoch_end", save_and_stop)


def half_a_run(recipe, out: Path, monkeypatch) -> None:
    """Trains for two epochs of four."""
    with monkeypatch.context() as patch, pytest.raises(UserError, match="stopped"):
        stop_after(2, patch)
        train(recipe, out)
    assert len(history(out)) == 2


def stop_within(epoch: int, updates: int, patch) -> None:
    """Makes runs stop, as by a scheduler's signal, after some updates of an epoch."""

    def agreed(self, trainer) -> bool:
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        at = done // trainer.accumulate_grad_batches
        return (trainer.current_epoch + 1, at) == (epoch, updates)

    patch.setattr(StopRequest, "agreed", agreed)


def stop_before_validation(epoch: int, patch) -> None:
    """Makes runs stop, as by a scheduler's signal, once an epoch is trained."""

    def agreed(self, trainer) -> bool:
        return trainer.validating and trainer.current_epoch + 1 == epoch

    patch.setattr(StopRequest, "agreed", agreed)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take longer than the training."""
    for name in ("training.report.plot_curves", "classification.report.plot_confusion"):
        monkeypatch.setattr(f"spanets.{name}", lambda *_, **__: None)


@pytest.fixture(scope="module")
def whole(small_recipe, tmp_path_factory) -> Path:
    """A run of four epochs that was never stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(load_recipe(small_recipe, EPOCHS), out)
    return out


# ---- exactness


@pytest.mark.parametrize(
    "name",
    [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in VARIANTS if n not in QUICK)],
)
def test_resumed_run_is_the_uninterrupted_one(name, small_recipe, tmp_path, monkeypatch):
    words = [*EPOCHS, *VARIANTS[name]]
    recipe, parts = load_recipe(small_recipe, words), tmp_path / "parts"
    first = train(recipe, tmp_path / "whole")
    half_a_run(recipe, parts, monkeypatch)
    # The number of workers changes nothing either.
    rest = load_recipe(small_recipe, [*words, "--data.workers", "2"])
    stops = [partial(stop_within, 3, 1), partial(stop_before_validation, 3)]
    for stop in stops[: 1 + (name in BEFORE_VALIDATION)]:
        with monkeypatch.context() as patch, pytest.raises(StoppedError, match="all is saved; go"):
            stop(patch)
            train(rest, parts, resume=True)
    second = train(rest, parts, resume=True)
    assert_same_run(tmp_path / "whole", parts)
    assert first["metrics"] == second["metrics"]


@pytest.mark.slow  # a resumed run, which is tested in every run, needs it as well
def test_the_seed_decides_everything(whole, small_recipe, tmp_path):
    words = [*EPOCHS, "--trainer.epochs", "1"]
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        train(load_recipe(small_recipe, [*words, "--seed", seed]), tmp_path / name)
    a, b, c = (content(tmp_path / name / "last.ckpt")["state_dict"] for name in "abc")
    assert differences(a, b) == []
    assert len(differences(a, c)) > len(a) // 2


def test_resuming_a_finished_run_only_measures_again(whole, small_recipe, monkeypatch):
    before = (whole / "last.ckpt").read_bytes()
    results = train(load_recipe(small_recipe, EPOCHS), whole, resume=True)
    assert (whole / "last.ckpt").read_bytes() == before
    assert results["epochs"] == 4
    assert len(history(whole)) == 4


def test_time_goes_on_counting(small_recipe, tmp_path, monkeypatch):
    recipe = load_recipe(small_recipe, EPOCHS)
    half_a_run(recipe, tmp_path / "run", monkeypatch)
    results = train(recipe, tmp_path / "run", resume=True)
    with (tmp_path / "run/metrics.csv").open() as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    assert seconds == sorted(seconds)
    assert results["train_seconds"] == seconds[-1]


def test_the_file_that_a_run_started_from_is_not_needed_again(
    small_recipe, small_run, tmp_path, monkeypatch, capsys
):
    file = tmp_path / "start.ckpt"
    shutil.copy(small_run / "last.ckpt", file)
    recipe = load_recipe(small_recipe, [*EPOCHS, "--model.weights", str(file)])
    half_a_run(recipe, tmp_path / "run", monkeypatch)
    assert f"{file}: 92 tensors loaded (timm's names)" in capsys.readouterr().err
    file.unlink()
    train(recipe, tmp_path / "run", resume=True)
    assert len(history(tmp_path / "run")) == 4


# ---- what may change


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["--trainer.epochs", "9"], "trainer.epochs 3, not 9"),
        (["--optim.lr", "0.5"], "optim.lr 0.001, not 0.5"),
        (["--model.args", "{drop_path_rate: 0.1}"], "model.args {}, not {'drop_path_rate': 0.1}"),
    ],
)
def test_a_run_keeps_its_recipe(words, key, whole, small_recipe):
    with pytest.raises(UsageError, match="this key cannot change") as caught:
        train(load_recipe(small_recipe, [*EPOCHS, *words]), whole, resume=True)
    assert key in str(caught.value)
    assert f"{whole}/recipe.yaml --out {whole} --resume" in str(caught.value)


def test_a_run_is_not_overwritten(whole, small_recipe):
    with pytest.raises(UsageError, match="already holds a run"):
        train(load_recipe(small_recipe, EPOCHS), whole)


def test_nothing_to_resume(small_recipe, tmp_path):
    with pytest.raises(UsageError, match="no run to resume"):
        train(load_recipe(small_recipe), tmp_path / "none", resume=True)


def test_run_folders(small_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(small_recipe)

    def choose(name: str, out: str | None = None, resume: bool = False) -> Path:
        with claim_run_folder(recipe, name, out, resume) as folder:
            return folder

    assert choose("imagenet/small") == Path("runs/small")
    assert choose("imagenet/small", "x") == Path("x")
    assert os.listdir() == []  # nothing came into them
    for name in ("small", "small-2"):
        Path("runs", name).mkdir(parents=True)
        write_recipe(recipe, Path("runs", name))
        with recorded(Path("runs", name)):
            pass
    # The second was stopped before it saved anything.
    Path("runs/small/last.ckpt").touch()
    assert choose("small") == Path("runs/small-2")
    assert choose("small", resume=True) == Path("runs/small-2")
    Path("runs/small-2/last.ckpt").touch()
    assert choose("small") == Path("runs/small-3")
    Path("runs/small-3").mkdir()
    Path("runs/small-3/metrics.csv").touch()  # somebody's
    assert choose("small") == Path("runs/small-4")
    with pytest.raises(UsageError, match="is a file"):
        choose("small", "runs/small/recipe.yaml")


# ---- Ctrl-C, and worse


def pause_at(epoch: int, batch: int, marker: Path, monkeypatch) -> None:
    """Makes runs write a marker at a batch, and wait there."""
    step = Classification.training_step

    def step_or_wait(self, images, index):
        if (self.current_epoch + 1, index) == (epoch, batch):
            marker.touch()
            time.sleep(60)
        return step(self, images, index)

    monkeypatch.setattr(Classification, "training_step", step_or_wait)


def send(signum: int, to, marker: Path, group: bool) -> None:
    """Sends a signal to a process once the marker is there."""
    while not marker.exists():
        assert os.waitpid(to.pid, os.WNOHANG) == (0, 0)
        time.sleep(0.05)
    (os.killpg if group else os.kill)(to.pid, signum)


@pytest.mark.parametrize(
    ("epoch", "variant"),
    [
        (1, "plain"),
        pytest.param(3, "ema", marks=pytest.mark.slow),
        pytest.param(3, "plain", marks=pytest.mark.slow),
        pytest.param(1, "ema", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c(
    epoch, variant, whole, small_recipe, photos, tmp_path, process, monkeypatch, capsys
):
    out, marker = tmp_path / "run", tmp_path / "marker"
    words = [*EPOCHS, *VARIANTS[variant]]
    start = ["train", small_recipe, *words, "--out", str(out)]
    with monkeypatch.context() as patch:
        pause_at(epoch, 1, marker, patch)
        running = process(lambda: spanets_cli.main([*start, "--data.workers", "2"]))
        send(signal.SIGINT, running, marker, group=True)
        status, printed, said = running.wait()
    assert status == 1
    assert printed == ""
    lines = said.splitlines()
    assert [line.split()[0] for line in lines] == ["epoch"] * (epoch - 1) + ["spanets:"]
    resume = f"spanets train {out}/recipe.yaml --out {out} --resume"
    expected = f"stopped; the current weights are in {out}/interrupted.ckpt; go on with: "
    assert lines[-1] == f"spanets: {expected}{resume}"

    image = str(next((photos / "cat").iterdir()))
    interrupted = str(out / "interrupted.ckpt")
    assert spanets_cli.main(["predict", interrupted, image]) == 0
    assert spanets_cli.main(["eval", interrupted, "--workers", "0"]) == 0
    assert not list(out.glob(".*"))

    assert spanets_cli.main(resume.split()[1:]) == 0
    if variant == "plain":
        assert_same_run(whole, out)


@pytest.mark.parametrize(
    "hook",
    [
        *("setup", "on_train_epoch_start", "on_validation_end"),
        *(
            pytest.param(hook, marks=pytest.mark.slow)
            for hook in (
                *("configure_optimizers", "on_fit_start", "on_train_start"),
                "on_validation_epoch_start",
            )
        ),
    ],
)
def test_ctrl_c_at_any_time(hook, small_recipe, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Classification, hook, stop)
    with pytest.raises(UserError, match="stopped; the current weights are in"):
        train(load_recipe(small_recipe), tmp_path / "run")
    restore_model(tmp_path / "run/interrupted.ckpt")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # and the next one works


def test_ctrl_c_during_the_last_evaluation(small_recipe, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTask, "evaluate", staticmethod(stop))
        with pytest.raises(UserError, match=r"^stopped; go on with: spanets train .* --resume$"):
            train(load_recipe(small_recipe), tmp_path / "run")
    results = train(load_recipe(small_recipe), tmp_path / "run", resume=True)
    assert results["epochs"] == 2


def test_averaged_weights_are_saved_by_a_stop_during_validation(
    small_recipe, tmp_path, monkeypatch
):
    ema = ["--optim.ema_decay", "0.9"]
    train(load_recipe(small_recipe, ema), tmp_path / "whole")

    def stop(*_, **__):
        raise KeyboardInterrupt

    out = tmp_path / "stopped"
    monkeypatch.setattr(Classification, "validation_step", stop)
    with pytest.raises(UserError, match="stopped"):
        train(load_recipe(small_recipe, [*ema, "--trainer.val_every", "2"]), out)
    whole, stopped = content(tmp_path / "whole/last.ckpt"), content(out / "interrupted.ckpt")
    assert differences(whole["current_model_state"], stopped["current_model_state"]) == []
    assert differences(whole["state_dict"], stopped["state_dict"]) == []


@pytest.mark.parametrize(
    "signum", [signal.SIGUSR1, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_schedulers_signal(signum, whole, small_recipe, tmp_path, process, monkeypatch):
    """The update under way is finished and saved, and the run goes on from there."""
    out, marker = tmp_path / "run", tmp_path / "marker"
    step = Classification.training_step

    def step_after_marker(self, images, index):
        if self.global_step == 4:  # the second of three in the second epoch
            marker.touch()
            time.sleep(1)
        return step(self, images, index)

    words = ["train", small_recipe, *EPOCHS, "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(Classification, "training_step", step_after_marker)
        running = process(lambda: spanets_cli.main(words))
        send(signum, running, marker, group=False)
        status, printed, said = running.wait()
    assert (status, printed) == (143, "")
    resume = f"spanets train {out}/recipe.yaml --out {out} --resume"
    assert (
        said.splitlines()[-1] == f"spanets: stopped by a signal, all is saved; go on with: {resume}"
    )
    assert torch.load(out / "last.ckpt", weights_only=True)["global_step"] == 5
    assert not (out / "interrupted.ckpt").exists()
    train(load_recipe(small_recipe, EPOCHS), out, resume=True)
    assert_same_run(whole, out)


def kill_and_go_on(kills: int, words: list[str], out: Path, start, pause: float) -> int:
    """Trains in processes that are killed at random moments; returns how many were."""
    draw, killed = random.Random(0), 0
    while not (out / "results.json").exists():
        resume = ["--resume"] if (out / "recipe.yaml").exists() else []
        marker = out.parent / f"marker-{killed}"
        running = start([*words, *resume], marker)
        if killed < kills:
            while not marker.exists():
                time.sleep(0.01)
            time.sleep(draw.uniform(0, pause))
            for one in running:
                os.kill(one.pid, signal.SIGKILL)
        statuses = [one.wait()[0] for one in running]
        killed += statuses.count(-signal.SIGKILL) == len(running)
        assert set(statuses) <= {0, -signal.SIGKILL}, [one.files[1].read_text() for one in running]
    return killed


@pytest.fixture
def start_one(process, monkeypatch):
    """Starts a command in a process that touches a marker before its first batch."""
    step = Classification.training_step

    def start(words: list[str], marker: Path, wrap=lambda run: run) -> list:
        def step_after_marker(self, images, index):
            marker.touch()
            return step(self, images, index)

        with monkeypatch.context() as patch:
            patch.setattr(Classification, "training_step", step_after_marker)
            return [process(wrap(lambda: spanets_cli.main(words)))]

    return start


@pytest.fixture
def start_two(process, start_one):
    """Starts a command as a run of two processes."""

    def start(words: list[str], marker: Path) -> list:
        port = free_port()
        first, second = (
            start_one(words, marker, lambda run, rank=rank: member(rank, 2, port, run))
            for rank in range(2)
        )
        return [*first, *second]

    return start


def test_killed_at_random_moments(whole, small_recipe, tmp_path, start_one):
    out = tmp_path / "run"
    words = ["train", small_recipe, *EPOCHS, "--trainer.save_every", "1", "--out", str(out)]
    assert kill_and_go_on(3, words, out, start_one, 0.2) == 3
    assert_same_run(whole, out)


LONG = ["--trainer.epochs", "40", "--optim.ema_decay", "0.9", "--data.mixup", "0.8"]


@pytest.mark.slow
def test_killed_at_twenty_random_moments(small_recipe, tmp_path, start_one):
    """With loading processes, averaged weights and mixing; saved every second update."""
    train(load_recipe(small_recipe, LONG), tmp_path / "whole")
    out = tmp_path / "run"
    words = ["train", small_recipe, *LONG, "--trainer.save_every", "2", "--data.workers", "1"]
    assert kill_and_go_on(20, [*words, "--out", str(out)], out, start_one, 0.5) == 20
    assert_same_run(tmp_path / "whole", out)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, 20])
def test_two_processes_killed_at_random_moments(kills, small_recipe, tmp_path, start_two):
    words = ["train", small_recipe, *LONG, "--trainer.devices", "2"]
    words += ["--trainer.epochs", str(2 * kills)]
    whole, out = tmp_path / "whole", tmp_path / "run"
    kill_and_go_on(0, [*words, "--out", str(whole)], whole, start_two, 0)
    words += ["--trainer.save_every", "1", "--out", str(out)]
    assert kill_and_go_on(kills, words, out, start_two, 0.3) == kills
    assert_same_run(whole, out)


@pytest.mark.parametrize(
    "damage", ["flipped", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cut", "gone"))]
)
def test_of_a_damaged_checkpoint_the_one_before_is_used(
    damage, whole, small_recipe, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "run"
    recipe = load_recipe(small_recipe, EPOCHS)
    half_a_run(recipe, out, monkeypatch)
    last = out / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    if damage == "gone":
        last.unlink()
    capsys.readouterr()
    train(recipe, out, resume=True)
    warning, *_ = capsys.readouterr().err.splitlines()
    reason = {
        "flipped": "a truncated or damaged PyTorch file",
        "cut": "a truncated or damaged PyTorch file",
        "gone": "no such file",
    }
    assert warning.startswith(f"spanets: warning: {last}: {reason[damage]}")
    assert warning.endswith("; going on from previous.ckpt, saved before it")
    assert (out / "damaged.ckpt").exists() == (damage != "gone")
    assert_same_run(whole, out)


def test_wherever_a_bit_is_flipped_a_whole_checkpoint_is_found(whole, tmp_path, capsys):
    """Readers of archives tell of damage in a dozen ways: of each, what was saved before is used.

    In the directory at the end of the archive, whose names are text, every kind occurs.
    """
    content = (whole / "last.ckpt").read_bytes()
    directory = content.index(b"PK\x01\x02")
    good = torch.load(whole / "last.ckpt", weights_only=True)
    (tmp_path / "previous.ckpt").write_bytes(content)
    names = [content.index(b"archive/", at) for at in (0, directory)]
    draw = random.Random(0)
    places = [8 * at + bit for at in names for bit in range(8)]
    places += [draw.randrange(8 * start, 8 * len(content)) for start in (0, directory) * 15]
    used = set()
    for place in places:
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        (tmp_path / "last.ckpt").write_bytes(flipped)
        path, found, _ = _read_newest(tmp_path)
        used.add(path.name)
        if path.name == "last.ckpt":  # in padding, or a name that nothing reads
            assert differences(found, good) == []
        else:
            assert "going on from previous.ckpt, saved before it" in capsys.readouterr().err
    assert used == {"last.ckpt", "previous.ckpt"}


def test_damaged_checkpoints_alone(small_recipe, tmp_path, monkeypatch):
    out = tmp_path / "run"
    recipe = load_recipe(small_recipe, EPOCHS)
    half_a_run(recipe, out, monkeypatch)
    for name in ("last.ckpt", "previous.ckpt"):
        (out / name).write_bytes(b"PK")
    with pytest.raises(UserError, match=r"previous\.ckpt: a truncated or damaged PyTorch file"):
        train(recipe, out, resume=True)
    assert (out / "last.ckpt").read_bytes() == b"PK"


def test_killed_while_saving(whole, small_recipe, tmp_path, process, monkeypatch):
    """Not even a power cut between the best and the last checkpoint is felt."""
    out = tmp_path / "run"
    recipe = load_recipe(small_recipe, EPOCHS)
    half_a_run(recipe, out, monkeypatch)

    def die(*_):
        os._exit(9)

    with monkeypatch.context() as patch:
        patch.setattr("spanets.training.callbacks.format_history", die)
        assert process(lambda: train(recipe, out, resume=True) and 0).wait()[0] == 9
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", die)
        assert process(lambda: train(recipe, out, resume=True) and 0).wait()[0] == 9
    train(recipe, out, resume=True)
    assert_same_run(whole, out)


@pytest.mark.parametrize(
    "fault", ["file", *(pytest.param(name, marks=pytest.mark.slow) for name in ("kill", "ctrl-c"))]
)
def test_what_ends_a_validation_costs_no_training(
    fault, small_recipe, tmp_path, process, monkeypatch, capsys
):
    """An epoch that took hours is saved before it is validated."""
    photos, out = make_photos(tmp_path / "photos", cat=3, dog=3), tmp_path / "run"
    for part in ("train", "val"):
        shutil.copytree(photos, tmp_path / "data" / part)
    words = ["train", small_recipe, "--data.root", str(tmp_path / "data"), "--trainer.epochs", "3"]
    train(load_recipe(small_recipe, words[2:]), tmp_path / "whole")
    bad = tmp_path / "data/val/cat/1.png"
    step, trained = Classification.training_step, []

    def count(self, batch, index):
        trained.append(self.current_epoch)
        return step(self, batch, index)

    def fail(*_):
        if fault == "kill":
            os._exit(9)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if fault == "file":
            bad.write_bytes(b"no image")
        else:
            patch.setattr(Classification, "validation_step", fail)
        command = [*words, "--out", str(out)]
        status, _, said = process(lambda: spanets_cli.main(command)).wait()
    if fault == "file":
        assert status == 1
        line = said.splitlines()[-1]
        assert line.startswith(f"spanets: {bad}: ")
        assert f"spanets train {out}/recipe.yaml --out {out} --resume" in line
        shutil.copy(tmp_path / "data/train/cat/1.png", bad)
    monkeypatch.setattr(Classification, "training_step", count)
    train(load_recipe(small_recipe, words[2:]), out, resume=True)
    assert set(trained) == {1, 2}  # epochs are counted from 0
    assert_same_run(tmp_path / "whole", out)


def test_full_disk(whole, small_recipe, tmp_path, process, monkeypatch):
    out = tmp_path / "run"
    recipe = load_recipe(small_recipe, EPOCHS)
    half_a_run(recipe, out, monkeypatch)
    before = {path.name: path.read_bytes() for path in out.glob("*.ckpt")}

    def train_with_little_room() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))
        return spanets_cli.main(["train", small_recipe, *EPOCHS, "--out", str(out), "--resume"])

    status, printed, said = process(train_with_little_room).wait()
    assert status == 1
    assert printed == ""
    line = said.splitlines()[-1]
    assert line.startswith(f"spanets: {out}/")
    assert (
        "cannot be written (File too large); the one written before is untouched; fix this, then"
        in line
    )
    assert "Traceback" not in said
    assert {path.name: path.read_bytes() for path in out.glob("*.ckpt")} == before
    assert not list(out.glob(".*"))

    train(recipe, out, resume=True)
    assert_same_run(whole, out)


def test_full_disk_under_tensorboard(whole, small_recipe, tmp_path, process, monkeypatch):
    """Its own thread writes, and would print a traceback of its own."""
    write, calls = RecordWriter.write, iter(range(100))

    def write_a_little(self, data):
        if next(calls) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, data)

    out = tmp_path / "run"
    words = ["train", small_recipe, *EPOCHS, "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "write", write_a_little)
        status, _, said = process(lambda: spanets_cli.main(words)).wait()
    assert status == 1
    *epochs, line = said.splitlines()
    assert all(epoch.startswith("epoch ") for epoch in epochs)
    assert line.startswith(f"spanets: {out}: No space left on device; fix this, then go on")
    train(load_recipe(small_recipe, EPOCHS), out, resume=True)
    assert_same_run(whole, out)
