"""Loads a weights file into a model, strictly: every key is loaded or reported with a reason."""

from dataclasses import dataclass
from typing import Any

from timm.models import FeatureInfo
from torch import nn

from spanets.weights.choosing import Given, place_of, take_weights
from spanets.weights.earlier import is_earlier_name, rename_all
from spanets.weights.errors import WeightsError
from spanets.weights.features import find_arguments, find_rewritten, load_features
from spanets.weights.files import StateDict
from spanets.weights.matching import (
    adapt_first,
    check_places,
    match,
    note_values,
    resize_filters,
    rules_of,
)
from spanets.weights.released import convert_official, is_official, is_released_name
from spanets.weights.report import LoadReport


def load_weights(
    model: nn.Module,
    path: Given,
    reset_classifier: bool = False,
    ema: bool | None = None,
    adapt_channels: bool = False,
) -> LoadReport:
    """Loads a checkpoint file into a timm model; models of this package also accept the authors'.

    It runs and imports nothing from the file, and downloads nothing. It finds the weights by the
    model's own tensor names: it removes wrappers (`state_dict`, `model`, ...) and prefixes
    (`module.`, `model.net.`, ...), and takes the backbone of a detector or segmenter.

    Args:
        model: Model from `timm.create_model`, with or without `features_only=True`.
        path: A safetensors or PyTorch file with any suffix; the index of a sharded checkpoint; or
            a folder with `model.safetensors` or such an index. Or the content of a file, such as
            another model's `state_dict()`.
        reset_classifier: Whether to keep the model's own classifier if the file has none, or one
            of another shape (for fine-tuning on other classes).
        ema: Which weights to load if the file also has averages over updates: True for the
            averages, False for the others, None for those in the main place (`state_dict`).
        adapt_channels: Whether weights for images of three channels are adapted to the model's
            number, by timm's rule.

    Returns:
        Report of what was loaded, what was not, and why; print it to see it.

    Raises:
        WeightsError: unreadable file, missing or unexpected key, wrong shape or mask.
        ValueError: the model is on the meta device.
    """
    target = getattr(model, "model", model)  # features_only wraps the network
    if isinstance(getattr(model, "feature_info", None), FeatureInfo) and not _is_ours(target):
        return load_features(model, path, ema)
    check_places(target.state_dict())
    fitted = fit_weights(target, path, reset_classifier, ema, adapt_channels)
    names = find_rewritten(target) or {}
    tensors = {names.get(key, key): value for key, value in fitted.tensors.items()}
    target.load_state_dict(tensors, strict=False)  # every key is accounted for
    fitted.report.loaded = len(fitted.tensors)
    return fitted.report


@dataclass(frozen=True)
class Fitted:
    """Weights that fit a model.

    Attributes:
        found: The file's tensors under the file's names.
        tensors: Those to load, under the model's names.
        report: What was left out, and why.
    """

    found: StateDict
    tensors: StateDict
    report: LoadReport


def fit_weights(
    model: nn.Module,
    given: Given,
    reset_classifier: bool = False,
    ema: bool | None = None,
    adapt_channels: bool = False,
) -> Fitted:
    """Finds a model's weights in a file and accounts for every key; see `load_weights`.

    Args:
        model: Network, which may be on the meta device, except for its buffers.
        given: See `load_weights`.
        reset_classifier: See `load_weights`.
        ema: See `load_weights`.
        adapt_channels: See `load_weights`.

    Raises:
        WeightsError: see `load_weights`.
    """
    own, is_ours = model.state_dict(), _is_ours(model)
    if names := find_rewritten(model):
        own = {name: own[key] for name, key in names.items()}

    def is_name(key: str) -> bool:
        return key in own or (is_ours and (is_released_name(key) or is_earlier_name(key)))

    found, report = take_weights(given, is_name, len(own), ema)
    report.released = is_ours and is_official(found)
    if report.released:
        report.names = "the released names"
    elif not is_ours:
        report.names = "timm's names"
    try:
        tensors = _rename(found, model) if is_ours else found
        rules = rules_of(model, reset_classifier)
        if adapt_channels:
            tensors = adapt_first(tensors, own, report, rules)
        tensors = match(tensors, own, report, rules)
    except WeightsError as error:
        raise WeightsError(f"{place_of(given)}: {error}") from None
    note_values(tensors, own, report)
    return Fitted(found, tensors, report)


def adapt_state_dict(state_dict: StateDict, model: nn.Module) -> StateDict:
    """Converts the weights of `pretrained=True` for a model; timm calls it before it loads them.

    It renames released tensors, resizes SPANetV2's filters to the model's `img_size`, and accounts
    for every key. timm itself adapts the first convolution and resets the classifier.

    Raises:
        WeightsError: a key or shape that does not fit, or a mask of another variant.
        ValueError: the model is on the meta device.
    """
    own = model.state_dict()
    check_places(own)
    try:
        return _adapt(state_dict, model, own)
    except WeightsError as error:
        raise WeightsError(f"the weights do not fit the model's arguments: {error}") from None


def _adapt(state_dict: StateDict, model: nn.Module, own: StateDict) -> StateDict:
    tensors = resize_filters(_rename(state_dict, model), own)
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    rules = rules_of(model, reset=config.get("num_classes") != getattr(model, "num_classes", None))
    # timm adapts the layers that read the image to another number of channels.
    first = {f"{name}.weight" for name in rules.first}
    compared = {key: own[key] if key in first & own.keys() else tensors[key] for key in tensors}
    report = LoadReport("")
    match(compared, own, report, rules)
    tensors = {key: value for key, value in tensors.items() if key not in report.skipped}
    return tensors | {key: own[key] for key in report.fresh if key not in tensors}


def _is_ours(model: nn.Module) -> bool:
    return hasattr(model, "output_norms") or find_rewritten(model) is not None


def _rename(tensors: StateDict, model: nn.Module) -> StateDict:
    if is_official(tensors):
        tensors = convert_official(tensors, **_spectral_arguments(model))
    return rename_all(tensors)


def _spectral_arguments(model: nn.Module) -> dict[str, Any]:
    """Returns the arguments that must agree with the masks in released weights."""
    if find_rewritten(model) is not None:
        return find_arguments(model)
    names = ("radii", "balances", "ring")
    return {name: getattr(model, name) for name in names if hasattr(model, name)}
