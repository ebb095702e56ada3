"""Compares a file's tensors with a model's: every key is loaded or reported with a reason."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from spanets.mixers import MERGES
from spanets.spectral import resize_half_spectrum
from spanets.weights.classifiers import classifier_names, first_convolutions
from spanets.weights.errors import WeightsError, show_name
from spanets.weights.files import StateDict
from spanets.weights.report import LoadReport, list_names

# Parts that a model may lack because it is a feature extractor, pruned, or without a head.
_OPTIONAL = r"head|norm|output_norms\.\d|stages\.\d"

# Batch norm's counter, which matters only for a momentum of None.
_COUNTER = ".num_batches_tracked"

# SPANetV2's order of heads: whether they are interleaved.
_ORDER = ".merge.interleaved"

# Values on the half spectrum of a map (C, H, F).
_FILTER = ".filter.logits"


@dataclass(frozen=True)
class Rules:
    """Allowed differences between a file and a model.

    Attributes:
        classifier: Names of the classifier's layers.
        first: Names of the layers that read the image.
        reset: Whether the classifier may keep its values.
    """

    classifier: tuple[str, ...]
    first: tuple[str, ...]
    reset: bool = False

    def in_classifier(self, key: str) -> bool:
        """Whether a tensor belongs to the classifier or the head around it."""
        return key.split(".")[0] in {name.split(".")[0] for name in self.classifier}

    def lacks_classifier(self, own: Iterable[str]) -> bool:
        """Whether a model with these names has no classifier."""
        return not any(key.startswith(f"{name}.") for key in own for name in self.classifier)


def rules_of(model: nn.Module, reset: bool = False) -> Rules:
    """Returns the allowed differences between a file and this model."""
    return Rules(classifier_names(model), first_convolutions(model), reset)


def match(
    tensors: StateDict, own: Mapping[str, Tensor], report: LoadReport, rules: Rules
) -> StateDict:
    """Returns the tensors to load; reports every other key, or raises a WeightsError."""
    _check_arguments(tensors, own)
    _account_for_unexpected(tensors, own, report, rules)
    _account_for_missing(tensors, own, report, rules)
    for key in sorted(own.keys() & tensors.keys()):
        if tensors[key].shape != own[key].shape and rules.reset and rules.in_classifier(key):
            report.fresh[key] = _compare_classes(tensors[key], own[key])
        else:
            check_tensor(key, tensors[key], own[key], rules)
    return {key: tensors[key] for key in own if key in tensors and key not in report.fresh}


def check_tensor(key: str, theirs: Tensor, ours: Tensor, rules: Rules) -> None:
    """Checks the shape and kind of one tensor.

    Raises:
        WeightsError: shape or kind differ.
    """
    if theirs.shape != ours.shape:
        shapes = f"{tuple(theirs.shape)} in the file, {tuple(ours.shape)} in the model"
        raise WeightsError(f"{key} has shape {shapes}{_explain_channels(key, theirs, ours, rules)}")
    # Scripts that convert all tensors to half precision also convert these two.
    is_converted = key.endswith(_COUNTER) or (key.endswith(_ORDER) and _is_zero_or_one(theirs))
    if theirs.is_floating_point() != ours.is_floating_point() and not is_converted:
        raise WeightsError(f"{key} holds {theirs.dtype} in the file, {ours.dtype} in the model")


def note_values(tensors: StateDict, own: Mapping[str, Tensor], report: LoadReport) -> None:
    """Reports the tensors that change their dtype, and those that are not finite."""
    for key, value in tensors.items():
        if value.dtype != own[key].dtype:
            formats = (str(dtype).removeprefix("torch.") for dtype in (value.dtype, own[key].dtype))
            report.converted[key] = " to ".join(formats)
        # 8-bit dtypes support few operations.
        whole = value.float() if value.dtype.itemsize == 1 else value
        if value.is_floating_point() and not torch.isfinite(whole).all():
            report.not_finite.append(key)


def resize_filters(tensors: StateDict, own: Mapping[str, Tensor]) -> StateDict:
    """Resizes SPANetV2's filters to the model's sizes, as the model does for images of its size."""
    resized = dict(tensors)
    for key, value in tensors.items():
        ours = own.get(key)
        if not key.endswith(_FILTER) or ours is None or value.ndim != 3:
            continue
        if len(value) == len(ours) and value.shape != ours.shape:
            height, columns = ours.shape[1:]
            # Of a half spectrum only the columns count, so that 2 (F - 1) stands for both widths.
            resized[key] = resize_half_spectrum(value, height, 2 * (columns - 1))
    return resized


def adapt_first(
    tensors: StateDict, own: Mapping[str, Tensor], report: LoadReport, rules: Rules
) -> StateDict:
    """Adapts layers that read three channels to the model's number, and reports them.

    It is timm's rule: one channel takes the sum of the three; more repeat them, scaled by 3 / N.
    """
    adapted = dict(tensors)
    for key in (f"{name}.weight" for name in rules.first):
        value, ours = tensors.get(key), own.get(key)
        if value is None or ours is None or value.ndim != 4 or ours.ndim != 4:
            continue
        if value.shape[1] == 3 != ours.shape[1]:
            adapted[key] = adapt_input_conv(ours.shape[1], value)
            report.adapted[key] = f"from 3 channels to {ours.shape[1]}, by timm's rule"
    return adapted


def check_places(own: Mapping[str, Tensor]) -> None:
    """Raises a ValueError for a model on the meta device."""
    if any(value.is_meta for value in own.values()):
        raise ValueError("the model is on the meta device; call model.to_empty(device=...) first")


def _account_for_unexpected(
    tensors: StateDict, own: Mapping[str, Tensor], report: LoadReport, rules: Rules
) -> None:
    parts, is_headless = {_part(key) for key in own}, rules.lacks_classifier(own)
    for key in sorted(tensors.keys() - own.keys()):
        if _part(key) not in parts and re.fullmatch(_OPTIONAL, _part(key)):
            report.skipped[key] = f"the model has no {_part(key)}"
        elif is_headless and rules.in_classifier(key):
            report.skipped[key] = "the model has no classifier"
    if unexpected := sorted(tensors.keys() - own.keys() - report.skipped.keys()):
        named = list_names(unexpected, 1)
        raise WeightsError(f"unexpected key {named}, the model has no such tensor")


def _account_for_missing(
    tensors: StateDict, own: Mapping[str, Tensor], report: LoadReport, rules: Rules
) -> None:
    has_norms = any(key.startswith("output_norms.") for key in tensors)
    for key in sorted(own.keys() - tensors.keys()):
        if key.startswith("output_norms.") and not has_norms:
            report.fresh[key] = "weights of a classifier"
        elif key.endswith(("balance_logit", "ring_logit")):
            report.fresh[key] = "learnt from the model's own balances and ring"
        elif key.endswith(_COUNTER):
            report.fresh[key] = "old files do not count batches"
        elif rules.reset and rules.in_classifier(key):
            report.fresh[key] = "the file has no such classifier"
    if missing := sorted(own.keys() - tensors.keys() - report.fresh.keys()):
        raise WeightsError(f"missing key {list_names(missing, 1)}")


def _compare_classes(theirs: Tensor, ours: Tensor) -> str:
    if theirs.ndim and ours.ndim and len(theirs) != len(ours):
        return f"the file's classifier is for {len(theirs)} classes, the model's for {len(ours)}"
    return "the file's classifier has another shape"


def _explain_channels(key: str, theirs: Tensor, ours: Tensor, rules: Rules) -> str:
    """Returns a hint if the file's model reads images with another number of channels."""
    reads_images = key.rpartition(".")[0] in rules.first and theirs.ndim == ours.ndim == 4
    if not reads_images or theirs.shape[1] == ours.shape[1]:
        return ""
    return (
        f": the file's images have {theirs.shape[1]} channels, the model's {ours.shape[1]}; "
        f"create the model with in_chans={theirs.shape[1]}"
    )


