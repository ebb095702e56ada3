"""Who trains in a folder: one process at a time, and everything is decided while it is held."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from small_runs import call

import spanets_cli
from spanets.classification.task import ClassificationTask
from spanets.recipe import load_recipe
from spanets.runs import claiming
from spanets.runs.claiming import FolderInUseError, claimed, claimed_first, is_running
from spanets.runs.file_names import FILES
from spanets.training.engine import train
from spanets_runtime.errors import UserError


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take longer than the training."""
    for name in ("training.report.plot_curves", "classification.report.plot_confusion"):
        monkeypatch.setattr(f"spanets.{name}", lambda *_, **__: None)


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    with claimed(tmp_path):
        assert is_running(tmp_path)
        again = claimed(tmp_path)
        with pytest.raises(FolderInUseError, match="another process trains in this folder; wait"):
            again.__enter__()
    assert not is_running(tmp_path)
    with claimed(tmp_path):
        pass


def test_a_folder_into_which_nothing_came_is_removed(tmp_path):
    (tmp_path / "runs").mkdir()
    for folder in (tmp_path / "runs", tmp_path / "a/b/c"):
        with claimed(folder):
            assert folder.is_dir()
    assert os.listdir(tmp_path) == ["runs"]  # that was there
    with claimed(tmp_path / "a/b/c"):
        (tmp_path / "a/b/file").touch()
    assert os.listdir(tmp_path / "a/b") == ["file"]


def test_a_folder_that_is_removed_meanwhile(tmp_path):
    with claimed(tmp_path / "run"):
        shutil.rmtree(tmp_path / "run")
    assert not os.listdir(tmp_path)


def test_a_lock_that_its_holder_removes_is_none(tmp_path, monkeypatch):
    """Else two processes, that had opened the file before and after, would both have the lock."""
    lock, holder = claiming.try_lock, claimed(tmp_path)
    holder.__enter__()
    opened = []

    def lock_late(file):
        if not opened:
            opened.append(file)
            holder.__exit__(None, None, None)  # between opening the file and locking it
        return lock(file)

    monkeypatch.setattr(claiming, "try_lock", lock_late)
    with claimed(tmp_path), pytest.raises(FolderInUseError):
        claimed(tmp_path).__enter__()
    assert len(opened) == 1


def test_a_loading_process_that_outlives_a_run_does_not_lock_it(tmp_path, process):
    """As after a kill -9: loaders notice after seconds that theirs is gone."""
    ready, done = os.pipe()

    def train_and_die() -> int:
        with claimed(tmp_path / "run"):
            if not os.fork():
                os.write(done, b"x")
                signal.pause()
            signal.pause()
        return 0

    run = process(train_and_die)
    os.read(ready, 1)
    assert is_running(tmp_path / "run")
    os.kill(run.pid, signal.SIGKILL)
    os.waitpid(run.pid, 0)
    try:
        assert not is_running(tmp_path / "run")
        with claimed(tmp_path / "run"):
            pass
    finally:
        os.killpg(run.pid, signal.SIGKILL)  # the loader is of its group


def test_a_lock_that_is_no_file_is_nobodys(tmp_path):
    os.mkfifo(tmp_path / ".running")  # to open it would wait for ever
    assert not is_running(tmp_path)


def test_of_many_at_once_each_has_a_folder_of_its_own(tmp_path, process):
    def take() -> int:
        folders = (tmp_path / f"run-{number}" for number in range(100))
        with claimed_first(folders, lambda folder: not (folder / "used").exists()) as folder:
            (folder / "used").touch()
            print(folder.name)
            time.sleep(0.01 * (os.getpid() % 3))
        return 0

    takers = [process(take) for _ in range(8)]
    names = [taker.wait()[1].strip() for taker in takers]
    assert sorted(names) == [f"run-{number}" for number in range(8)]


# ---- runs


def slow_to_list(patch, begun: Path, go: Path) -> None:
    """Makes runs wait before they list their data."""
    make = ClassificationTask.make_loaders

    def make_late(self, *arguments):
        begun.touch()
        while not go.exists():
            time.sleep(0.01)
        return make(self, *arguments)

    patch.setattr(ClassificationTask, "make_loaders", make_late)


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_the_folder_is_held_while_data_are_listed(
    resume, small_recipe, small_run, tmp_path, process, monkeypatch, capsys
):
    """Else a start that lists for minutes would go on from what it saw before."""
    out, begun, go = tmp_path / "run", tmp_path / "begun", tmp_path / "go"
    if resume:
        shutil.copytree(small_run, out)
    words = ["train", small_recipe, "--out", str(out), *resume]
    with monkeypatch.context() as patch:
        slow_to_list(patch, begun, go)
        first = process(lambda: spanets_cli.main(words))
    while not begun.exists():
        assert os.waitpid(first.pid, os.WNOHANG) == (0, 0)
    status, _, said = call(capsys, *words)
    assert (status, said.split(";")[0]) == (
        1,
        f"spanets: {out}: another process trains in this folder",
    )
    go.touch()
    assert first.wait()[0] == 0
    before = {path.name: path.read_bytes() for path in out.glob("*.*")}
    if not resume:
        assert call(capsys, *words)[0] == 2  # it is finished
        assert {path.name: path.read_bytes() for path in out.glob("*.*")} == before


