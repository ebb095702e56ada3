"""Weights of classifiers, detectors and segmenters into timm's feature extractors, of any model."""

from pathlib import Path

from torch import nn

from spanets.weights.files import StateDict, WeightsError, read_state_dict
from spanets.weights.loading import LoadReport, load_weights


def load_features(features: nn.Module, path: str | Path) -> LoadReport:
    """Loads a checkpoint file into a model that was made with `features_only=True`.

    Models of this package take released files as well, see `load_weights`; of others the file has
    timm's names, which its extractors flatten (`stages.0.` becomes `stages_0.`).

    Returns:
        What was loaded, and what of the file was left out: classifier and deeper stages.

    Raises:
        WeightsError: an unreadable file, a missing or unexpected key, or another shape.
    """
    if hasattr(getattr(features, "model", None), "output_norms"):
        return load_weights(features, path)
    children = dict(features.named_children())
    # Some extractors wrap the network, others take it apart.
    network = next(iter(children.values())) if children.keys() & {"model", "body"} else features
    given = {_flat(key): (key, value) for key, value in read_state_dict(path).items()}
    report = LoadReport(str(path), released=False)
    matched: StateDict = {}
    for key, value in network.state_dict().items():
        if _flat(key) not in given:
            raise WeightsError(f"{path}: missing key {key}")
        _, matched[key] = given.pop(_flat(key))
        if matched[key].shape != value.shape:
            shapes = f"{tuple(matched[key].shape)} in the file, {tuple(value.shape)} in the model"
            raise WeightsError(f"{path}: {key} has shape {shapes}")
    parts = tuple({f"{_flat(key.split('.')[0])}_" for key in matched})
    for flat, (key, _) in given.items():
        if flat.startswith(parts):
            raise WeightsError(f"{path}: unexpected key {key}, the model has no such tensor")
        report.skipped[key] = "the feature extractor has no such part"
    network.load_state_dict(matched)
    report.loaded = len(matched)
    return report


def _flat(key: str) -> str:
    return key.replace(".", "_")
