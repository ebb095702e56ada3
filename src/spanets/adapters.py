"""Checkpoints that hold an adapter alone, without the weights that it adapts.

Such a file holds the adapter, the classifier and the metadata. The other weights are found as the
run's recipe names them, and must be the same to the last bit.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spanets.backbones.factory import create_pretrained
from spanets.backbones.limits import limited_model
from spanets.checkpoint import INFO_KEY, ModelInfo, read_own, save_torch
from spanets.tasks import load_task
from spanets.weights import WeightsError, load_weights
from spanets.weights.adapters import BASE_KEY, adapted_names, base_name, layer_of
from spanets.weights.classifiers import classifier_names
from spanets.weights.errors import show_name
from spanets_runtime.errors import UserError
from spanets_runtime.files import check_place

_PREFIX = "model."  # of the network's tensors in a checkpoint

_MOST_BASE = 2**32
"""Largest size of the weights that an adapter may ask for, in bytes."""


def write_adapter(checkpoint: Path, out: Path) -> int:
    """Writes the adapter of a classifier's checkpoint into a file of its own.

    Args:
        checkpoint: Checkpoint of a run with `model.lora`.
        out: File to write; it is used like a checkpoint.

    Returns:
        Number of parameters in the file.

    Raises:
        UserError: the checkpoint has no adapter, is of another task or unreadable, or `out` cannot
            be written.
    """
    check_place(out)
    info, content = read_own(checkpoint)
    task = load_task(info.task)
    if not task.is_image_level:
        raise UserError(f"{checkpoint}: is for {info.task}; adapters alone are of classifiers")
    tensors = _tensors_of(content)
    if BASE_KEY in content or not any(layer_of(name) for name in tensors):
        raise UserError(f"{checkpoint}: has no adapter beside its weights; see model.lora.rank")
    heads = classifier_names(task.build_model(info))
    own = {n: v for n, v in tensors.items() if layer_of(n) or _is_of(n, heads)}
    base = {base_name(name): value for name, value in tensors.items() if name not in own}
    state = {f"{_PREFIX}{name}": value for name, value in own.items()}
    metadata = content[INFO_KEY]
    described = {"sha256": digest(base), "tensors": len(base)}
    save_torch({INFO_KEY: metadata, "state_dict": state, BASE_KEY: described}, out)
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
    where, model = _open_base(Path(path), info, weights)
    base = {n: v for n, v in model.state_dict().items() if not _is_of(n, classifier_names(model))}
    if not isinstance(described, Mapping) or digest(base) != described.get("sha256"):
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


def _open_base(path: Path, info: ModelInfo, weights: str | Path | None) -> tuple[str, nn.Module]:
    """Returns where the weights were found, and the network with them."""
    settings = info.recipe.get("model")
    settings = settings if isinstance(settings, Mapping) else {}
    with limited_model({}, _MOST_BASE):
        if settings.get("pretrained") is True and weights is None:
            where = f"the published weights of {info.model}"
            try:
                return where, create_pretrained(info.model, info.model_args)
            except UserError as error:
                raise WeightsError(f"{path}: adapts {where}: {error}") from error
        model = load_task(info.task).build_model(info)
    found = _find_beside(path, settings) if weights is None else weights
    ema = settings.get("weights_ema")
    load_weights(model, found, reset_classifier=True, ema=ema if isinstance(ema, bool) else None)
    return str(found), model


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


def _is_of(name: str, modules: tuple[str, ...]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)