def _check_arguments(tensors: StateDict, own: Mapping[str, Tensor]) -> None:
    """Raises an error that names the SPANetV2 argument with which the weights would fit."""
    both = sorted(own.keys() & tensors.keys())
    for key in (key for key in both if key.endswith(_ORDER)):
        # `check_tensor` refuses other shapes.
        if tensors[key].numel() == 1 and bool(tensors[key]) != bool(own[key]):
            theirs, ours = _merge_name(tensors[key]), _merge_name(own[key])
            raise WeightsError(
                f"{key}: the file's heads are {theirs}, the model's {ours}; create the model with "
                f'merge="{theirs}"'
            )
    for key in sorted(tensors.keys() - own.keys()):
        if key.endswith(_ORDER) and key.replace(_ORDER, _FILTER) in own:
            raise WeightsError(
                f"{show_name(key)} cannot be compared with a model made with feature_cls='fx', "
                "which keeps no order of heads; use another feature_cls"
            )
    for key in sorted(own.keys() ^ tensors.keys()):
        if key.endswith(".filter.alpha") and key.replace(".alpha", ".logits") in both:
            in_file = key in tensors
            raise WeightsError(
                f"{show_name(key)} is only in the {'file' if in_file else 'model'}; create the "
                f"model with scaled_gate={in_file}"
            )
    for key in (key for key in both if key.endswith(_FILTER)):
        if tensors[key].shape[1:] != own[key].shape[1:]:
            shapes = (
                f"{tuple(tensors[key].shape)} in the file, {tuple(own[key].shape)} in the model"
            )
            raise WeightsError(
                f"{key} has shape {shapes}; create the model with the img_size that the file's "
                "filters were made for; the model still accepts images of any size"
            )


def _is_zero_or_one(value: Tensor) -> bool:
    return value.numel() == 1 and value.item() in (0, 1)


def _merge_name(interleaved: Tensor) -> str:
    return MERGES[0] if interleaved else MERGES[1]


def _part(key: str) -> str:
    depth = 2 if key.startswith(("stages.", "output_norms.")) else 1
    return ".".join(key.split(".")[:depth])
