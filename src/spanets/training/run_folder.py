"""Chooses and locks the run folder, and checks that a run replaces no other files in it."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count
from pathlib import Path

import yaml
from lightning.fabric.utilities.rank_zero import rank_zero_only

from spanets.recipe import Recipe, parse_recipe
from spanets.recipe.yaml_text import dump_yaml, load_yaml
from spanets.runs.claiming import claimed, claimed_first
from spanets.runs.file_names import FILES, FOLD_RECIPE, RECIPE
from spanets.runs.record import read_starts
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.files import write_atomically

# Passes the chosen folder to the processes that Lightning starts for the other devices.
_CHOSEN = "SPANETS_RUN_FOLDER"

# Environment variables with the rank of a process, in Lightning's order.
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")

_MOST = 10_000
"""Limit of runs with the same name."""


def is_first() -> bool:
    """Returns whether this process has rank 0 in its run."""
    # Until Lightning has a trainer, its own answer dates from its import.
    given = [os.environ[name] for name in _RANKS if os.environ.get(name, "").isdecimal()]
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]
    return (int(given[0]) if given else rank) == 0


def claim(out: Path) -> AbstractContextManager[None]:
    """Locks the folder for this run; in a distributed run only the first process does.

    Raises:
        UserError: another process trains in the folder, or it cannot be written.
    """
    return claimed(out) if is_first() else nullcontext()


@contextmanager
def claim_run_folder(recipe: Recipe, name: str, out: str | None, resume: bool) -> Iterator[Path]:
    """Locks and yields a run's folder: `out`, or a free `runs/NAME`, or the latest to resume.

    Runs that start at the same time get different folders.

    Args:
        recipe: The recipe to run.
        name: Name of the recipe, or path of its file.
        out: The folder from the command line, or None.
        resume: Whether to resume a run.

    Raises:
        UsageError: `out` is a file.
        UserError: another process trains in the folder, or it cannot be written.
    """
    if out is None and not resume and is_first():
        folders = (_numbered(name, number) for number in count(1))
        with claimed_first(folders, lambda folder: _is_free(folder, recipe)) as folder:
            os.environ[_CHOSEN] = str(folder)
            try:
                yield folder
            finally:
                del os.environ[_CHOSEN]
        return
    folder = _named(out) if out is not None else _find(recipe, name, resume)
    with claim(folder):
        yield folder


def holds_run(folder: Path) -> bool:
    """Returns whether a folder holds checkpoints."""
    return any(folder.glob("*.ckpt"))


def find_foreign(out: Path, recipe: Recipe) -> str | None:
    """Returns the name of a file that a new run would replace and no run wrote, or None."""
    if read_starts(out):  # left by a run that ended before its first checkpoint
        return None if _is_machine_written(out / RECIPE) else RECIPE
    # Loggers add to an existing folder, except Lightning's CSV logger, which empties it.
    folders = ("tensorboard", *(("csv",) if "csv" in recipe.trainer.logger.lower() else ()))
    return next((name for name in (*FILES, *folders) if os.path.lexists(out / name)), None)


def write_recipe(recipe: Recipe, out: Path) -> None:
    """Writes recipe.yaml with every key; a file that the user has edited stays.

    Raises:
        UserError: the folder cannot be written.
    """
    path = out / RECIPE
    if not _is_machine_written(path) or _holds_recipe(path, recipe):
        return
    write_atomically(path, lambda file: file.write(dump_yaml(recipe.to_dict()).encode()))


def _holds_recipe(path: Path, recipe: Recipe) -> bool:
    """Returns whether a YAML file holds the same values as a recipe."""
    try:
        values = load_yaml(path.read_text("utf-8"), path.name)
        return parse_recipe(values, origin=path.name) == recipe
    except (UserError, OSError, ValueError):
        return False


def _is_machine_written(path: Path) -> bool:
    """Returns whether a YAML file is our own output, without a user's comments or formatting."""
    try:
        text = path.read_text("utf-8")
        values = load_yaml(text, path.name)
        # The second form is that of version 0.1.0.
        return text in (dump_yaml(values), yaml.safe_dump(values, sort_keys=False))
    except FileNotFoundError:
        return True
    except (UserError, OSError, ValueError):
        return False


def _named(out: str) -> Path:
    if os.path.isfile(out):
        raise UsageError(f"--out {out}: is a file; name a folder")
    return Path(out)


def _find(recipe: Recipe, name: str, resume: bool) -> Path:
    """Returns the latest run with this name, or the folder that the first process chose."""
    if not resume and (chosen := os.environ.get(_CHOSEN)):
        return Path(chosen)
    folders = [_numbered(name, number) for number in range(1, _MOST)]
    if resume:
        recipes = (RECIPE, FOLD_RECIPE)
        runs = [folder for folder in folders if any((folder / name).exists() for name in recipes)]
        return runs[-1] if runs else folders[0]
    return next(folder for folder in folders if _is_free(folder, recipe))


def _numbered(name: str, number: int) -> Path:
    base = Path("runs") / Path(name).stem
    return base if number == 1 else base.with_name(f"{base.name}-{number}")


def _is_free(folder: Path, recipe: Recipe) -> bool:
    return not holds_run(folder) and find_foreign(folder, recipe) is None
