"""Reads what the page of a run shows: its files, its model, and images with predictions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spanets.report.charts import Points
from spanets.report.frequencies import measure_stages
from spanets.runs.file_names import BEST, FOLD_RECIPE, LAST, RESULTS
from spanets.runs.listing import Run, is_run, read_results, read_run
from spanets.runs.record import read_starts
from spanets.sources import Source, open_checkpoint
from spanets.tasks import DEFAULT_TASK, load_task
from spanets.training.options import EvalOptions
from spanets.training.report_parts import Examples
from spanets.training.task import Task
from spanets_runtime.errors import UserError, first_line


@dataclass
class Content:
    """What is known about a run; what is missing is None, and `problems` gives the reason.

    Attributes:
        run: The run.
        results: The contents of results.json; {} if the run is not finished.
        starts: The recorded starts, earliest first.
        task: The run's task.
        checkpoint: The checkpoint of the results, or else the last one.
        source: The opened checkpoint.
        examples: Images with predictions.
        curves: Relative log amplitude of the stages.
        measured: Number of images that `curves` are means of.
        problems: Reasons, by "results", "checkpoint", "examples" or "frequencies".
    """

    run: Run
    results: dict[str, Any] = field(default_factory=dict)
    starts: Sequence[dict[str, Any]] = ()
    task: type[Task[Any]] | None = None
    checkpoint: Path | None = None
    source: Source | None = None
    examples: Examples | None = None
    curves: dict[str, Points] = field(default_factory=dict)
    measured: int = 0
    problems: dict[str, str] = field(default_factory=dict)


def check_folder(folder: Path) -> None:
    """Raises a UserError if a path is no run folder."""
    if folder.is_file():
        raise UserError(f"{folder}: is a file; name the run folder, such as {folder.parent}")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if (folder / FOLD_RECIPE).is_file():
        raise UserError(
            f"{folder}: is a cross-validation; name one of its runs, such as {folder / 'fold-0'}"
        )
    if not is_run(folder):
        raise UserError(
            f"{folder}: no run in it; `spanets train` writes run folders, and `spanets runs "
            "FOLDER` lists those below a folder"
        )


def read_content(folder: Path, options: EvalOptions) -> Content:
    """Reads a run folder, opens its checkpoint, and predicts some evaluation images.

    Args:
        folder: The run folder.
        options: Options for reading the images.

    Raises:
        UserError: this is no run folder.
    """
    check_folder(folder)
    content = Content(read_run(folder, folder), starts=read_starts(folder))
    try:
        content.results = read_results(folder / RESULTS) or {}
    except UserError as error:
        content.problems["results"] = str(error)
    _open(content)
    if content.source is not None:
        _look(content, options)
    return content


def _open(content: Content) -> None:
    """Opens the checkpoint of the results, or else the last one."""
    folder, word = content.run.folder, content.results.get("checkpoint")
    names = [Path(word).name] if isinstance(word, str) else []
    paths = [folder / name for name in (*names, LAST, BEST)]
    content.checkpoint = next((path for path in paths if path.is_file()), None)
    try:
        content.task = load_task(content.run.recipe.get("task", DEFAULT_TASK))
        if content.checkpoint is None:
            raise UserError(f"{folder}: no checkpoint in it")
        content.source = open_checkpoint(content.checkpoint)
        content.task = load_task(content.source.info.task)
    except UserError as error:
        content.problems["checkpoint"] = str(error)


def _look(content: Content, options: EvalOptions) -> None:
    """Predicts images, and measures the frequencies of some of them."""
    source, task = content.source, content.task
    assert source is not None
    assert task is not None
    try:
        content.examples = task.find_examples(source, options, content.results)
    # Data may be gone or changed in any way; the rest of the page needs none.
    except Exception as error:
        content.problems["examples"] = _reason(error)
    if not task.is_image_level:
        return
    if content.examples is None:
        content.problems["frequencies"] = "needs the images, which cannot be read"
    else:
        try:
            content.curves, content.measured = measure_stages(source, content.examples.images)
        # Networks name and lay out their stages in many ways.
        except Exception as error:
            content.problems["frequencies"] = _reason(error)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else first_line(error)
