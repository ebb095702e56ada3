"""Checkpoints that carry all that is needed to use them, written so that none is ever half there.

Beside the weights a checkpoint holds a `Card`: model name and arguments, class names,
preprocessing, recipe and package version, all of them plain values, so that a file can be read
with `weights_only=True`.
"""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from spanets.backbones.limits import ModelTooLargeError, check_numbers, limited_model
from spanets.card import CARD_KEY, FORMAT, Card, read_card
from spanets.weights import WeightsError, open_regular, read_checkpoint
from spanets.weights.archives import open_archive
from spanets.weights.errors import show_name
from spanets_runtime.errors import UsageError, UserError, first_line, nearest
from spanets_runtime.files import write_atomically

__all__ = [
    "CARD_KEY",
    "FORMAT",
    "WEIGHT_SUFFIXES",
    "Card",
    "build_model",
    "check_integrity",
    "check_torch_reads",
    "create_model",
    "is_checkpoint",
    "load_checkpoint",
    "read_card",
    "restore_classifier",
    "restore_model",
    "save_torch",
    "task_of",
]

WEIGHT_SUFFIXES = (".ckpt", ".pth", ".pt", ".tar", ".bin", ".safetensors")

# Arguments of timm's factory that would read other files or reach for the network.
_FETCHING_ARGUMENTS = ("checkpoint_path", "cache_dir", "kwargs_filter")


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


def check_integrity(path: str | Path) -> None:
    """Compares a checkpoint with the checksums that torch stored in it, and does not look at.

    Raises:
        WeightsError: it has changed since it was written.
    """
    with open_regular(Path(path)) as file:
        if file.read(2) != b"PK":
            return  # safetensors, or the pickle of older releases: these hold no checksums
        try:
            with open_archive(file, os.fstat(file.fileno()).st_size) as archive:
                # What no checksum covers: torch would leave out the content of a "folder".
                odd = [part.filename for part in archive.infolist() if part.external_attr]
                damaged = odd[0] if odd else archive.testzip()
        # Beside its own error, whatever a wrong name, offset, version or flag leads to.
        except Exception as error:
            reason = first_line(error)
            raise WeightsError(f"{path}: damaged since it was written ({reason})") from error
    if damaged is not None:
        raise WeightsError(f"{path}: damaged since it was written (its part {damaged!r})")


def check_torch_reads(path: str | Path) -> None:
    """Opens a checkpoint of one's own run as a resumed run will, without reading the weights.

    torch's reader of archives refuses some that others read, by fields that nothing else uses.

    Raises:
        WeightsError: torch does not read it.
    """
    with open_regular(Path(path)) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.load(file, map_location="meta", weights_only=True)
        except Exception as error:
            reason = first_line(error)
            raise WeightsError(f"{path}: damaged since it was written ({reason})") from error


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
        model = _build_fitting(card, weights)
    except UserError as error:
        raise WeightsError(f"{path}: {error}") from None
    # A card can have any value in any place, and builders check theirs in every way there is.
    except Exception as error:
        reason = first_line(error)
        raise WeightsError(f"{path}: its model cannot be built ({reason})") from error
    model.load_state_dict(weights)
    return model.eval(), card


def _build_fitting(card: Card, weights: Mapping[str, Tensor]) -> nn.Module:
    """Builds the model of a card, once it is clear that it is the one of these weights."""
    # The numbers of a data set's classes name nothing that is built.
    head = {key: value for key, value in card.head.items() if key != "category_ids"}
    check_numbers([card.model_args, head], weights)
    with limited_model(weights):
        # First without memory: a card from elsewhere can ask for a model of any size.
        if (sketch := _sketch(card)) is not None:
            _check_names(card, sketch, weights)
        model = build_model(card)
    _check_names(card, model, weights)
    return model


def _sketch(card: Card) -> nn.Module | None:
    """Builds a model without values, if that is possible."""
    try:
        with torch.device("meta"):
            return build_model(card)
    except ModelTooLargeError:
        raise
    # A few models compute with values where they are built; other errors come again with values.
    except Exception:
        return None


def _check_names(card: Card, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    if mismatch := _compare(model.state_dict(), weights):
        raise UserError(f"its weights are not those of {card.model}: {mismatch}")


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
    if card.model_args.get("features_only"):
        raise UsageError("model argument 'features_only' is not for classifiers")
    return create_model(card.model, card.model_args, num_classes=len(card.classes))


def _compare(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Says how two sets of tensors differ in names and shapes, briefly; nothing if they do not."""
    differences = {
        "missing": own.keys() - given.keys(),
        "unexpected": given.keys() - own.keys(),
        "of another shape": {
            key for key in own.keys() & given.keys() if own[key].shape != given[key].shape
        },
        "of another type": {
            key
            for key in own.keys() & given.keys()
            if own[key].is_floating_point() != given[key].is_floating_point()
        },
    }
    parts = [f"{len(k)} {how}, such as {show_name(min(k))}" for how, k in differences.items() if k]
    return "; ".join(parts)


def create_model(name: str, arguments: Mapping[str, Any], **more: Any) -> nn.Module:
    """Builds a registered timm model from a name and arguments that a file or user gave.

    Raises:
        UsageError: an unknown name, an argument that the model does not take, or one that would
            fetch weights from elsewhere.
    """
    # Names with a scheme, such as "hf-hub:", are left to those who call timm themselves.
    if ":" in name or not timm.is_model(name):
        hint = (
            nearest(name.partition(".")[0], timm.list_models())
            or "; known are timm's and those of `spanets models`"
        )
        raise UsageError(f"unknown model {name!r}{hint}")
    for key in arguments:
        if key in _FETCHING_ARGUMENTS or str(key).startswith("pretrained"):
            raise UsageError(f"model argument {key!r} is not allowed here: it would fetch weights")
    try:
        return timm.create_model(name, **{**arguments, **more})
    except ModelTooLargeError:
        raise
    # Models check their arguments in every way there is, or not at all.
    except Exception as error:
        given = show_name(str(dict(arguments)))
        raise UsageError(f"model {name} with {given}: {first_line(error)}") from error


def save_torch(content: Any, path: str | Path, previous: str | Path | None = None) -> None:
    """Saves like `torch.save`, atomically; see `write_atomically`."""
    write_atomically(path, lambda file: torch.save(content, file), previous)
