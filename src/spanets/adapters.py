"""Checkpoints that hold an adapter alone, without the weights that it adapts.

Such a file holds the adapter, all that was trained beside it, such as the classifier, and the
metadata. The other weights, its base, are found as the run's recipe names them, and must be the
same to the last bit.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spanets.backbones.factory import create_pretrained
from spanets.backbones.limits import limited_model
from spanets.checkpoint import INFO_KEY, ModelInfo, read_own, save_torch
from spanets.tasks import load_task
from spanets.weights import WeightsError, load_weights
from spanets.weights.adapters import BASE_KEY, adapted_names, base_name, layer_of
from spanets.weights.choosing import Given
from spanets.weights.classifiers import find_body
from spanets.weights.errors import show_name
from spanets_runtime.errors import UserError
from spanets_runtime.files import check_place

_PREFIX = "model."  # of the network's tensors in a checkpoint

_MOST_BASE = 2**32
"""Largest size of the weights that an adapter may ask for, in bytes."""

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""Number formats of a run that its weights are rounded to before they are compared."""


def write_adapter(checkpoint: Path, out: Path) -> int:
    """Writes the adapter of a classifier's checkpoint into a file of its own.

    Where the weights that it adapts are found, it is first checked against them.

    Args:
        checkpoint: Checkpoint of a run with `model.lora`.
        out: File to write; it is used like a checkpoint.

    Returns:
        Number of parameters in the file.

    Raises:
        UserError: the checkpoint has no adapter, is of another task or unreadable, or has other
            weights than those that it adapts; or `out` cannot be written.
    """
    check_place(out)
    info, content = read_own(checkpoint)
    task = load_task(info.task)
    if not task.is_image_level:
        raise UserError(f"{checkpoint}: is for {info.task}; adapters alone are of classifiers")
    tensors = _tensors_of(content)
    if BASE_KEY in content or not any(layer_of(name) for name in tensors):
        raise UserError(f"{checkpoint}: has no adapter beside its weights; see model.lora.rank")
    body = find_body(task.build_model(info))
    # As in training, which freezes the body, and nothing else.
    own = {n: v for n, v in tensors.items() if layer_of(n) or n.partition(".")[0] not in body}
    base = {base_name(name): value for name, value in tensors.items() if name not in own}
    described = {"sha256": digest(base), "tensors": len(base), "dtype": _dtype_of(base)}
    _check_base(checkpoint, out, info, described, own)
    state = {f"{_PREFIX}{name}": value for name, value in own.items()}
    save_torch({INFO_KEY: content[INFO_KEY], "state_dict": state, BASE_KEY: described}, out)
    return sum(value.numel() for value in own.values())


def add_base(
    path: str | Path,
    info: ModelInfo,
    content: Mapping[str, Any],
    weights: str | Path | None = None,
) -> Mapping[str, Any]:
    """Returns the content of an adapter's file with the weights that it adapts.

    They are the published weights of the model, fetched if need be; or the file of the recipe's
    `model.weights`, beside the adapter.

    Args:
        path: The adapter's file.
        info: Its metadata.
        content: Its content.
        weights: The weights that it adapts, instead of those.

    Raises:
        WeightsError: they are missing, or other ones.
    """
    described, own = content[BASE_KEY], _tensors_of(content)
    where, given = _find_base(Path(path), info) if weights is None else (str(weights), weights)
    base = _load_base(info, given, described, own)
    if base is None:
        raise WeightsError(
            f"{path}: adapts other weights than {where} (their SHA-256 differs); give those that "
            "the run started from with --weights FILE"
        )
    names = adapted_names(base, own)
    state = {**{names[name]: value for name, value in base.items()}, **own}
    whole = {key: value for key, value in content.items() if key != BASE_KEY}
    return {**whole, "state_dict": {f"{_PREFIX}{name}": value for name, value in state.items()}}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 of named tensors: names, types, shapes and values."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _dtype_of(tensors: Mapping[str, Tensor]) -> str | None:
    """Returns the only number format of the weights, or None if they have several."""
    found = {str(value.dtype) for value in tensors.values() if value.is_floating_point()}
    return found.pop().removeprefix("torch.") if len(found) == 1 else None


