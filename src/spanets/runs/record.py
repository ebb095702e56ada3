"""Records in environment.json how each start of a run was made.

The record holds command, date, versions, processor, devices and the state of the git repository in
the current folder. It holds no environment variables, and hides what looks like a secret in the
command.
"""

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from spanets.runs.file_names import RECORD
from spanets_runtime.errors import UserError
from spanets_runtime.files import write_atomically
from spanets_runtime.machine import processor_name
from spanets_runtime.reading import read_text_file

PACKAGES = ("spanets", "torch", "torchvision", "timm", "lightning", "torchmetrics", "numpy")

MOST_BYTES = 2**24
"""Limit of the record's size: some ten thousand starts."""

FINISHED, STOPPED = "finished", "stopped"

_SECRET = re.compile(r"key|token|secret|passw|credential", re.IGNORECASE)
_USER_IN_ADDRESS = re.compile(r"(?<=://)[^/@\s]+@")


@contextmanager
def recorded(out: Path, notes: Sequence[str] = ()) -> Iterator[None]:
    """Records a start of the run, and at its end the outcome.

    Args:
        out: The run folder.
        notes: Notes on data that was left out, renamed or changed.

    Raises:
        UserError: the folder cannot be written.
    """
    starts = [*read_starts(out), {**describe_start(), "notes": list(notes)}]
    _write(out, starts)
    try:
        yield
        starts[-1]["outcome"] = FINISHED
    except BaseException as error:
        starts[-1]["outcome"] = _outcome(error)
        raise
    finally:
        starts[-1]["ended"] = _now()
        with suppress(UserError):  # the run's own error already reports a full disk
            _write(out, starts)


def read_starts(out: Path) -> list[dict[str, Any]]:
    """Returns the recorded starts of a run, earliest first; [] if the record is damaged."""
    try:
        starts = json.loads(read_text_file(out / RECORD, MOST_BYTES))["starts"]
    except (UserError, ValueError, LookupError, TypeError, RecursionError):
        return []
    valid = isinstance(starts, list) and all(isinstance(start, dict) for start in starts)
    return starts if valid else []


def describe_start(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Returns the record of a start.

    Args:
        words: Words of the command; None means those of this process.
    """
    return {
        "started": _now(),
        "command": _describe_command(sys.argv if words is None else words),
        "process": os.getpid(),
        "machine": {
            "system": platform.platform(),
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        "versions": {"python": platform.python_version(), **_versions()},
        "git": _describe_git(Path.cwd()),
        "outcome": None,
    }


def was_stopped(error: BaseException) -> bool:
    """Returns whether an error means that the user or a signal stopped the run."""
    # `plain_errors` has replaced KeyboardInterrupt and SystemExit, which are now the context.
    by_hand = any(isinstance(e, KeyboardInterrupt | SystemExit) for e in (error, error.__context__))
    return by_hand or getattr(error, "exit_status", 0) > 128


def _outcome(error: BaseException) -> str:
    if was_stopped(error):
        return STOPPED
    return f"failed: {error if isinstance(error, UserError) else type(error).__name__}"


def _write(out: Path, starts: list[dict[str, Any]]) -> None:
    text = json.dumps({"starts": starts}, indent=2) + "\n"
    write_atomically(out / RECORD, lambda file: file.write(text.encode()))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _describe_command(words: Sequence[str]) -> str:
    """Returns the command, with possible secrets hidden."""
    program = Path(words[0])
    module = ["python", "-m", program.parent.name]
    shown, hidden = module if program.name == "__main__.py" else [program.name], False
    for word in words[1:]:
        option, equals, _ = word.partition("=")
        secret = word.startswith("--") and _SECRET.search(option) is not None
        if hidden and not word.startswith("--"):
            word = "…"
        elif secret and equals:
            word = f"{option}=…"
        hidden = secret and not equals
        shown.append(hide_user(word))
    return shlex.join(shown)


def hide_user(text: str) -> str:
    """Hides name and password in the addresses of a text."""
    return _USER_IN_ADDRESS.sub("…@", text)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _describe_git(folder: Path) -> dict[str, Any] | None:
    """Returns commit, branch and number of changed files, or None without a repository."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    changed = _git(folder, "status", "--porcelain")
    return {
        "commit": commit,
        "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"),
        "changed_files": None if changed is None else len(changed.splitlines()),
    }


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # names of files and branches may be any bytes
            timeout=5,
        )
    except (OSError, subprocess.SubprocessError):  # git is not installed or takes too long
        return None
    return done.stdout.strip() if done.returncode == 0 else None
