"""Checkpoints that carry all that is needed to use them, written so that none is ever half there.

Beside the weights a checkpoint holds a `Card`: model name and arguments, class names,
preprocessing, recipe and package version, all of them plain values, so that a file can be read
with `weights_only=True`.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import timm
import torch
from torch import Tensor, nn

from spanets.errors import UserError, nearest
from spanets.weights import WeightsError, read_checkpoint

CARD_KEY = "spanets"
FORMAT = 1

# Arguments of timm's factory that would read other files or reach for the network.
_FORBIDDEN_ARGUMENTS = ("pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")  # fmt: skip


@dataclass(frozen=True)
class Card:
    """What is to be known about a checkpoint's model.

    Attributes:
        model: timm name.
        model_args: Arguments of `timm.create_model` beside the name and the number of classes.
        classes: Class names, in the order of the logits.
        preprocessing: Arguments of `timm.data.create_transform` for evaluation.
        recipe: The recipe it was trained by.
        version: Of this package.
        task: The kind of prediction.
    """

    model: str
    model_args: dict[str, Any]
    classes: list[str]
    preprocessing: dict[str, Any]
    recipe: dict[str, Any]
    version: str
    task: str = "classification"

    def to_dict(self) -> dict[str, Any]:
        """Returns the card as plain values."""
        return {"format": FORMAT, **asdict(self)}


def load_checkpoint(path: str | Path) -> tuple[Card, dict[str, Tensor]]:
    """Reads the card and the weights of a checkpoint, running nothing that it holds.

    Returns:
        The card, and the weights under the model's own names.

    Raises:
        WeightsError: an unreadable file, or one without a card.
    """
    content = read_checkpoint(path)
    card = content.get(CARD_KEY)
    if not isinstance(card, dict):
        raise WeightsError(
            f"{path}: holds weights but neither a model's name nor its classes; "
            "give a checkpoint that `spanets train` wrote"
        )
    known = {field.name for field in fields(Card)}
    if card.get("format") != FORMAT or not known <= card.keys():
        raise WeightsError(
            f"{path}: its card has format {card.get('format')}, this version reads {FORMAT}; "
            "update spanets"
        )
    weights = {
        key.removeprefix("model."): value
        for key, value in content["state_dict"].items()
        if key.startswith("model.")
    }
    return Card(**{name: card[name] for name in known}), weights


def restore_model(path: str | Path) -> tuple[nn.Module, Card]:
    """Builds the model of a checkpoint and loads its weights.

    Returns:
        The model in evaluation mode, and the card.

    Raises:
        WeightsError: an unreadable file, an unknown model, or weights that do not fit it.
    """
    card, weights = load_checkpoint(path)
    model = create_model(card.model, card.model_args, num_classes=len(card.classes))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise WeightsError(
            f"{path}: its weights are not those of {card.model}: {str(error).splitlines()[1].strip()}"
        ) from None
    return model.eval(), card


def create_model(name: str, arguments: dict[str, Any], **more: Any) -> nn.Module:
    """Builds a registered timm model from a name and arguments that a file or user gave.

    Raises:
        UserError: an unknown name, an argument that the model does not take, or one that would
            fetch weights from elsewhere.
    """
    # Names with a scheme, such as "hf-hub:", are left to those who call timm themselves.
    if not timm.is_model(name):
        raise UserError(f"unknown model {name!r}{nearest(name, timm.list_models())}")
    for key in arguments:
        if key in _FORBIDDEN_ARGUMENTS:
            raise UserError(f"model argument {key!r} is not allowed here: it would fetch weights")
    try:
        return timm.create_model(name, **{**arguments, **more})
    except (TypeError, ValueError) as error:
        raise UserError(f"model {name}: {str(error).splitlines()[0]}") from error


def write_atomically(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file whole or not at all: aside, synced to the disk, then renamed.

    Whatever was at `path` stays there until the new content is safe.

    Raises:
        UserError: the disk is full, or the place cannot be written.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except (OSError, RuntimeError) as error:
        # torch.save reports a full disk as a RuntimeError of its zip writer.
        aside.unlink(missing_ok=True)
        kept = "; the one written before is untouched" if path.exists() else ""
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be written ({reason}){kept}") from error
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # The rename itself is on the disk only once the folder is; not every system can do this.
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def save_torch(content: Any, path: str | Path) -> None:
    """Saves like `torch.save`, atomically."""
    write_atomically(path, lambda file: torch.save(content, file))