def _check_base(
    checkpoint: Path, out: Path, info: ModelInfo, described: Any, own: Mapping[str, Tensor]
) -> None:
    """Raises a UserError if an adapter does not fit the weights that its run names."""
    named = _settings_of(info).get("weights")
    is_there = isinstance(named, str) and os.path.exists(named)
    try:
        where, given = (str(named), str(named)) if is_there else _find_base(out, info)
    except WeightsError:
        return  # they are on another machine, or there is no network
    if _load_base(info, given, described, own) is None:
        raise UserError(
            f"{checkpoint}: no adapter was written: its weights are not those of {where} (their "
            "SHA-256 differs), so nothing could open it"
        )


def _load_base(
    info: ModelInfo, given: Given, described: Any, own: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    """Returns the weights that an adapter lacks, or None if they are other ones.

    Args:
        info: Metadata of the adapter.
        given: The weights that the run started from.
        described: What the adapter's file says about those that it lacks.
        own: Tensors of the adapter's file.
    """
    with limited_model({}, _MOST_BASE):
        model = load_task(info.task).build_model(info)
    ema = _settings_of(info).get("weights_ema")
    load_weights(
        model,
        given,
        reset_classifier=True,
        ema=ema if isinstance(ema, bool) else None,
        adapt_channels="channels" in info.preprocessing,  # as `ImageLevelTask.load_weights` does
    )
    described = described if isinstance(described, Mapping) else {}
    # Files of earlier versions name no format; those that can be opened are of float32.
    dtype = _DTYPES.get(str(described.get("dtype")))
    base = {
        name: value.to(dtype) if value.is_floating_point() and dtype else value
        for name, value in model.state_dict().items()
        if name not in own
    }
    return base if digest(base) == described.get("sha256") else None


def _find_base(path: Path, info: ModelInfo) -> tuple[str, Given]:
    """Returns the weights that a run started from, and words for where they were found."""
    settings = _settings_of(info)
    if settings.get("pretrained") is not True:
        found = _find_beside(path, settings)
        return str(found), found
    where = f"the published weights of {info.model}"
    # The published ones have three channels, and are adapted like those of a file.
    adapted = {"in_chans"} if "channels" in info.preprocessing else set()
    arguments = {key: value for key, value in info.model_args.items() if key not in adapted}
    try:
        with limited_model({}, _MOST_BASE):
            return where, create_pretrained(info.model, arguments).state_dict()
    except UserError as error:
        raise WeightsError(f"{path}: adapts {where}: {error}") from error


def _settings_of(info: ModelInfo) -> Mapping[str, Any]:
    """Returns the section `model` of a recipe."""
    settings = info.recipe.get("model")
    return settings if isinstance(settings, Mapping) else {}


def _find_beside(path: Path, settings: Mapping[str, Any]) -> Path:
    """Returns the file of the run's `model.weights`, in the folder of the adapter.

    An adapter may come from somebody else, so no other path that it names is read.
    """
    named = settings.get("weights")
    if not isinstance(named, str) or not Path(named).name:
        raise WeightsError(f"{path}: damaged, it does not name the weights that it adapts")
    found = path.parent / Path(named).name
    if not found.exists():
        raise WeightsError(
            f"{path}: adapts the weights in {show_name(found.name)}, which is not beside it; put "
            "it there, or give it with --weights FILE"
        )
    return found


def _tensors_of(content: Mapping[str, Any]) -> dict[str, Tensor]:
    state = content.get("state_dict")
    return {
        name.removeprefix(_PREFIX): value
        for name, value in (state.items() if isinstance(state, Mapping) else ())
        if name.startswith(_PREFIX) and isinstance(value, Tensor)
    }
