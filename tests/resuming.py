"""Whether a run that was stopped and resumed is the run that was never stopped, bit for bit."""

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import spanets_cli


def content(path: Path) -> dict:
    """What a checkpoint holds, but for what may differ: times, who loads, how often it saves."""
    kept = torch.load(path, weights_only=True)
    for state in kept["callbacks"].values():
        state.pop("seconds", None)
        for row in state.get("history", []):
            del row["seconds"]
    recipe = kept["spanets"]["recipe"]
    del recipe["data"]["workers"], recipe["trainer"]["save_every"]
    return kept


def differences(a, b, where: str = "") -> list[str]:
    """The places at which two nested values are not the same, bit for bit."""
    if isinstance(a, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [where]
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [f"{where}: {a.keys() ^ b.keys()}"]
        return [d for key in a for d in differences(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return [f"{where}: {len(a)} and {len(b)} items"]
        return [d for i in range(len(a)) for d in differences(a[i], b[i], f"{where}/{i}")]
    return [] if a == b and type(a) is type(b) else [f"{where}: {a!r} and {b!r}"]


def history(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def assert_same_run(a: Path, b: Path) -> None:
    assert differences(content(a / "last.ckpt"), content(b / "last.ckpt")) == []
    assert differences(content(a / "best.ckpt"), content(b / "best.ckpt")) == []
    assert history(a) == history(b)


def check_resuming(words: list[str], module: Any, out: Path, process, monkeypatch) -> None:
    """Trains without a stop, and with a SIGKILL and a Ctrl-C within epochs; compares the runs.

    Args:
        words: The words after `train`, for a run of at least eight updates.
        module: The Lightning module of the task.
        out: A folder for both runs.
        process: The fixture.
        monkeypatch: The fixture.
    """
    whole, parts = ["train", *words, "--out", str(out / "whole")], out / "parts"
    assert spanets_cli.main(whole) == 0
    command = ["train", *words, "--trainer.save_every", "1", "--out", str(parts)]

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def interrupt() -> None:
        raise KeyboardInterrupt

    for update, stop, expected in ((3, kill, -signal.SIGKILL), (6, interrupt, 1)):
        with monkeypatch.context() as patch:
            patch.setattr(module, "training_step", _stopping(module.training_step, update, stop))
            resume = ["--resume"] if parts.exists() else []
            status, _, said = process(lambda: spanets_cli.main([*command, *resume])).wait()  # noqa: B023
        assert status == expected, said
    assert said.splitlines()[-1].endswith("--resume")
    assert spanets_cli.main([*command, "--resume"]) == 0
    assert_same_run(out / "whole", parts)
    ours, theirs = (
        json.loads((one / "results.json").read_text()) for one in (out / "whole", parts)
    )
    assert ours["metrics"] == theirs["metrics"]


def _stopping(
    step: Callable[..., Any], update: int, stop: Callable[[], None]
) -> Callable[..., Any]:
    def stop_or_step(self: Any, batch: Any, index: int) -> Any:
        if self.global_step == update:
            stop()
        return step(self, batch, index)

    return stop_or_step
