"""Tasks that each have a process: all are prepared at once, then timed in turn.

Compiling a network's training step takes a minute and keeps one core busy; a device is free
meanwhile. What does not fit into the device's memory while others are prepared is prepared again
when they have let go of it.
"""

import multiprocessing
import time
import traceback
from collections.abc import Callable, Collection, Hashable, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from spanets.bench.memory import peak_memory
from spanets.bench.timing import Task, interleave
from spanets_runtime.errors import first_line

Prepare = Callable[[], tuple[Task, int]]
"""Makes a task and tells the bytes of its weights; can be pickled."""


class Turns(NamedTuple):
    """What became of the tasks.

    Attributes:
        seconds: Of every round, by task.
        peak_memory_mb: Weights, and what the task adds at its peak; None where it is not known.
        kernels: Of the tasks that were profiled.
        replayed: Seconds of replays of the tasks' CUDA graphs, by task.
        failed: The first line of what went wrong, by task.
    """

    seconds: dict[Hashable, list[float]]
    peak_memory_mb: dict[Hashable, int | None]
    kernels: dict[Hashable, list[dict[str, Any]]]
    replayed: dict[Hashable, list[float]]
    failed: dict[Hashable, str]


def take_turns(
    prepare: Mapping[Hashable, Prepare],
    rounds: int,
    device: str,
    profiled: Collection[Hashable] = (),
    replayed: Collection[Hashable] = (),
    patience: float = 240,
) -> Turns:
    """Prepares all tasks side by side, then times them in turn, one at a time.

    A task that fails, or is not ready in time, is a result, and no reason to lose the others.

    Args:
        prepare: Makes the tasks, by name.
        rounds: Turns of each task that count.
        device: Where they run.
        profiled: Names of those to profile, too.
        replayed: Names of those to time as CUDA graphs, too, which spare the processor's part of
            each kernel's start.
        patience: Seconds until tasks have to be ready.
    """
    end = time.monotonic() + patience
    turns = Turns({}, {}, {}, {}, {})
    with _started(prepare, device) as workers:
        for name in tqdm(list(workers), "prepare", disable=None):
            workers[name].wait(end)
        for name in [name for name, worker in workers.items() if worker.state == "memory"]:
            workers[name].stop()
            workers[name] = _Worker(prepare[name], device)
            workers[name].wait(end)
        ready = {name: worker for name, worker in workers.items() if worker.state == "ready"}
        for name, worker in ready.items():
            turns.peak_memory_mb[name] = worker.ask("memory")
        seconds: dict[Hashable, list[float | None]] = {name: [] for name in ready}
        for _ in tqdm(range(rounds), "time", disable=None):
            for name, worker in ready.items():
                seconds[name].append(worker.ask("time"))
        for name in profiled:
            if name in ready and (kernels := ready[name].ask("kernels")) is not None:
                turns.kernels[name] = kernels
        for name, worker in workers.items():
            if worker.state == "ready":
                turns.seconds[name] = [value for value in seconds[name] if value is not None]
            else:
                turns.failed[name] = worker.message
        # Last: a graph that cannot be captured leaves a process of no more use.
        for name in replayed:
            if name in turns.seconds and (replays := ready[name].ask(f"replay {rounds}")):
                turns.replayed[name] = replays
            if name in ready:
                ready[name].stop()
    return turns


@contextmanager
def _started(prepare: Mapping[Hashable, Prepare], device: str):
    workers = {name: _Worker(what, device) for name, what in prepare.items()}
    try:
        yield workers
    finally:
        for worker in workers.values():
            worker.stop()


class _Worker:
    """The parent's side: a process that prepares one task and runs it when asked."""

    def __init__(self, prepare: Prepare, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, prepare, device))
        self._process.start()
        theirs.close()
        self.state, self.message = "preparing", ""

    def wait(self, end: float) -> None:
        """Waits until the task is "ready", has "failed", or lacked "memory"."""
        if not self._pipe.poll(max(0, end - time.monotonic())):
            self.state, self.message = "failed", "not ready in time"
            self._process.kill()
            return
        try:
            self.state, self.message = self._pipe.recv()
        except EOFError:
            self.state, self.message = "failed", "the process ended"

    def ask(self, what: str) -> Any:
        """Returns the answer, or None from the first failure on."""
        if self.state != "ready":
            return None
        self._pipe.send(what)
        try:
            self.state, answer = self._pipe.recv()
        except EOFError:
            self.state, answer = "failed", "the process ended"
        if self.state == "ready":
            return answer
        self.message = answer
        return None

    def stop(self) -> None:
        self._pipe.close()
        self._process.join(10)
        self._process.kill()


def _serve(pipe: Connection, prepare: Prepare, device: str) -> None:
    """The process's side: prepares the task, then answers until the pipe is closed."""
    try:
        torch.manual_seed(0)
        # Sizes are fixed, so the convolutions may be chosen by trying; float32 products as usual.
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        task, weights = prepare()
        task()
        task()
        _let_go(device)
    # Compilers have errors of all kinds, and wrap those of others.
    except Exception as error:
        lacking = "out of memory" in str(error)
        if not lacking:
            traceback.print_exc()
        pipe.send(("memory" if lacking else "failed", first_line(error)))
        return
    pipe.send(("ready", ""))
    while True:
        try:
            asked = pipe.recv()
        except EOFError:
            return
        try:
            answer = _answer(asked, task, weights, device)
            _let_go(device)
            pipe.send(("ready", answer))
        except Exception as error:
            pipe.send(("failed", first_line(error)))
            return


def _answer(asked: str, task: Task, weights: int, device: str) -> Any:
    if asked == "memory":
        peak = peak_memory(task, device)
        return None if peak is None else round((peak + weights) / 1e6)
    if asked == "time":
        return interleave({"task": task}, rounds=1, warmup=2, device=device)["task"][0]
    if asked.startswith("replay"):
        return _replay(task, int(asked.split()[1]), device)
    return _dearest_kernels(task, device)


def _replay(task: Task, rounds: int, device: str) -> list[float] | None:
    """Times a task that was captured as a CUDA graph."""
    if device == "cpu":
        return None
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        task()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        task()
    return interleave({"graph": graph.replay}, rounds, warmup=2, device=device)["graph"]


def _let_go(device: str) -> None:
    """Hands memory that is kept for reuse back to the device, for the other processes."""
    if device != "cpu":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()


def _dearest_kernels(task: Task, device: str, count: int = 16) -> list[dict[str, Any]]:
    gpu = device != "cpu"
    kind = torch.profiler.ProfilerActivity.CUDA if gpu else torch.profiler.ProfilerActivity.CPU
    task()
    with torch.profiler.profile(activities=[kind]) as profile:
        task()
        if gpu:
            torch.cuda.synchronize(device)
    field = "self_device_time_total" if gpu else "self_cpu_time_total"
    events = sorted(profile.key_averages(), key=lambda event: -getattr(event, field))
    total = sum(getattr(event, field) for event in events)
    return [
        {
            "kernel": event.key[:120],
            "share": round(getattr(event, field) / total, 4),
            "ms": round(getattr(event, field) / 1e3, 3),
            "calls": event.count,
        }
        for event in events[:count]
    ]
