"""Checkpoints that carry all that is needed to use them, written so that none is ever half there.

Beside the weights a checkpoint holds a `Card`: model name and arguments, class names,
preprocessing, recipe and package version, all of them plain values, so that a file can be read
with `weights_only=True`.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import timm
import torch
from torch import Tensor, nn

from spanets.bounds import check_plain
from spanets.weights import WeightsError, read_checkpoint
from spanets_runtime.errors import UsageError, UserError, first_line, nearest
from spanets_runtime.files import write_atomically

CARD_KEY = "spanets"
FORMAT = 1

WEIGHT_SUFFIXES = (".ckpt", ".pth", ".pt", ".tar", ".bin", ".safetensors")

# Arguments of timm's factory that would read other files or reach for the network.
_FETCHING_ARGUMENTS = ("pretrained", "checkpoint_path", "cache_dir")


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
        head: What stands on the model as a backbone, in the task's own words; classifiers: {}.
    """

    model: str
    model_args: dict[str, Any]
    classes: list[str]
    preprocessing: dict[str, Any]
    recipe: dict[str, Any]
    version: str
    task: str = "classification"
    head: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the card as plain values."""
        return {"format": FORMAT, **asdict(self)}


def load_checkpoint(path: str | Path) -> tuple[Card, dict[str, Tensor]]:
    """Reads the card and the weights of a checkpoint, running nothing that it holds.

    Returns:
        The card, and the weights under the model's own names.

    Raises:
        WeightsError: an unreadable or damaged file, or one without a card.
    """
    content = read_checkpoint(path)
    card = read_card(content, path)
    check_integrity(path)
    tensors = content.get("state_dict")
    if not isinstance(tensors, Mapping):
        raise WeightsError(f"{path}: holds no weights")
    weights = {
        key.removeprefix("model."): value
        for key, value in tensors.items()
        if key.startswith("model.") and isinstance(value, Tensor)
    }
    return card, weights


def read_card(content: Mapping[str, Any], path: str | Path) -> Card:
    """Returns the card of a checkpoint's content.

    Raises:
        WeightsError: it has none, or a damaged one; the message names `path`.
    """
    card = content.get(CARD_KEY)
    if not isinstance(card, Mapping):
        raise WeightsError(
            f"{path}: names neither its model nor its classes; "
            "give a checkpoint that `spanets train` wrote"
        )
    if card.get("format") != FORMAT:
        raise WeightsError(
            f"{path}: written in format {card.get('format')}, this version reads {FORMAT}; "
            "update spanets"
        )
    card = {"head": {}, **card}  # files of version 0.1 have none
    types = {name: get_origin(kind) or kind for name, kind in get_type_hints(Card).items()}
    wrong = [name for name, kind in types.items() if not isinstance(card.get(name), kind)]
    if wrong or not card["classes"]:
        raise WeightsError(f"{path}: damaged, without {', '.join(wrong or ['classes'])}")
    # Written out or copied, what a few hundred bytes of a pickle stand for could fill the memory.
    no_names = [name for name in card["classes"] if not isinstance(name, str)]
    kept = {name: card[name] for name in ("model_args", "preprocessing", "recipe", "head")}
    try:
        check_plain({**kept, "classes": no_names}, f"{path}: its card")
    except UsageError as error:
        raise WeightsError(str(error)) from None
    return Card(**{name: card[name] for name in types})


def check_integrity(path: str | Path) -> None:
    """Compares a checkpoint with the checksums that torch stored in it, and does not look at.

    Raises:
        WeightsError: it has changed since it was written.
    """
    try:
        if not zipfile.is_zipfile(path):
            return  # safetensors, or the pickle of older releases: these hold no checksums
        with zipfile.ZipFile(path) as archive:
            # What no checksum covers: torch would leave out the content of a "folder".
            odd = [r.filename for r in archive.infolist() if r.compress_type or r.external_attr]
            damaged = odd[0] if odd else archive.testzip()
    # Beside its own error, whatever a wrong offset, version or flag leads to.
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise WeightsError(f"{path}: damaged since it was written ({error})") from error
    if damaged is not None:
        raise WeightsError(f"{path}: damaged since it was written (its part {damaged!r})")


def task_of(path: str | Path) -> str:
    """Returns the kind of prediction that a checkpoint was trained for.

    Raises:
        WeightsError: an unreadable file, or one without a card.
    """
    return read_card(read_checkpoint(path), path).task


def restore_classifier(path: str | Path) -> tuple[nn.Module, Card]:
    """Builds the model of a checkpoint as `restore_model` does, if it is a classifier.

    Raises:
        WeightsError: as for `restore_model`.
        UserError: it was trained for something else.
    """
    model, card = restore_model(path)
    if card.task != "classification":
        raise UserError(f"{path}: is for {card.task}; this command takes classifiers")
    return model, card


def is_checkpoint(source: str) -> bool:
    """Tells a file's path, of one that may not exist, from a model's name, which may have a tag."""
    path = Path(source)
    is_path = len(path.parts) > 1 and ":" not in source  # no address, such as hf-hub:owner/name
    return path.is_file() or is_path or path.suffix in WEIGHT_SUFFIXES


def restore_model(path: str | Path) -> tuple[nn.Module, Card]:
    """Builds the model of a checkpoint and loads its weights.

    Returns:
        The model in evaluation mode, and the card.

    Raises:
        WeightsError: an unreadable file, an unknown model, or weights that do not fit it.
    """
    card, weights = load_checkpoint(path)
    try:
        model = build_model(card)
    except UserError as error:
        raise WeightsError(f"{path}: {error}") from None
    if mismatch := _compare(model.state_dict(), weights):
        raise WeightsError(f"{path}: its weights are not those of {card.model}: {mismatch}")
    model.load_state_dict(weights)
    return model.eval(), card


def build_model(card: Card) -> nn.Module:
    """Builds the model that a card describes, its weights not loaded.

    Raises:
        UsageError: an unknown model or task, or arguments that it does not take.
    """
    # Imported here because they are built on this module.
    if card.task == "detection":
        from spanets.detection import build_detector

        return build_detector(card.model, card.model_args, len(card.classes), card.head)
    if card.task == "segmentation":
        from spanets.segmentation import build_segmenter

        return build_segmenter(card.model, card.model_args, len(card.classes), card.head)
    if card.task != "classification":
        known = "classification, detection, segmentation"
        raise UsageError(f"the task is {card.task!r}, known: {known}")
    return create_model(card.model, card.model_args, num_classes=len(card.classes))


def _compare(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Says how two sets of tensors differ in names and shapes, briefly; nothing if they do not."""
    differences = {
        "missing": own.keys() - given.keys(),
        "unexpected": given.keys() - own.keys(),
        "of another shape": {
            key for key in own.keys() & given.keys() if own[key].shape != given[key].shape
        },
    }
    parts = [f"{len(k)} {how}, such as {min(k)}" for how, k in differences.items() if k]
    return "; ".join(parts)


def create_model(name: str, arguments: Mapping[str, Any], **more: Any) -> nn.Module:
    """Builds a registered timm model from a name and arguments that a file or user gave.

    Raises:
        UsageError: an unknown name, an argument that the model does not take, or one that would
            fetch weights from elsewhere.
    """
    # Names with a scheme, such as "hf-hub:", are left to those who call timm themselves.
    if not timm.is_model(name):
        hint = (
            nearest(name.partition(".")[0], timm.list_models())
            or "; known are timm's and those of `spanets models`"
        )
        raise UsageError(f"unknown model {name!r}{hint}")
    for key in arguments:
        if key in _FETCHING_ARGUMENTS or key.startswith("pretrained_"):
            raise UsageError(f"model argument {key!r} is not allowed here: it would fetch weights")
    try:
        return timm.create_model(name, **{**arguments, **more})
    # Models check their arguments in every way there is, or not at all.
    except Exception as error:
        raise UsageError(f"model {name} with {dict(arguments)}: {first_line(error)}") from error


def save_torch(content: Any, path: str | Path, previous: str | Path | None = None) -> None:
    """Saves like `torch.save`, atomically; see `write_atomically`."""
    write_atomically(path, lambda file: torch.save(content, file), previous)
