"""Semantic segmentation: a backbone, a decoder and a pixel classifier."""

from spanets.segmentation.network.decoders import SemanticFPN, UPerNet
from spanets.segmentation.network.segmenter import (
    SEGMENTERS,
    Segmenter,
    build_segmenter,
    make_segmenter,
)
from spanets.segmentation.sliding import infer, slide

__all__ = [
    "SEGMENTERS",
    "Segmenter",
    "SemanticFPN",
    "UPerNet",
    "build_segmenter",
    "infer",
    "make_segmenter",
    "slide",
]
