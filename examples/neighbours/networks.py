"""SPANet's network with another token mixer and as many parameters, registered with timm.

Stem, downsampling, MLPs, norms, residual scales and head are SPANet's; only the token mixer and,
to make up for its parameters, the dimensions differ.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from neighbours.fourier import AFNO, DynamicFilter, FastFourierConv, GlobalFilter
from neighbours.pooling import Pooling
from neighbours.wavelet import WaveletConv
from spanets.backbones.pyramid import PyramidFeatures
from spanets.backbones.registry import default_config
from spanets.backbones.spanet import VARIANTS, SPANet
from spanets.backbones.spanetv2 import stage_sizes
from spanets.bench import count_parameters
from spanets.kernels.fused import fuse

MapSize = tuple[int, int]

MIXERS: dict[str, Callable[[int, MapSize], nn.Module]] = {
    "identity": lambda dim, size: nn.Identity(),
    "pooling": lambda dim, size: Pooling(),
    "global_filter": GlobalFilter,
    "dynamic_filter": DynamicFilter,
    "afno": lambda dim, size: AFNO(dim),
    "wavelet": lambda dim, size: WaveletConv(dim),
    "fast_fourier": lambda dim, size: FastFourierConv(dim),
}
"""Token mixers by name, made for a dimension and a map size."""

SIZED = ("global_filter", "dynamic_filter")
"""Mixers with a parameter for each frequency, so that the image size sets their parameters."""

# Dimensions are multiples of it, for AFNO's blocks and the halves of fast Fourier convolution.
STEP = 4


class Neighbour(SPANet):
    """SPANet, section 3.3, with a token mixer of `MIXERS` in place of SPAM.

    Args:
        mixer: Name of the token mixer.
        in_chans: Image channels.
        num_classes: Number of classes; 0 leaves the classifier out.
        global_pool: timm's pooling name; "" keeps the map.
        like: SPANet whose depths and number of parameters the network has.
        dims: Embedding dimension of each stage; None takes those of `equal_dims`.
        depths: Number of blocks of each stage; None takes those of `like`.
        img_size: Image side, or (height, width), for filters of the map's size.
        drop_rate: Dropout rate before the classifier.
        drop_path_rate: Drop path rate of the last block; grows linearly from 0.

    Raises:
        ValueError: unknown mixer or SPANet.
    """

    def __init__(
        self,
        mixer: str,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        like: str = "spanet_nano",
        dims: Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        img_size: int | tuple[int, int] = 224,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        for name, value, known in (("mixer", mixer, MIXERS), ("like", like, VARIANTS)):
            if value not in known:
                raise ValueError(f"{name} is {value!r}, allowed: {', '.join(known)}")
        sizes = stage_sizes(img_size, 4)
        super().__init__(
            in_chans,
            num_classes,
            global_pool,
            equal_dims(mixer, like, sizes[0]) if dims is None else dims,
            VARIANTS[like]["depths"] if depths is None else depths,
            init=VARIANTS[like].get("init", "paper"),
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
        )
        for stage, size, info in zip(self.stages, sizes, self.feature_info, strict=True):
            for block in stage.blocks:
                block.token_mixer = MIXERS[mixer](info["num_chs"], size)
        self._init_linear()


@lru_cache(maxsize=64)
def equal_dims(mixer: str, like: str, map_size: MapSize) -> tuple[int, ...]:
    """Returns the dimensions with which a network comes nearest to the parameters of a SPANet.

    They are those of the SPANet times one factor, rounded to multiples of `STEP`. The classifier is
    not counted, so that the dimensions do not depend on the number of classes.

    Args:
        mixer: Name of the token mixer.
        like: Name of the SPANet.
        map_size: (H, W) of the first stage.
    """
    row = VARIANTS[like]
    wanted = _count(SPANet, row["depths"], dims=row["dims"])
    img_size = (4 * map_size[0], 4 * map_size[1])  # an image with this map

    @cache
    def count(dims: tuple[int, ...]) -> int:
        build = partial(Neighbour, mixer, like=like, img_size=img_size)
        return _count(build, row["depths"], dims=dims)

    factors = [factor / 100 for factor in range(50, 201)]
    scaled = [tuple(max(1, round(d * f / STEP)) * STEP for d in row["dims"]) for f in factors]
    choices = list(dict.fromkeys(scaled))  # each once, in order
    place = bisect_left(choices, wanted, key=count)
    return min(choices[max(0, place - 1) : place + 1], key=lambda dims: abs(count(dims) - wanted))


def _count(build: Callable[..., SPANet], depths: Sequence[int], **arguments: Any) -> int:
    """Counts the parameters of a network without its classifier, from one block of each stage."""
    with torch.device("meta"):  # no memory, and no random numbers
        network = build(depths=(1,) * len(depths), num_classes=0, **arguments)
    blocks = [count_parameters(stage.blocks) for stage in network.stages]
    more = sum((depth - 1) * block for depth, block in zip(depths, blocks, strict=True))
    return count_parameters(network) + more


def _register(mixer: str) -> Callable[..., nn.Module]:
    """Makes timm's entry point `neighbour_MIXER`."""

    def create(pretrained: bool = False, **arguments: Any) -> nn.Module:
        model = build_model_with_cfg(
            Neighbour,
            create.__name__,
            pretrained,
            feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": PyramidFeatures},
            mixer=mixer,
            **arguments,
        )
        return fuse(model)  # the faster MLP and memory layout that SPANet has, too

    create.__name__ = f"neighbour_{mixer}"
    create.__module__ = __name__
    create.__doc__ = f"SPANet's network with the token mixer {mixer!r}."
    return create


default_cfgs = generate_default_cfgs(
    {
        f"neighbour_{mixer}": {
            **default_config("spanet_nano", "head.fc", 0.9),
            "paper_name": None,
            "paper_ids": None,
            # Then `spanets bench --size` builds the filters for its size.
            "fixed_input_size": mixer in SIZED,
        }
        for mixer in MIXERS
    }
)

for _mixer in MIXERS:
    globals()[f"neighbour_{_mixer}"] = register_model(_register(_mixer))
