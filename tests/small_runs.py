"""Fixtures of the tests that train: a small folder of images, runs on it, and real processes."""

import ctypes
import os
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import spanets_cli

# What makes a run small: a model of a third of a million parameters, images of 32 pixels.
SMALL = {
    "model.name": "test_resnet",
    "data.image_size": 32,
    "data.workers": 0,
    "optim.batch_size": 4,
    "optim.warmup_epochs": 0.5,
    "trainer.accelerator": "cpu",
    "trainer.epochs": 2,
}


def make_photos(root: Path, size: int = 40, **counts: int) -> Path:
    """Makes a folder of class folders; each class has a colour, under noise."""
    noise = np.random.default_rng(0)
    for channel, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = noise.integers(0, 120, (size, size, 3), dtype=np.uint8)
            pixels[..., channel % 3] += 120
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Two classes of eight images: twelve are for training, four for validation."""
    return make_photos(tmp_path_factory.mktemp("photos"), cat=8, dog=8)


@pytest.fixture(scope="session")
def small_recipe(tmp_path_factory, photos) -> str:
    """A YAML file: a run on `photos` that takes a second."""
    path = tmp_path_factory.mktemp("recipes") / "small.yaml"
    lines = [f"{key}: {value}" for key, value in {**SMALL, "data.root": photos}.items()]
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory, small_recipe) -> Path:
    """The folder of a finished run; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "small"
    assert spanets_cli.main(["train", small_recipe, "--out", str(out)]) == 0
    return out


class Process:
    """A forked process that calls a function: its own signals, limits and file descriptors.

    Forked and not started anew, because importing the package takes seconds.
    """

    def __init__(self, function: Callable[[], int], folder: Path) -> None:
        self.files = [folder / "stdout", folder / "stderr"]
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            self._run(function)

    def _run(self, function: Callable[[], int]) -> None:
        status = 99
        try:
            threading.excepthook = threading.__excepthook__  # pytest has put its own there
            os.setsid()  # Ctrl-C reaches the whole group, as on a terminal
            for descriptor, path in enumerate(self.files, start=1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
            sys.stdout = os.fdopen(1, "w", closefd=False)
            sys.stderr = os.fdopen(2, "w", closefd=False, buffering=1)
            status = function()
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(AttributeError, OSError):  # a test may have closed it
                sys.stdout.flush()
            os._exit(status)

    def wait(self) -> tuple[int, str, str]:
        """Returns exit status (negative: killed by that signal), standard output and error."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return (status, *(path.read_text() for path in self.files))


@pytest.fixture
def process(tmp_path) -> Callable[[Callable[[], int]], Process]:
    """Starts a function in a process of its own."""
    numbers = iter(range(100))

    def start(function: Callable[[], int]) -> Process:
        folder = tmp_path / f"process-{next(numbers)}"
        folder.mkdir()
        return Process(function, folder)

    return start


def member(rank: int, count: int, port: int, function: Callable[[], int]) -> Callable[[], int]:
    """Makes a function that a process calls as one of several of a run, as torchrun starts them."""

    def run() -> int:
        os.environ.update(
            LOCAL_RANK=str(rank),
            RANK=str(rank),
            NODE_RANK="0",
            WORLD_SIZE=str(count),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        return function()

    return run


def answers_of(process, count: int, *words) -> list[tuple[int, str, str]]:
    """Runs a command as `count` processes of torchrun; returns status and output of each."""
    port, given = free_port(), [str(word) for word in words]
    running = [
        process(member(rank, count, port, lambda: spanets_cli.main(given))) for rank in range(count)
    ]
    return [one.wait() for one in running]


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def obey_permissions() -> None:
    """Gives up the rights that a superuser has over all files, where this process is one's."""
    if os.geteuid():
        return
    if sys.platform != "linux":
        os._exit(77)
    # No capabilities at all; capset(2), whose header is version 3 and this process.
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    assert ctypes.CDLL(None).capset(header, ctypes.create_string_buffer(24)) == 0


def call(capsys, *words) -> tuple[int, str, str]:
    """Calls the command line; returns exit status, standard output and error."""
    status = spanets_cli.main([str(word) for word in words])
    return (status, *capsys.readouterr())


def call_without_torch(*words) -> tuple[int, str, str]:
    """Calls the command line in a process of its own, as `call` does, and checks its imports."""
    script = (
        "import sys, spanets_cli\n"
        "status = spanets_cli.main(sys.argv[1:])\n"
        "assert not {'torch', 'timm', 'spanets', 'torchvision'} & set(sys.modules)\n"
        "sys.exit(status + 100)\n"  # a process that fails by itself exits with 1
    )
    command = [sys.executable, "-c", script, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode >= 100, done.stderr
    return done.returncode - 100, done.stdout, done.stderr


@pytest.fixture
def refused(capsys):
    """Calls with a mistake; returns the line it is answered with."""

    def refuse(status: int, *words) -> str:
        found, printed, said = call(capsys, *words)
        assert found == status, said
        assert printed == ""
        assert said.startswith("spanets: ")
        assert said.count("\n") == 1
        return said.removeprefix("spanets: ").rstrip("\n")

    return refuse
