"""Checkpoint metadata (`ModelInfo`), reading it safely, and writing checkpoints atomically.

The metadata are model name and arguments, class names, preprocessing, recipe and package version.
A checkpoint is untrusted, so the reader accepts only plain values of limited number, depth and
size. `backbones.limits` limits the size of the model.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import torch
from torch import Tensor

from spanets.tasks import DEFAULT_TASK, load_task
from spanets.weights import WeightsError
from spanets.weights.adapters import merge_content
from spanets.weights.earlier import rename_all
from spanets.weights.files import find_file, open_regular, read_open
from spanets.weights.integrity import check_intact
from spanets_runtime.errors import UsageError
from spanets_runtime.files import write_atomically

INFO_KEY = "spanets"
FORMAT = 1

# Our own checkpoints have about 200 values in four levels, plus the class names.
_MAX_VALUES = 100_000
_MAX_DEPTH = 32
_MAX_TEXT = 100_000


@dataclass(frozen=True)
class ModelInfo:
    """Metadata of a checkpoint's model.

    Attributes:
        model: timm name.
        model_args: Arguments of `timm.create_model`, except the name and the number of classes.
        classes: Class names, in the order of the logits.
        preprocessing: Arguments of `timm.data.create_transform` for evaluation.
        recipe: Recipe of the training run.
        version: Version of this package.
        task: Name of the task, such as "detection".
        head: Task-specific arguments of the network on top of the backbone, or the scale of its
            outputs; {} for classifiers.
        calibration: What was fitted on the validation images: temperature of a classifier, or
            thresholds of labels; {} without.
    """

    model: str
    model_args: dict[str, Any]
    classes: list[str]
    preprocessing: dict[str, Any]
    recipe: dict[str, Any]
    version: str
    task: str = DEFAULT_TASK
    head: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the metadata as plain values."""
        return {"format": FORMAT, **asdict(self)}


def read_info(content: Mapping[str, Any], path: str | Path) -> ModelInfo:
    """Returns the metadata in a checkpoint's content.

    Raises:
        WeightsError: missing or damaged metadata; the message names `path`.
    """
    info = content.get(INFO_KEY)
    if not isinstance(info, Mapping):
        raise WeightsError(
            f"{path}: names neither its model nor its classes; give a checkpoint that "
            f"`spanets train` wrote, or the model's name with --weights {path}"
        )
    try:
        _Counter().check(info)
    except ValueError as error:
        raise WeightsError(f"{path}: damaged, its metadata holds {error}") from None
    if info.get("format") != FORMAT:
        raise WeightsError(
            f"{path}: written in format {info.get('format')!r}, this version reads {FORMAT}; "
            "update spanets"
        )
    # Files of version 0.1 have no head, and only calibrated ones a calibration.
    info = {"head": {}, "calibration": {}, **info}
    types = {name: get_origin(kind) or kind for name, kind in get_type_hints(ModelInfo).items()}
    wrong = [name for name, kind in types.items() if not isinstance(info.get(name), kind)]
    if not wrong and not all(isinstance(name, str) for name in info["classes"]):
        wrong = ["classes"]
    if wrong or not info["classes"]:
        raise WeightsError(f"{path}: damaged, without {', '.join(wrong or ['classes'])}")
    found = ModelInfo(**{name: info[name] for name in types})
    _check_preprocessing(found, path)
    return found


def read_own(path: str | Path) -> tuple[ModelInfo, dict[str, Any]]:
    """Reads a whole checkpoint of `spanets train`, opening it once and running none of its code.

    Returns:
        The metadata, and the full content.

    Raises:
        WeightsError: unreadable or damaged file, or not a checkpoint of `spanets train`.
    """
    found = find_file(Path(path))
    with open_regular(found) as file:
        content = read_open(file, found)
        info = read_info(content, path)
        check_intact(file, path)
    return info, content


def weights_of(content: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """Returns the model's weights in a checkpoint's content, under the model's own names.

    Adapters are merged; see `weights.adapters`.

    Raises:
        WeightsError: the content has no weights, or damaged adapters.
    """
    try:
        tensors = merge_content(content).get("state_dict")
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    if not isinstance(tensors, Mapping):
        raise WeightsError(f"{path}: holds no weights")
    weights = {
        key.removeprefix("model."): value
        for key, value in tensors.items()
        if key.startswith("model.") and isinstance(value, Tensor)
    }
    return rename_all(weights)


def load_checkpoint(path: str | Path) -> tuple[ModelInfo, dict[str, Tensor]]:
    """Reads a checkpoint's metadata and weights, without building the model.

    Raises:
        WeightsError: see `read_own`; or no weights.
    """
    info, content = read_own(path)
    return info, weights_of(content, path)


def save_torch(content: Any, path: str | Path, previous: str | Path | None = None) -> None:
    """Saves like `torch.save`, but atomically; see `write_atomically`."""
    write_atomically(path, lambda file: torch.save(content, file), previous)


def store_calibration(path: Path, calibration: Mapping[str, Any]) -> None:
    """Writes a calibration into a checkpoint's metadata, atomically.

    Raises:
        UserError: the checkpoint cannot be read or written.
    """
    _, content = read_own(path)
    content[INFO_KEY] = {**content[INFO_KEY], "calibration": dict(calibration)}
    save_torch(content, path)


class _Counter:
    """Checks nested values and counts them; a shared value counts each time it occurs."""

    def __init__(self) -> None:
        self.left = _MAX_VALUES

    def check(self, value: Any, depth: int = 0) -> None:
        """Raises a ValueError for values that are not plain, too many, too deep or too large."""
        self.left -= 1
        if self.left < 0 or depth > _MAX_DEPTH:
            raise ValueError("more values than any checkpoint needs")
        if isinstance(value, Mapping):
            if not all(isinstance(key, str) for key in value):
                raise ValueError("a key that is not a text")
            value = [part for pair in value.items() for part in pair]
        if isinstance(value, list | tuple):
            for part in value:
                self.check(part, depth + 1)
        elif isinstance(value, str):
            if len(value) > _MAX_TEXT:
                raise ValueError(f"a text of more than {_MAX_TEXT:,} characters")
        elif isinstance(value, int):
            if not -(2**63) <= value < 2**64:
                raise ValueError("an integer of more than 64 bits")
        elif value is not None and not isinstance(value, float):
            raise ValueError(f"a {type(value).__name__}")


def _check_preprocessing(info: ModelInfo, path: str | Path) -> None:
    try:
        task = load_task(info.task)
    except UsageError as error:
        raise WeightsError(f"{path}: {error}") from None
    try:
        task.check_preprocessing(info.preprocessing)
    except (UsageError, KeyError, IndexError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: damaged preprocessing ({error})") from None
