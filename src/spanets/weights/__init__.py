"""Weights from files: the authors' releases under our names, safely read and strictly loaded.

`read_checkpoint` reads a file as plain values and tensors (`files`, `torchfiles`, `pickles`,
`shards`), `take_weights` finds in it what has the model's names, `convert_official` renames the
released ones, and `match` accounts for every key; `load_weights` is all of these.
"""

from spanets.weights.choosing import read_state_dict
from spanets.weights.errors import WeightsError
from spanets.weights.features import load_features
from spanets.weights.files import StateDict, open_regular, read_checkpoint
from spanets.weights.loading import adapt_state_dict, load_weights
from spanets.weights.pretrained import check_pretrained
from spanets.weights.released import RELEASES, convert_official, is_official
from spanets.weights.report import LoadReport

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
    "open_regular",
    "read_checkpoint",
    "read_state_dict",
]
