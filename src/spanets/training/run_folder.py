"""The folder that a run takes: claimed for it, and holding nothing that the run would replace."""

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
from spanets.runs.folder import FILES, RECIPE
from spanets.runs.record import read_starts
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.files import write_atomically

# Tells the processes that Lightning starts for the other devices which folder the first one chose.
_CHOSEN = "SPANETS_RUN_FOLDER"

# Where torchrun, SLURM and Lightning tell a process its place, in Lightning's order.
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")

_MOST = 10_000
"""Runs of one name."""


def is_first() -> bool:
    """Tells whether this process is the first, or the only one, of its run."""
    # Lightning's own answer is that of its import, until it has made a trainer.
    given = [os.environ[name] for name in _RANKS if os.environ.get(name, "").isdecimal()]
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]
    return (int(given[0]) if given else rank) == 0


def claim(out: Path) -> AbstractContextManager[None]:
    """Holds the folder for this run; of several processes the first one does.

    Raises:
        UserError: another process trains in it, or it cannot be written.
    """
    return claimed(out) if is_first() else nullcontext()


@contextmanager
def claim_run_folder(recipe: Recipe, name: str, out: str | None, resume: bool) -> Iterator[Path]:
    """Holds the folder for a run: as asked, or a free `runs/NAME`; when resuming, the latest.

    Of several processes that ask at once, each gets a folder of its own.

    Args:
        recipe: What is to run.
        name: Of the recipe, or the path of its file.
        out: The folder that was asked for.
        resume: Whether a run goes on.

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
    """Tells whether a folder holds checkpoints."""
    return any(folder.glob("*.ckpt"))


def find_foreign(out: Path, recipe: Recipe) -> str | None:
    """Returns the name of what a new run would replace in a folder and that is of no run."""
    if read_starts(out):  # of a run that ended before it saved anything
        return None if _is_machine_written(out / RECIPE) else RECIPE
    # A logger's folder is added to, but Lightning's CSV logger empties what it finds.
    folders = ("tensorboard", *(("csv",) if "csv" in recipe.trainer.logger.lower() else ()))
    return next((name for name in (*FILES, *folders) if os.path.lexists(out / name)), None)


def write_recipe(recipe: Recipe, out: Path) -> None:
    """Writes recipe.yaml with every key; a file that somebody has edited is left as it is.

    Raises:
        UserError: the folder cannot be written.
    """
    path = out / RECIPE
    if not _is_machine_written(path) or _says(path, recipe):
        return
    write_atomically(path, lambda file: file.write(dump_yaml(recipe.to_dict()).encode()))


def _says(path: Path, recipe: Recipe) -> bool:
    """Tells whether a YAML file says what a recipe says."""
    try:
        values = load_yaml(path.read_text("utf-8"), path.name)
        return parse_recipe(values, origin=path.name) == recipe
    except (UserError, OSError, ValueError):
        return False


def _is_machine_written(path: Path) -> bool:
    """Tells whether a YAML file has neither comments nor a form of its own that could be lost."""
    try:
        text = path.read_text("utf-8")
        values = load_yaml(text, path.name)
        # The second is how version 0.1.0 wrote it.
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
    """Returns the latest run of a name, or the folder that the first process has chosen."""
    if not resume and (chosen := os.environ.get(_CHOSEN)):
        return Path(chosen)
    folders = [_numbered(name, number) for number in range(1, _MOST)]
    if resume:
        runs = [folder for folder in folders if (folder / RECIPE).exists()]
        return runs[-1] if runs else folders[0]
    return next(folder for folder in folders if _is_free(folder, recipe))


def _numbered(name: str, number: int) -> Path:
    base = Path("runs") / Path(name).stem
    return base if number == 1 else base.with_name(f"{base.name}-{number}")


def _is_free(folder: Path, recipe: Recipe) -> bool:
    return not holds_run(folder) and find_foreign(folder, recipe) is None
