"""Memory that is full, paths that cannot be used, Ctrl-C pressed often: a line each."""

import errno
import gc
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_runs import call, make_photos

import spanets_cli
from spanets.classification.module import Classification
from spanets.data.loaders import plain_worker_errors
from spanets.data.worker_processes import ImageLoader
from spanets.recipe import list_recipes
from spanets_cli.interrupts import one_interrupt
from spanets_runtime.errors import UserError, missing_memory

# ---- memory


def cannot_allocate() -> RuntimeError:
    """Torch's own error."""
    try:
        torch.empty(2**50)
    except RuntimeError as error:
        return error
    raise AssertionError


def caused(error: Exception, message: str) -> UserError:
    told = UserError(message)
    told.__cause__ = error
    return told


@pytest.mark.parametrize(
    "error",
    [
        cannot_allocate(),
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        RuntimeError("can't start new thread"),
        caused(MemoryError(), "a.ckpt: a truncated or damaged file"),
        caused(caused(cannot_allocate(), "b"), "model x cannot take images of 32x32 pixels"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_full_memory_is_known_by_what_libraries_say(error):
    assert missing_memory(error).startswith("memory is full; train with fewer data.workers")


@pytest.mark.parametrize(
    "text",
    [
        "DataLoader worker (pid 3) is killed by signal: Bus error. It is possible that "
        "dataloader's workers are out of shared memory.",
        "unable to write to file </torch_1_2_3>: No space left on device (28)",
        "Caught RuntimeError in DataLoader worker process 0.\nunable to open shared memory object",
    ],
)
def test_full_shared_memory_names_the_key(text):
    assert missing_memory(RuntimeError(text)).startswith("shared memory (/dev/shm) is full; set")
    with (
        pytest.raises(UserError, match="or --workers to 0, or"),
        plain_worker_errors(),
    ):
        raise RuntimeError(text)


@pytest.mark.parametrize(
    "error",
    [
        UserError("a.png: not enough memory to decode it"),
        caused(MemoryError(), "a.png: not enough memory to decode it"),
        caused(ValueError("x"), "b"),
        RuntimeError("shapes do not match"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    ],
)
def test_other_errors_keep_their_words(error):
    assert missing_memory(error) is None


def with_room(megabytes: int, words: list) -> int:
    """Calls the command line with so much more address space than the process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    return spanets_cli.main([str(word) for word in words])


@pytest.mark.parametrize(
    "command",
    [
        "train",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("predict", "eval", "export", "bench")),
    ],
)
def test_a_machine_without_memory(command, small_recipe, small_run, photos, tmp_path, process):
    checkpoint, image = small_run / "last.ckpt", tmp_path / "large/cat/0.png"
    for name in ("cat", "dog"):
        (tmp_path / "large" / name).mkdir(parents=True)
        Image.new("RGB", (8000, 8000)).save(tmp_path / "large" / name / "0.png")
    words = {
        "train": ["train", small_recipe, "--data.image_size", 4096, "--out", tmp_path / "run"],
        "eval": ["eval", checkpoint, "--workers", 0, "--data", tmp_path / "large"],
        "predict": ["predict", checkpoint, image],
        "export": ["export", checkpoint, "--static", "--size", 4096, "--out", tmp_path / "a.onnx"],
        "bench": ["bench", "test_resnet", "--size", 8192, "--batch", 16, "--threads", 1],
    }[command]
    room = {"eval": 20, "predict": 20}.get(command, 200)
    status, _, said = process(lambda: with_room(room, words)).wait()
    assert status in (1, 2), said
    assert "memory" in said.splitlines()[-1]
    assert said.splitlines()[-1].startswith("spanets: ")
    assert "Traceback" not in said


def test_a_run_whose_memory_fills_up_is_resumed(small_recipe, tmp_path, process, monkeypatch):
    def fill(*_):
        torch.empty(2**50)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Classification, "validation_step", fill)
        words = ["train", small_recipe, "--out", str(out)]
        status, _, said = process(lambda: spanets_cli.main(words)).wait()
    assert status == 1
    line = said.splitlines()[-1]
    assert line.startswith("spanets: memory is full; train with fewer data.workers")
    assert line.endswith(f"go on with: spanets train {out}/recipe.yaml --out {out} --resume")
    assert (out / "last.ckpt").exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="cannot mount anything")
def test_little_shared_memory(small_recipe, tmp_path):
    """Containers have 64 MiB of it, or less; here a page."""
    out = tmp_path / "run"
    train = [sys.executable, "-m", "spanets_cli", "train", small_recipe, "--data.workers", "2"]
    script = 'mount -t tmpfs -o size=4k tmpfs /dev/shm || exit 77; exec "$@"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", *train, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("nothing can be mounted here")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("spanets: "), done.stderr
    assert "data.workers" in line
    assert "Traceback" not in done.stderr


def test_processes_that_cannot_be_started(monkeypatch):
    """They need locks, for which shared memory has no room; nothing else is said, or left."""

    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    unraisable = []
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)
    loader = ImageLoader(list(range(4)), num_workers=1)
    with monkeypatch.context() as patch:
        patch.setattr("multiprocessing.synchronize.SemLock.__init__", refuse)
        with pytest.raises(
            UserError, match=r"cannot be started \(No space left on device\); lower"
        ):
            iter(loader)
    gc.collect()
    assert not unraisable
    assert len(list(loader)) == 4


# ---- paths

LONG = "x" * 256
START = ["train", "RECIPE", "--data.root", "PHOTOS", "--out", "OUT"]


@pytest.mark.parametrize(
    "words",
    [
        ["train", "RECIPE", "--out", LONG],
        ["train", "RECIPE", "--out", "OUT", "--data.root", LONG],
        [*START, "--model.weights", f"{LONG}.pth"],
        ["train", LONG],
        ["train", f"{LONG}.yaml"],
        ["eval", f"{LONG}.ckpt"],
        ["eval", "CHECKPOINT", "--data", LONG],
        ["predict", f"{LONG}.ckpt", "a.png"],
        ["predict", "CHECKPOINT", f"{LONG}.png"],
        ["predict", f"{LONG}.onnx", "a.png"],
        ["export", f"{LONG}.ckpt", "--out", "a.onnx"],
        ["export", "CHECKPOINT", "--static", "--out", f"{LONG}.onnx"],
        ["export", "test_resnet", "--weights", f"{LONG}.pth", "--out", "a.onnx"],
        ["bench", f"{LONG}.ckpt"],
        ["bench", "test_resnet", "--plot", f"{LONG}.png"],
        ["analyze", f"{LONG}.ckpt", "--images", "PHOTOS", "--out", "OUT"],
        ["analyze", "test_resnet", "--images", LONG, "--out", "OUT"],
        ["explain", f"{LONG}.ckpt", "a.png", "--out", "OUT"],
        ["explain", "CHECKPOINT", f"{LONG}.png", "--out", "OUT"],
        ["push", f"{LONG}.ckpt", "--to", "OUT"],
        ["push", "CHECKPOINT", "--to", LONG],
        ["shard", LONG, "--out", "OUT"],
        ["shard", "PHOTOS", "--out", LONG],
        ["runs", LONG],
    ],
    ids=lambda words: " ".join(words).replace(LONG, "LONG")[:60],
)
@pytest.mark.parametrize("fault", ["too long", "closed"])
def test_paths_that_no_system_call_takes(
    words, fault, small_recipe, small_run, photos, tmp_path, process, monkeypatch
):
    """A name of more than 255 bytes, or a path below a folder that may not be entered."""
    with tempfile.TemporaryDirectory() as root:
        place = Path(root)
        place.chmod(0o777)
        (place / "closed/deep").mkdir(parents=True)
        (place / "closed").chmod(0o600)
        names = {"RECIPE": place / "small.yaml", "CHECKPOINT": place / "last.ckpt"}
        shutil.copy(small_run / "last.ckpt", place)
        shutil.copy(small_recipe, place / "small.yaml")
        shutil.copytree(photos, place / "photos")
        names |= {"PHOTOS": place / "photos", "OUT": place / "out"}
        bad = LONG if fault == "too long" else "closed/deep/x"
        shown = [str(names.get(word, word)).replace(LONG, bad) for word in words]

        list_recipes()  # what it imports may lie where another user may not read

        def run() -> int:
            os.chdir(place)
            for path in (place, *place.rglob("*")):
                if "closed" not in path.parts:
                    os.chmod(path, 0o777)
            if os.geteuid() == 0:
                os.setresuid(65534, 65534, 65534)
            return spanets_cli.main(shown)

        status, _, said = process(run).wait()
        (place / "closed").chmod(0o700)
    assert "Traceback" not in said
    assert status in (1, 2), said
    said = "".join(line for line in said.splitlines(True) if "W:onnxruntime" not in line)
    assert said.startswith("spanets: ")
    assert said.count("\n") == 1
    if fault == "closed":
        assert "closed/deep" in said


def test_one_image_that_cannot_be_reached_stops_no_prediction(small_run, photos, tmp_path, capsys):
    good = photos / "cat/0.png"
    bad = [tmp_path / ("x" * 300), tmp_path / "loop.png", good / "below.png"]
    bad[1].symlink_to("loop.png")
    words = ["predict", small_run / "last.ckpt", *bad, good]
    status, printed, said = call(capsys, *words)
    assert status == 1
    assert printed.startswith(str(good))
    assert said.count("\n") == len(bad)


# ---- Ctrl-C


def test_only_the_first_interrupt_counts():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with one_interrupt(for_good=False):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            for _ in range(5):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background
        with one_interrupt(for_good=False):
            signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("pause", [0, 0.02, 0.3])
def test_ctrl_c_pressed_often(pause, small_recipe, tmp_path, process, monkeypatch):
    out, marker = tmp_path / "run", tmp_path / "marker"
    step = Classification.training_step

    def step_and_mark(self, images, index):
        if self.current_epoch == 1:
            marker.touch()
            time.sleep(60)
        return step(self, images, index)

    def run() -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        words = ["train", small_recipe, "--out", str(out), "--data.workers", "2"]
        return spanets_cli.main(words)

    with monkeypatch.context() as patch:
        patch.setattr(Classification, "training_step", step_and_mark)
        running = process(run)
    while not marker.exists():
        assert os.waitpid(running.pid, os.WNOHANG) == (0, 0)
        time.sleep(0.05)
    for _ in range(5):
        os.killpg(running.pid, signal.SIGINT)
        time.sleep(pause)
    status, printed, said = running.wait()
    assert (status, printed) == (1, "")
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("spanets: stopped")
    assert torch.load(out / "last.ckpt", weights_only=True)["epoch"] == 0


# ---- a folder that goes


def test_a_run_folder_that_is_removed_meanwhile(small_recipe, tmp_path, process, monkeypatch):
    out, marker = tmp_path / "run", tmp_path / "marker"
    photos = make_photos(tmp_path / "photos", size=32, cat=4, dog=4)
    step = Classification.training_step

    def step_without_a_folder(self, images, index):
        if self.current_epoch == 1 and out.exists() and not marker.exists():
            marker.touch()
            shutil.rmtree(out)
        return step(self, images, index)

    words = ["train", small_recipe, "--out", str(out), "--data.root", str(photos)]
    with monkeypatch.context() as patch:
        patch.setattr(Classification, "training_step", step_without_a_folder)
        status, _, said = process(lambda: spanets_cli.main(words)).wait()
    assert marker.exists()
    assert "Traceback" not in said
    assert status == 0 or said.splitlines()[-1].startswith(f"spanets: {out}")
