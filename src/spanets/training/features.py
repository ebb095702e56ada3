"""The backbone of a checkpoint, for exports without its head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from spanets.backbones.factory import create_model
from spanets.weights import load_weights

if TYPE_CHECKING:
    from spanets.sources import Source


def build_features(source: Source) -> nn.Module:
    """Builds the backbone of a classifier or segmenter with timm's `features_only`.

    Args:
        source: The checkpoint with the weights; its network is not changed.
    """
    features = create_model(source.info.model, source.info.model_args, features_only=True)
    load_weights(features, source.network.state_dict())
    return features.eval()
