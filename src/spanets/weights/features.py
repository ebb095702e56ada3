"""Loads weights of classifiers, detectors and segmenters into timm's feature extractors."""

from torch import nn

from spanets.weights.choosing import Given, place_of, take_weights
from spanets.weights.errors import WeightsError, show_name
from spanets.weights.files import StateDict
from spanets.weights.matching import check_places, check_tensor, note_values, rules_of
from spanets.weights.report import LoadReport


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
    network = next(iter(children.values())) if children.keys() & {"model", "body"} else features
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
    parts = tuple({f"{_flat(key.split('.')[0])}_" for key in matched})
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


def _flat(key: str) -> str:
    return key.replace(".", "_")
