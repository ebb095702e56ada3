"""Restores the network of a checkpoint: builds it within limits, and loads its weights.

A checkpoint is untrusted. Its weights must be exactly those of the model that it names, and the
model is first built without memory.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from spanets.backbones.limits import ModelTooLargeError, check_numbers, limited_model
from spanets.checkpoint import ModelInfo
from spanets.tasks import load_task
from spanets.weights import WeightsError
from spanets.weights.errors import show_name
from spanets_runtime.errors import UserError, first_line


def restore_model(path: str | Path, info: ModelInfo, weights: Mapping[str, Tensor]) -> nn.Module:
    """Returns the model of a checkpoint with its weights.

    Raises:
        WeightsError: an unknown model, one of absurd size, or weights that do not fit it; the
            message names `path`.
    """
    try:
        model = _build_fitting(info, weights)
    except UserError as error:
        raise WeightsError(f"{path}: {error}") from None
    # Untrusted metadata can hold any values, and models raise any kind of exception for them.
    except Exception as error:
        reason = first_line(error)
        raise WeightsError(f"{path}: its model cannot be built ({reason})") from error
    model.load_state_dict(weights)
    return model


def _build_fitting(info: ModelInfo, weights: Mapping[str, Tensor]) -> nn.Module:
    """Builds the model of a checkpoint after checking that its weights fit and its size is sane."""
    # Category ids are labels, not sizes, so large values are fine.
    head = {key: value for key, value in info.head.items() if key != "category_ids"}
    check_numbers([info.model_args, head], weights)
    build = load_task(info.task).build_model
    with limited_model(weights):
        # First on the meta device, without memory: an untrusted checkpoint can name a huge model.
        if (sketch := _sketch(info)) is not None:
            _check_names(info, sketch, weights)
        model = build(info)
    _check_names(info, model, weights)
    return model


def _sketch(info: ModelInfo) -> nn.Module | None:
    """Builds a model on the meta device, or returns None if that is not possible."""
    try:
        with torch.device("meta"):
            return load_task(info.task).build_model(info)
    except ModelTooLargeError:
        raise
    # A few models compute with values in their constructor. Real errors recur in the real build.
    except Exception:
        return None


def _check_names(info: ModelInfo, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    if mismatch := _compare(model.state_dict(), weights):
        raise UserError(f"its weights are not those of {info.model}: {mismatch}")


def _compare(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Describes briefly how two sets of tensors differ in names, shapes or types; "" if equal."""
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
