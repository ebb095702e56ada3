"""Prepares tasks in parallel, each in its own process, then times them in turn.

Compiling a training step takes a minute on one core, while the device is idle. A task that runs out
of device memory during the preparation is prepared again when the others have freed theirs.
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
from spanets.bench.timing import Step, interleave
from spanets_runtime.errors import first_line

Prepare = Callable[[], tuple[Step, int]]
"""Function that returns a task and the size of its weights in bytes; must be picklable."""


class Turns(NamedTuple):
    """The results of the tasks.

    Attributes:
        seconds: Seconds of every round, by task.
        peak_memory_mb: Weights plus the task's peak memory in MB, by task; None if unknown.
        kernels: Kernel times of the profiled tasks.
        replayed: Seconds of CUDA graph replays, by task.
        failed: First line of the error, by task.
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
    """Prepares all tasks in parallel, then times them in turn.

    If a task fails or is not ready in time, this is recorded and the others go on.

    Args:
        prepare: Functions that make the tasks, by name.
        rounds: Number of timed rounds of each task.
        device: Device of the tasks.
        profiled: Names of the tasks to profile as well.
        replayed: Names of the tasks to time also as CUDA graphs, without the CPU cost of kernel
            launches.
        patience: Time limit of the preparation, in seconds.
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
        # Last, because a failed graph capture makes a process unusable.
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
    """The parent's handle of a process that prepares one task and runs it when asked."""

    def __init__(self, prepare: Prepare, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, prepare, device))
        self._process.start()
        theirs.close()
        self.state, self.message = "preparing", ""

    def wait(self, end: float) -> None:
        """Waits until the state is "ready", "failed" or "memory" (out of memory)."""
        if not self._pipe.poll(max(0, end - time.monotonic())):
            self.state, self.message = "failed", "not ready in time"
            self._process.kill()
            return
        try:
            self.state, self.message = self._pipe.recv()
        except EOFError:
            self.state, self.message = "failed", "the process ended"

    def ask(self, what: str) -> Any:
        """Returns the answer, or None after a failure."""
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
    """Runs in the child process: prepares the task, then answers until the pipe is closed."""
    try:
        torch.manual_seed(0)
        # Sizes are fixed, so cuDNN may choose its convolutions by trial.
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        task, weights = prepare()
        task()
        task()
        _free_memory(device)
    # Compilers raise errors of many types, and wrap others.
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
            _free_memory(device)
            pipe.send(("ready", answer))
        except Exception as error:
            pipe.send(("failed", first_line(error)))
            return


def _answer(asked: str, task: Step, weights: int, device: str) -> Any:
    if asked == "memory":
        peak = peak_memory(task, device)
        return None if peak is None else round((peak + weights) / 1e6)
    if asked == "time":
        return interleave({"task": task}, rounds=1, warmup=2, device=device)["task"][0]
    if asked.startswith("replay"):
        return _replay(task, int(asked.split()[1]), device)
    return _dearest_kernels(task, device)


def _replay(task: Step, rounds: int, device: str) -> list[float] | None:
    """Times a task as a CUDA graph."""
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


def _free_memory(device: str) -> None:
    """Frees the allocator's cached device memory for the other processes."""
    if device != "cpu":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()


def _dearest_kernels(task: Step, device: str, count: int = 16) -> list[dict[str, Any]]:
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
