"""Loads weights of classifiers, detectors and segmenters into timm's feature extractors."""

import re
from typing import Any

from timm.models import FeatureInfo
from torch import nn

from spanets.mixers.context import SpectralPool
from spanets.weights.choosing import Given, place_of, take_weights
from spanets.weights.classifiers import architecture_of
from spanets.weights.errors import WeightsError, show_name
from spanets.weights.files import StateDict
from spanets.weights.matching import check_places, check_tensor, note_values, rules_of
from spanets.weights.published import PAPERS
from spanets.weights.report import LoadReport
from spanets.weights.spanet import RADII

_WRAPPERS = ("model", "body", "graph_module")
"""Names by which timm's extractors hold a whole network."""


def load_features(features: nn.Module, path: Given, ema: bool | None = None) -> LoadReport:
    """Loads a checkpoint file into a timm model made with `features_only=True`.

    The file has timm's names, which extractors flatten (`stages.0.` becomes `stages_0.`).

    Args:
        features: Feature extractor. For those of this package's models use `load_weights`.
        path: See `load_weights`.
        ema: See `load_weights`.

    Returns:
        Report of what was loaded and what was skipped (classifier and deeper stages).

    Raises:
        WeightsError: unreadable file, missing or unexpected key, or wrong shape.
        ValueError: the model is on the meta device.
    """
    children = dict(features.named_children())
    # Some extractors wrap the network, others contain its parts.
    network = next(iter(children.values())) if children.keys() & set(_WRAPPERS) else features
    own = network.state_dict()
    check_places(own)
    names = {_flat(key) for key in own}
    tensors, report = take_weights(path, lambda key: _flat(key) in names, len(names), ema)
    report.names = "timm's names"
    given = {_flat(key): (key, value) for key, value in tensors.items()}
    rules = rules_of(features)
    matched: StateDict = {}
    for key, value in own.items():
        if _flat(key) in given:
            _, matched[key] = given.pop(_flat(key))
            try:
                check_tensor(key, matched[key], value, rules)
            except WeightsError as error:
                raise WeightsError(f"{place_of(path)}: {error}") from None
        elif key.endswith("num_batches_tracked"):
            report.fresh[key] = "old files do not count batches"
        else:
            raise WeightsError(f"{place_of(path)}: missing key {key}")
    is_pruned = _is_pruned(features)
    parts = tuple({f"{_flat(_part(key, is_pruned))}_" for key in matched})
    for flat, (key, _) in given.items():
        if flat.startswith(parts):
            raise WeightsError(
                f"{place_of(path)}: unexpected key {show_name(key)}, the model has no such tensor"
            )
        report.skipped[key] = "the feature extractor has no such part"
    note_values(matched, own, report)
    network.load_state_dict(matched, strict=False)
    report.loaded = len(matched)
    return report


def find_rewritten(features: nn.Module) -> dict[str, str] | None:
    """Returns the tensors' names in an extractor that timm made of one of this package's networks.

    It is for all that do not hold the network, as `feature_cls="getter"` and `output_norm` do.

    Args:
        features: Any network.

    Returns:
        Names in the extractor by names in the network; None for another network.
    """
    info: Any = getattr(features, "feature_info", None)
    is_ours = architecture_of(features).partition("_")[0] in PAPERS
    if not (isinstance(info, FeatureInfo) and is_ours):
        return None
    start = rf"^(?:(?:{'|'.join(_WRAPPERS)})\.)?"
    return {
        re.sub(r"^stages_(\d)", r"stages.\1", re.sub(start, "", key)): key
        for key in features.state_dict()
    }


def find_arguments(features: nn.Module) -> dict[str, Any]:
    """Returns the arguments of SPANet that released masks must agree with; none for SPANetV2.

    Args:
        features: Extractor for which `find_rewritten` finds names.

    Raises:
        WeightsError: the extractor is a traced graph, which keeps no such arguments.
    """
    if architecture_of(features).partition("_")[0] != "spanet":
        return {}
    found = [(name, m) for name, m in features.named_modules() if isinstance(m, SpectralPool)]
    if not found:
        raise WeightsError(
            "the file's masks cannot be compared with a model made with feature_cls='fx', which "
            "keeps none; use another feature_cls"
        )
    radii: list[float] = list(RADII)
    for name, pool in found:
        if stage := re.search(r"stages[_.](\d)", name):
            radii[int(stage[1])] = pool.radius
    return {"radii": radii, "balances": found[0][1].balances, "ring": found[0][1].ring}


def _is_pruned(features: nn.Module) -> bool:
    """Whether timm has cut the last blocks of a network off, within the list that holds them."""
    info: Any = features.feature_info
    return hasattr(features, "model") and max(info.out_indices) < len(info) - 1


def _part(key: str, numbered: bool) -> str:
    """Returns the part of a network that a tensor belongs to: "blocks", or "blocks.3"."""
    first, *rest = key.split(".")
    return f"{first}.{rest[0]}" if numbered and rest and rest[0].isdigit() else first


def _flat(key: str) -> str:
    return key.replace(".", "_")
