"""`spanets weights convert`: writes a weights file under this package's names, as safetensors."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from spanets.backbones.factory import check_name
from spanets.backbones.registry import own_models, sketch_model
from spanets.version import __version__
from spanets.weights.choosing import read_state_dict
from spanets.weights.digests import measure
from spanets.weights.errors import WeightsError
from spanets.weights.files import StateDict, find_file, read_checkpoint
from spanets.weights.loading import Fitted, fit_weights
from spanets.weights.released import convert_official, is_mask, is_official
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.files import check_place, write_atomically

SUFFIX = ".safetensors"

# The classifier's weight, by the last parts of its key: ours, and the authors'.
_CLASSIFIERS = ("head.fc.fc2.weight", "head.fc2.weight", "head.fc.weight", "head.weight")


@dataclass(frozen=True)
class Converted:
    """Result of `convert_file`.

    Attributes:
        path: The written file.
        model: Model that the weights are for, or None if no classifier of this package fits.
        tensors: Number of tensors in the file.
        notes: What was renamed, dropped or left out, each with a count.
        written: False if the file was there already, with the same content.
    """

    path: str
    model: str | None
    tensors: int
    notes: list[str] = field(default_factory=list)
    written: bool = True


def convert_file(path: str | Path, out: str | Path, model: str | None = None) -> Converted:
    """Converts a file of weights, released or of this package, to our names and safetensors.

    Args:
        path: The file; see `read_checkpoint`.
        out: The file to write. If it exists, it must have the same content.
        model: timm name of one of this package's models; None finds it by names and shapes.

    Raises:
        UsageError: the model is not this package's, or the name of `out` has another suffix.
        WeightsError: unreadable file, weights for another model, or wrong masks.
        UserError: `out` is another file, or cannot be written.
    """
    target = Path(out)
    if target.suffix.lower() != SUFFIX:
        raise UsageError(f"--out is {out}, must end in {SUFFIX}")
    check_place(target)
    if model is not None:
        model = _own_name(model)
    content = read_checkpoint(path)
    name, fitted = _find_model(content, path, model)
    if fitted is None:
        found = read_state_dict(path)
        tensors = convert_official(found)
        notes = ["no classifier of this package has these weights, so only names were converted"]
    else:
        found, tensors = fitted.found, fitted.tensors
        notes = fitted.report.notes()
    notes = [*_describe_names(found, tensors), *notes]
    metadata = {"format": "pt", "spanets": __version__, "converted_from": Path(path).name}
    metadata["converted_from_sha256"] = measure(find_file(Path(path)))[1]
    if name is not None:
        metadata["model"] = name
    written = _write(target, tensors, metadata)
    return Converted(str(target), name, len(tensors), notes, written)


def _own_name(model: str) -> str:
    check_name(model)
    name = model.partition(".")[0]
    if name not in own_models():
        raise UsageError(f"--model is {model}, must be one of this package's: `spanets models`")
    return name


def _find_model(
    content: Mapping[str, Any], path: str | Path, model: str | None
) -> tuple[str | None, Fitted | None]:
    """Returns the model with these weights, and its weights in the file.

    Raises:
        WeightsError: the given model does not fit, or no model fits and the names are unknown.
    """
    classes = _count_classes(content)
    for name in own_models() if model is None else [model]:
        try:
            return name, fit_weights(sketch_model(name, num_classes=classes), content)
        except WeightsError as error:
            if model is not None:
                reason = str(error).removeprefix("the weights: ")
                raise WeightsError(f"{path}: not the weights of {model} ({reason})") from None
    if is_official(read_state_dict(path)):
        return None, None
    raise WeightsError(f"{path}: fits no model of this package; name it with --model to see why")


def _count_classes(content: Mapping[str, Any]) -> int:
    """Returns the number of classes of the first classifier in a file; 1000 without one."""
    for key, value in _tensors(content):
        if key.endswith(_CLASSIFIERS) and value.ndim == 2:
            return len(value)
    return 1000


def _tensors(content: Mapping[str, Any], depth: int = 4) -> Iterable[tuple[str, Tensor]]:
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield str(key), value
        elif isinstance(value, Mapping) and depth:
            yield from _tensors(value, depth - 1)


def _describe_names(found: StateDict, tensors: StateDict) -> list[str]:
    masks = [key for key in found if is_mask(key)]
    same, changed = found.keys() & tensors.keys(), found.keys() - tensors.keys() - set(masks)
    added = tensors.keys() - found.keys()
    lines = [f"{len(same)} tensors keep their names"]
    if changed or added:
        lines.append(f"{len(changed)} are renamed or joined, to {len(added)}")
    if masks:
        lines.append(f"{len(masks)} masks are constants: compared, then dropped")
    return lines


def _write(path: Path, tensors: StateDict, metadata: dict[str, str]) -> bool:
    if path.exists():
        if not _is_same(path, tensors):
            raise UserError(f"{path}: exists with other content; name another file or remove it")
        return False
    # Copies, because safetensors refuses tensors that share memory.
    plain = {key: value.contiguous().clone() for key, value in tensors.items()}
    content = save(plain, metadata)
    write_atomically(path, lambda file: file.write(content))
    return True


def _is_same(path: Path, tensors: StateDict) -> bool:
    try:
        there = read_checkpoint(path)
    except WeightsError:
        return False
    return there.keys() == tensors.keys() and all(
        there[key].dtype == value.dtype and torch.equal(there[key], value)
        for key, value in tensors.items()
    )
