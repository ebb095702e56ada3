"""What `spanets study` does: counts what is left of a study, or runs it and writes the results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spanets.backbones.factory import create_model
from spanets.experiments.cells import Cell, make_cells, name_levels
from spanets.experiments.folder import begin, check, locked
from spanets.experiments.page import write_page
from spanets.experiments.planning import plan
from spanets.experiments.recording import collect, write_results
from spanets.experiments.running import Report, has_locks, run_cells
from spanets.experiments.study_file import Study
from spanets.recipe import read_recipe_values
from spanets.tasks import load_task
from spanets_runtime.errors import UsageError, UserError


def plan_study(
    study: Study, out: Path, report: Report, retry: bool = False, trusted: bool = False
) -> dict[str, Any]:
    """Returns the cells of a study by status, and the hours that are left; writes nothing.

    Raises:
        UsageError: see `run_study`.
    """
    base, cells = _open(study, out, trusted)
    for note in check(study, base, out) or ():
        report(note)
    _check_models(study, cells)
    return plan(cells, retry)


def run_study(
    study: Study,
    out: Path,
    report: Report,
    retry: bool = False,
    wait: bool = False,
    trusted: bool = False,
) -> dict[str, Any]:
    """Trains the cells that are missing, and writes table, numbers and page.

    Args:
        study: The study.
        out: Its folder.
        report: Shows a line to the user.
        retry, wait: See `run_cells`.
        trusted: See `make_cells`.

    Returns:
        The content of results.json.

    Raises:
        UsageError: the study cannot be run, or differs from the one that the folder was begun with.
        UserError: it was stopped, no finished cell has the metric, or a file cannot be written.
    """
    base, cells = _open(study, out, trusted)
    _check_models(study, cells)
    for note in begin(study, base, out):
        report(note)
    if not has_locks(out):
        report(f"{out}: its file system has no locks, so start only one process in it")

    def record(_: Cell | None = None) -> dict[str, Any]:
        with locked(out):  # else a slower process could write older results over newer ones
            results = collect(study, cells, out)
            write_results(results, out)
        return results

    run_cells(cells, report, record, retry, wait)
    results = record()
    with locked(out):
        write_page(results, out)
    return results


def _open(study: Study, out: Path, trusted: bool) -> tuple[Mapping[str, Any], list[Cell]]:
    if out.is_file():
        raise UsageError(f"--out {out}: is a file; name a folder")
    base = read_recipe_values(study.recipe)
    return base, make_cells(study, base, out, trusted)


def _check_models(study: Study, cells: Sequence[Cell]) -> None:
    """Builds each classifier's network once: a wrong argument must fail now, not after hours."""
    checked = set()
    for cell in cells:
        model = cell.recipe.model
        key = model.name, repr(model.args)
        if key in checked or not load_task(cell.recipe.task).is_image_level:
            continue
        checked.add(key)
        try:
            create_model(model.name, model.args)
        except UserError as error:
            raise type(error)(f"{study.origin}: {name_levels(cell.levels)}: {error}") from error
