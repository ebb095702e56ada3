"""Detects the death of a process in a distributed run and ends the others with a message.

Without this, the others would wait for a timeout that names no process, or on GPUs for ever. Each
process increments a counter in the run's store once a second, from its own thread. Rank 0 watches
the counters of all others, and they watch rank 0's. A process that learns of a loss prints a
message and exits.
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
"""Seconds between two heartbeats."""

SILENCE = 30.0
"""Seconds without a heartbeat after which a process counts as dead."""

_LOST = "spanets/lost"


class Peers(Callback):
    """Ends this process when another process of its run dies.

    Args:
        advice: What the user should do, for the message.
    """

    def __init__(self, advice: str) -> None:
        self.advice = advice
        self._watch: _Watch | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the watch if there are other processes and no launcher watches them."""
        # torchrun, and srun with --kill-on-bad-exit, end all processes when one dies and name it.
        # A second watch would only add messages and change exit statuses.
        if trainer.world_size > 1 and find_launcher() is None:
            self._watch = _Watch(trainer, self.advice)
            self._watch.start()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ends the watch: from here on the processes are independent."""
        if self._watch is not None:
            self._watch.ended.set()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Reports this process's error, or waits for the report of the one that failed first."""
        if self._watch is None:
            return
        if _is_of_a_peer(exception):
            # The watch ends this process when it finds the lost one; else this error is raised.
            self._watch.join(SILENCE + 10 * BEAT)
        elif not isinstance(exception, StoppedError):
            self._watch.report_self(str(exception) or type(exception).__name__)
        self._watch.ended.set()


def _is_of_a_peer(error: BaseException) -> bool:
    """Returns whether another process may have caused an error: one in communication."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error).lower()
    )


class _Watch(threading.Thread):
    """Watches the other processes until `ended` is set."""

    def __init__(self, trainer: L.Trainer, advice: str) -> None:
        super().__init__(name="peers", daemon=True)
        self.ended = threading.Event()
        self.rank, self.count, self.advice = trainer.global_rank, trainer.world_size, advice
        self.children = _adopt_children(trainer)
        # A separate connection: the run's own blocks while one of its operations waits.
        self.store = dist.TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=SILENCE),
        )
        self.store.set(f"spanets/name/{self.rank}", f"{socket.gethostname()}, pid {os.getpid()}")
        self.first = self.store.get("spanets/name/0").decode()  # rank 0 may take the store with it
        watched = range(self.count) if self.rank == 0 else (0,)
        self.seen = {rank: (0, time.monotonic()) for rank in watched if rank != self.rank}

    def run(self) -> None:
        """Sends heartbeats and checks the others until the run ends or a process is lost."""
        while not self.ended.wait(BEAT):
            try:
                lost = self._look()
            except RuntimeError:  # rank 0 holds the store
                lost = (0, f"({self.first}) died") if self.rank else None
            if lost and not self.ended.is_set():
                self._leave(*lost)

    def report_self(self, reason: str) -> None:
        """Reports to the others that this process ends."""
        self._report(self.rank, f"stopped: {reason}")

    def _look(self) -> tuple[int, str] | None:
        """Returns the rank of a lost process and what happened to it, or None."""
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
        """Reports a lost process; the first report stays, since later losses are consequences."""
        self.store.compare_set(_LOST, "", f"{rank} {reason}")

    def _leave(self, rank: int, reason: str) -> None:
        """Ends this process, because its main thread may wait for the lost one for ever."""
        if self.rank == (0 if rank else 1):  # one process prints the message
            line = f"process {rank} of 0 to {self.count - 1} {reason}; fix this, then "
            print(f"spanets: {line}{self.advice}", file=sys.stderr, flush=True)
        for child in self.children.values():
            child.kill()
        os._exit(1)


def _describe(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"


def _adopt_children(trainer: L.Trainer) -> dict[int, subprocess.Popen[Any]]:
    """Returns, by rank, the child processes that Lightning started on this machine.

    Lightning forgets them: its own observer would kill this process without a message within five
    seconds of a child's death.
    """
    started = getattr(trainer.strategy.launcher, "procs", [])
    children = dict(enumerate(started, start=trainer.global_rank + 1))
    started.clear()
    return children
