"""Tells the processes of a run when one of them has died, and which.

A process that waits for a dead one waits until a timeout that names nobody, on GPUs for ever. So
every process counts up in the run's store once a second, from a thread of its own; the first one
looks who has fallen silent, the others look at the first one, and whoever learns that a process is
lost says so and ends its own.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from typing import Any

import lightning as L
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from spanets.training.devices import find_launcher
from spanets.training.errors import StoppedError

BEAT = 1.0
"""Seconds between two signs of life."""

SILENCE = 30.0
"""Seconds without one after which a process counts as dead."""

_LOST = "spanets/lost"


class Peers(Callback):
    """Ends this process when another one of its run has died.

    Args:
        advice: What to do then, for the message.
    """

    def __init__(self, advice: str) -> None:
        self.advice = advice
        self._watch: _Watch | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts to watch, where there are other processes and no launcher watches them."""
        # torchrun, and srun with --kill-on-bad-exit, end all processes when one dies and say which
        # it was. A second watch would only compete with theirs, in words and in exit statuses.
        if trainer.world_size > 1 and find_launcher() is None:
            self._watch = _Watch(trainer, self.advice)
            self._watch.start()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ends it: from here on every process is on its own."""
        if self._watch is not None:
            self._watch.ended.set()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Tells the others why this one ends, or waits to be told who ended before."""
        if self._watch is None:
            return
        if _is_of_a_peer(exception):
            # The watch ends the process once it knows; if it finds nobody, the error is raised.
            self._watch.join(SILENCE + 10 * BEAT)
        elif not isinstance(exception, StoppedError):
            self._watch.report_self(str(exception) or type(exception).__name__)
        self._watch.ended.set()


def _is_of_a_peer(error: BaseException) -> bool:
    """Tells an error of communication, which the other end may have caused, from one of ours."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error).lower()
    )


class _Watch(threading.Thread):
    """Looks after the other processes, until `ended` is set."""

    def __init__(self, trainer: L.Trainer, advice: str) -> None:
        super().__init__(name="peers", daemon=True)
        self.ended = threading.Event()
        self.rank, self.count, self.advice = trainer.global_rank, trainer.world_size, advice
        self.children = _adopt_children(trainer)
        # A connection of its own: the run's waits while one of its operations does.
        self.store = dist.TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=SILENCE),
        )
        self.store.set(f"spanets/name/{self.rank}", f"{socket.gethostname()}, pid {os.getpid()}")
        self.first = self.store.get("spanets/name/0").decode()  # the store may end with it
        watched = range(self.count) if self.rank == 0 else (0,)
        self.seen = {rank: (0, time.monotonic()) for rank in watched if rank != self.rank}

    def run(self) -> None:
        """Beats and looks until the run ends or someone is lost."""
        while not self.ended.wait(BEAT):
            try:
                lost = self._look()
            except RuntimeError:  # the store lies with the first process
                lost = (0, f"({self.first}) died") if self.rank else None
            if lost and not self.ended.is_set():
                self._leave(*lost)

    def report_self(self, reason: str) -> None:
        """Tells the others that this process ends."""
        self._report(self.rank, f"stopped: {reason}")

    def _look(self) -> tuple[int, str] | None:
        """Returns the rank of a lost process and what happened to it, if there is one."""
        self.store.add(f"spanets/alive/{self.rank}", 1)
        for dead, what in self._dead():
            self._report(dead, what)
        if not self.store.check([_LOST]):
            return None
        rank, _, reason = self.store.get(_LOST).decode().partition(" ")
        name = self.store.get(f"spanets/name/{rank}").decode()
        return int(rank), f"({name}) {reason}"

    def _dead(self) -> list[tuple[int, str]]:
        now = time.monotonic()
        for rank, (count, _) in self.seen.items():
            if (beats := self.store.add(f"spanets/alive/{rank}", 0)) != count:
                self.seen[rank] = beats, now
        codes = {rank: child.poll() for rank, child in self.children.items()}
        ended = [(rank, _describe(code)) for rank, code in codes.items() if code]
        silent = [rank for rank, (_, last) in self.seen.items() if now - last > SILENCE]
        return ended + [(rank, f"has been silent for {SILENCE:.0f} s") for rank in silent]

    def _report(self, rank: int, reason: str) -> None:
        """Sets who is lost, unless someone has been before: what follows are consequences."""
        self.store.compare_set(_LOST, "", f"{rank} {reason}")

    def _leave(self, rank: int, reason: str) -> None:
        """Ends this process, whose main thread may wait for the lost one for ever."""
        if self.rank == (0 if rank else 1):  # one voice is enough
            line = f"process {rank} of 0 to {self.count - 1} {reason}; when that is mended, "
            print(f"spanets: {line}{self.advice}", file=sys.stderr, flush=True)
        for child in self.children.values():
            child.kill()
        os._exit(1)


def _describe(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"


def _adopt_children(trainer: L.Trainer) -> dict[int, subprocess.Popen[Any]]:
    """Takes over, by rank, the processes that Lightning started on this machine.

    Its own observer would kill this process within five seconds of a child's death, wordlessly.
    """
    started = getattr(trainer.strategy.launcher, "procs", [])
    children = dict(enumerate(started, start=trainer.global_rank + 1))
    started.clear()
    return children
