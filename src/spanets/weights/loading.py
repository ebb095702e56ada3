"""Loads a weights file into a model, strictly: every key is loaded or reported with a reason."""

from typing import Any

from timm.models import FeatureInfo
from torch import nn

from spanets.weights.choosing import Given, place_of, take_weights
from spanets.weights.earlier import is_earlier_name, rename_contexts
from spanets.weights.errors import WeightsError
from spanets.weights.features import load_features
from spanets.weights.files import StateDict
from spanets.weights.matching import check_places, match, note_values, rules_of
from spanets.weights.released import convert_official, is_official, is_released_name
from spanets.weights.report import LoadReport


def load_weights(
    model: nn.Module,
    path: Given,
    reset_classifier: bool = False,
    ema: bool | None = None,
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

    Returns:
        Report of what was loaded, what was not, and why; print it to see it.

    Raises:
        WeightsError: unreadable file, missing or unexpected key, wrong shape or mask.
        ValueError: the model is on the meta device.
    """
    target = getattr(model, "model", model)  # features_only wraps the network
    is_ours = hasattr(target, "output_norms")
    if isinstance(getattr(model, "feature_info", None), FeatureInfo) and not is_ours:
        return load_features(model, path, ema)
    own = target.state_dict()
    check_places(own)

    def is_name(key: str) -> bool:
        return key in own or (is_ours and (is_released_name(key) or is_earlier_name(key)))

    tensors, report = take_weights(path, is_name, len(own), ema)
    report.released = is_ours and is_official(tensors)
    if report.released:
        report.names = "the released names"
    elif not is_ours:
        report.names = "timm's names"
    try:
        if is_ours:
            tensors = rename_contexts(convert_official(tensors, **_spectral_arguments(target)))
        tensors = match(tensors, own, report, rules_of(target, reset_classifier))
    except WeightsError as error:
        raise WeightsError(f"{place_of(path)}: {error}") from None
    note_values(tensors, own, report)
    target.load_state_dict(tensors, strict=False)  # `match` has accounted for every key
    report.loaded = len(tensors)
    return report


def adapt_state_dict(state_dict: StateDict, model: nn.Module) -> StateDict:
    """Renames a released state dict for `model`; timm calls it for the user's weights files."""
    return convert_official(state_dict, **_spectral_arguments(model))


def _spectral_arguments(model: nn.Module) -> dict[str, Any]:
    """Returns the arguments that must agree with the masks in released weights."""
    names = ("radii", "balances", "ring")
    return {name: getattr(model, name) for name in names if hasattr(model, name)}
