"""Token mixers of the field in SPANet's network, for comparison; importing registers the models.

Each mixer is written from the equations of its paper. `python -m neighbours` is the command line of
`spanets` with these models registered; docs/neighbours.md shows how to use it.
"""

from neighbours.fourier import AFNO, DynamicFilter, FastFourierConv, GlobalFilter
from neighbours.networks import MIXERS, Neighbour, equal_dims
from neighbours.pooling import Pooling
from neighbours.wavelet import WaveletConv

__all__ = [
    "AFNO",
    "MIXERS",
    "DynamicFilter",
    "FastFourierConv",
    "GlobalFilter",
    "Neighbour",
    "Pooling",
    "WaveletConv",
    "equal_dims",
]
