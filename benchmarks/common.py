"""Writes the results of the benchmark scripts, with command, commit and machine."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from spanets.bench.timing import circumstances

RESULTS = Path(__file__).parent / "results"


def write(name: str, content: dict[str, Any], device: str = "cpu") -> None:
    """Writes results/NAME.json, with command and commit, and prints it."""
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    origin = {"command": command, "commit": _git("rev-parse", "--short", "HEAD")}
    origin |= circumstances(device)
    text = json.dumps({"circumstances": origin, **content}, indent=2)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, cwd=RESULTS.parent)
    except OSError:  # a machine without git or the repository
        return ""
    return done.stdout.strip()
