"""Reads weights from files safely and loads them strictly, also the authors' releases.

`read_checkpoint` reads a file as plain values and tensors (`files`, `torchfiles`, `pickles`,
`shards`). `take_weights` finds the tensors with the model's names in it, `convert_official` renames
released ones, and `match` accounts for every key. `load_weights` does all of this.

`published` is the table of published files. `pretrained` ties it to timm's `pretrained=True`:
`fetching` gets a file into the cache, once and verified, with `transport`, `mirrors` and `digests`.
"""

from spanets.weights.choosing import read_state_dict
from spanets.weights.errors import WeightsError
from spanets.weights.features import load_features
from spanets.weights.files import StateDict, open_regular, read_checkpoint
from spanets.weights.loading import adapt_state_dict, load_weights
from spanets.weights.pretrained import NotPublishedError, add_weights, forget_weights
from spanets.weights.published import PUBLISHED, Release, release_of
from spanets.weights.released import convert_official, is_official
from spanets.weights.report import LoadReport

__all__ = [
    "PUBLISHED",
    "LoadReport",
    "NotPublishedError",
    "Release",
    "StateDict",
    "WeightsError",
    "adapt_state_dict",
    "add_weights",
    "convert_official",
    "forget_weights",
    "is_official",
    "load_features",
    "load_weights",
    "open_regular",
    "read_checkpoint",
    "read_state_dict",
    "release_of",
]
