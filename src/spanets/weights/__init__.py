"""Weights from files: the authors' releases under our names, safely read and strictly loaded.

A file goes through `read_state_dict` (tensors by name), `convert_official` (released names to
ours) and a comparison with the model that accounts for every key; `load_weights` is all three.
"""

from spanets.weights.features import load_features
from spanets.weights.files import StateDict, WeightsError, read_checkpoint, read_state_dict
from spanets.weights.loading import LoadReport, adapt_state_dict, check_pretrained, load_weights
from spanets.weights.released import RELEASES, convert_official, is_official

__all__ = [
    "RELEASES",
    "LoadReport",
    "StateDict",
    "WeightsError",
    "adapt_state_dict",
    "check_pretrained",
    "convert_official",
    "is_official",
    "load_features",
    "load_weights",
    "read_checkpoint",
    "read_state_dict",
]