def test_two_default_starts_at_once_choose_two_folders(
    small_recipe, tmp_path, process, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = ["train", small_recipe, "--trainer.epochs", "1"]
    with monkeypatch.context() as patch:
        running = []
        for number in range(2):
            slow_to_list(patch, tmp_path / f"begun-{number}", tmp_path / "go")
            running.append(process(lambda: spanets_cli.main(words)))
    while not all((tmp_path / f"begun-{number}").exists() for number in range(2)):
        time.sleep(0.01)
    (tmp_path / "go").touch()
    assert [one.wait()[0] for one in running] == [0, 0]
    assert sorted(os.listdir("runs")) == ["small", "small-2"]
    assert all(Path("runs", name, "results.json").exists() for name in ("small", "small-2"))


def test_a_start_that_is_refused_leaves_no_folder(small_recipe, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    refused(1, "train", small_recipe, "--data.root", tmp_path / "typo")
    refused(2, "train", small_recipe, "--resume")
    assert os.listdir(tmp_path) == []


# ---- whose files


MINE = ["recipe.yaml", "metrics.csv", "results.json", "environment.json", "last.ckpt"]


@pytest.mark.parametrize("name", [*MINE, "learning_curve.png", "tensorboard"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_file_of_somebody_else_is_never_replaced(name, resume, small_recipe, tmp_path):
    """Whatever it holds, as long as it has the name of one that a run writes."""
    (tmp_path / name).write_text("of mine")
    recipe = load_recipe(small_recipe)
    with pytest.raises(UserError) as caught:
        train(recipe, tmp_path, resume)
    assert str(tmp_path) in str(caught.value)
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "of mine"


def test_a_recipe_beside_which_a_run_is_asked_for(small_recipe, tmp_path, refused):
    folder = tmp_path / "exp"
    folder.mkdir()
    text = "# mine\n" + Path(small_recipe).read_text()
    (folder / "recipe.yaml").write_text(text)
    line = refused(2, "train", folder / "recipe.yaml", "--out", folder)
    expected = "exists, does not belong to a run and would be replaced; choose another --out"
    assert line == f"{folder / 'recipe.yaml'}: {expected}"
    refused(2, "train", folder / "recipe.yaml", "--out", folder, "--resume")
    assert (folder / "recipe.yaml").read_text() == text
    assert os.listdir(folder) == ["recipe.yaml"]


def test_other_files_are_in_nobodys_way(small_recipe, tmp_path):
    (tmp_path / "notes.txt").write_text("of mine")
    train(load_recipe(small_recipe), tmp_path)
    assert (tmp_path / "results.json").exists()
    assert (tmp_path / "notes.txt").read_text() == "of mine"
    names = {path.name for path in tmp_path.iterdir()}
    assert names <= {*FILES, "tensorboard", "notes.txt"}  # so that all of them are guarded


@pytest.mark.parametrize("edited", [False, True])
def test_a_resumed_run_leaves_its_recipe_as_it_is(edited, small_recipe, small_run, tmp_path):
    out = shutil.copytree(small_run, tmp_path / "run")
    if edited:
        text = "# the good one\n" + (out / "recipe.yaml").read_text()
        (out / "recipe.yaml").write_text(text)
    before = (out / "recipe.yaml").read_bytes()
    assert spanets_cli.main(["train", f"{out}/recipe.yaml", "--out", str(out), "--resume"]) == 0
    assert (out / "recipe.yaml").read_bytes() == before


def test_a_run_that_goes_on_elsewhere_writes_so(small_recipe, small_run, photos, tmp_path):
    """So that the command that goes on with it still does."""
    out, moved = shutil.copytree(small_run, tmp_path / "run"), tmp_path / "moved"
    shutil.copytree(photos, moved)
    train(load_recipe(small_recipe, ["--data.root", str(moved)]), out, resume=True)
    assert load_recipe(str(out / "recipe.yaml")).data.root == str(moved)
