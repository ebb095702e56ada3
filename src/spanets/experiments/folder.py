"""The folder of a study, and the study that it was begun with.

DIR/
  study.yaml     the study file as it was when the study began or was last extended
  base.yaml      the recipe's values at that time
  history.jsonl  when it began, and what was added or changed, and when
  cells/LEVELS/seed-N/   the run folder of each cell
  results.json, table.csv, study.png, study.html   the results; `recording` and `page` write them

A rule is never written after its result: once a cell has finished an epoch, another rule, metric or
baseline is refused, and so are other recipe values for cells that exist. Seeds and levels may be
added.
"""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from spanets.experiments.cells import CELLS, has_value, read_results
from spanets.experiments.study_file import Study, parse_study
from spanets.recipe import change_values
from spanets.recipe.bounds import MOST_CHARACTERS
from spanets.recipe.yaml_text import dump_yaml, load_yaml
from spanets.runs.file_names import HISTORY as EPOCHS
from spanets.runs.file_names import RESULTS as RUN_RESULTS
from spanets.training.resuming import FREE_ON_RESUME
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.files import write_atomically
from spanets_runtime.reading import read_text_file
from spanets_runtime.text import shorten

STUDY, BASE, HISTORY = "study.yaml", "base.yaml", "history.jsonl"
RESULTS, TABLE, PICTURE, PAGE = "results.json", "table.csv", "study.png", "study.html"

_LOCK = ".study"

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""Errors of a file system without locks."""

Base = Mapping[str, Any]
"""Values of a recipe by dotted key."""


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Lets one process at a time read and write the files of a study; ends with the process.

    Where the file system has no locks, nothing is held; `run_study` says so.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _lock(out / _LOCK):
            yield
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from error


def _lock(path: Path) -> AbstractContextManager[Any]:
    """Returns a lock that is held, or nothing where there are none."""
    try:
        return FileLock(path).acquire()
    except NotImplementedError:  # some versions of filelock raise it in place of ENOSYS
        return nullcontext()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return nullcontext()


def begin(study: Study, base: Base, out: Path) -> list[str]:
    """Writes the study into its folder, or compares it with the one that is there.

    Returns:
        What was added or changed, in words.

    Raises:
        UsageError: see `check`.
    """
    with locked(out):
        changes = check(study, base, out)
        if changes is None:
            changes, noted = [], ["begun"]
        else:
            noted = changes
        if noted:
            _write_text(out / BASE, dump_yaml(dict(base)))
            _write_text(out / STUDY, study.text)
            _add_history(out, noted)
        return changes


def check(study: Study, base: Base, out: Path) -> list[str] | None:
    """Compares a study with the one in a folder; writes nothing.

    Returns:
        What is new, in words; None if the folder holds no study.

    Raises:
        UsageError: rules, metric, baseline, or the recipe of existing cells differ, or seeds or
            levels are missing; or the folder holds other files and no study.
    """
    if not os.path.lexists(out / STUDY):
        names = sorted(os.listdir(out)) if out.is_dir() else []
        # Hidden files are locks; a process that was killed at the start has left BASE.
        if others := [name for name in names if not name.startswith(".") and name != BASE]:
            raise UsageError(
                f"{out}: holds no study, but other files, such as {others[0]}; choose a new or "
                "empty folder for --out"
            )
        return None
    before = parse_study(read_text_file(out / STUDY, MOST_CHARACTERS), str(out / STUDY))
    old_base = load_yaml(read_text_file(out / BASE, MOST_CHARACTERS), str(out / BASE))
    if not any((out / CELLS).glob(f"*/seed-*/{EPOCHS}")):
        is_same = before.text == study.text and old_base == dict(base)
        return [] if is_same else ["changed before any cell had finished an epoch"]
    if before.metric != study.metric and not _has_metric(before.metric.name, out):
        renamed = f"metric {before.metric.name}, which no cell has, became {study.metric.name}"
        return [renamed, *compare(replace(before, metric=study.metric), study, old_base, base, out)]
    return compare(before, study, old_base, base, out)


def _has_metric(name: str, out: Path) -> bool:
    """Returns whether a finished cell has a metric."""
    found = (out / CELLS).glob(f"*/seed-*/{RUN_RESULTS}")
    return any(has_value(read_results(path.parent), name) for path in found)


def compare(before: Study, now: Study, old_base: Base, base: Base, out: Path) -> list[str]:
    """Returns what a study adds to an earlier one, in words.

    Raises:
        UsageError: it changes or removes something, in one line.
    """
    end = f"than in {out / STUDY}, and a study does not change after it began; use another --out"
    for key in ("rules", "metric", "baseline"):
        if before.design()[key] != now.design()[key]:
            raise UsageError(f"{now.origin}: {key}: other {end}")
    if list(before.factors) != list(now.factors):
        raise UsageError(f"{now.origin}: factors: other {end}")
    if before.measure != now.measure:
        raise UsageError(f"{now.origin}: measure: other {end}")
    if before.split_by_seed != now.split_by_seed:
        raise UsageError(f"{now.origin}: split_by_seed: other {end}")
    _compare_values(old_base, base, f"{now.recipe} has changed since the study began: ", out)
    _compare_values(
        change_values({}, before.set, "set"),
        change_values({}, now.set, "set"),
        f"{now.origin}: set: ",
        out,
    )
    added = _added("seed", before.seeds, now.seeds, f"{now.origin}: seeds", out)
    for factor, levels in before.factors.items():
        where = f"{now.origin}: factors: {factor}"
        added += _added(f"{factor}: level", levels, now.factors[factor], where, out)
        for level, keys in levels.items():
            _compare_values(
                change_values({}, keys, level),
                change_values({}, now.factors[factor][level], level),
                f"{where}: {level}: ",
                out,
            )
    if before.question != now.question:
        added.append(f"other words of the question; before: {shorten(before.question, 300)}")
    return added


def _compare_values(before: Base, now: Base, where: str, out: Path) -> None:
    """Raises a UsageError for the first value that differs and changes a result."""
    for key in dict.fromkeys((*before, *now)):
        if before.get(key) != now.get(key) and key not in FREE_ON_RESUME:
            shown = f"{key} is {now.get(key)}, in {out} it is {before.get(key)}"
            raise UsageError(f"{where}{shorten(shown, 300)}; restore it, or use another --out")


def _added(what: str, before: Any, now: Any, where: str, out: Path) -> list[str]:
    for one in before:
        if one not in now:
            raise UsageError(
                f"{where}: {one} is missing, and {out} has it; results are never left out: "
                "restore it, or use another --out"
            )
    return [f"{what} {one} added" for one in now if one not in before]


def read_history(out: Path) -> list[dict[str, str]]:
    """Returns when a study began and what was changed later: "when" and "what"."""
    try:
        text = read_text_file(out / HISTORY, MOST_CHARACTERS)
        lines = [json.loads(line) for line in text.splitlines()]
    except (UserError, ValueError, RecursionError):
        return []
    return [line for line in lines if isinstance(line, dict)]


def _add_history(out: Path, whats: list[str]) -> None:
    when = datetime.now(UTC).isoformat(timespec="seconds")
    lines = [*read_history(out), *({"when": when, "what": what} for what in whats)]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    _write_text(out / HISTORY, text)


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))
