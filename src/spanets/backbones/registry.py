"""Registers each row of a family's variant table as a timm model."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

# timm has no public name for the class whose maps are those of `forward_intermediates`.
from timm.models._features import FeatureGetterNet
from torch import nn

from spanets.backbones.pyramid import PyramidFeatures, PyramidParts
from spanets.backbones.stages import MIN_SIZE
from spanets.kernels.fused import fuse
from spanets.weights import adapt_state_dict, add_weights, forget_weights, release_of
from spanets.weights.published import PAPERS

_OWN: dict[str, Callable[..., nn.Module]] = {}


def own_models() -> list[str]:
    """Returns the names of this package's models, in the order of the papers' tables."""
    return list(_OWN)


def sketch_model(name: str, **arguments: Any) -> nn.Module:
    """Builds one of this package's models on the meta device, without memory, but with buffers.

    Args:
        name: Name without a tag.
        **arguments: Arguments of its constructor.
    """
    return _OWN[name](**arguments)


def default_config(name: str, classifier: str, crop_pct: float) -> dict[str, Any]:
    """Returns timm's configuration of a variant trained on ImageNet-1K at 224².

    Args:
        name: timm name of the variant.
        classifier: Name of the last linear layer.
        crop_pct: Fraction of the image side that the centre crop of evaluation keeps.
    """
    title, paper = PAPERS[name.partition("_")[0]]
    config = {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "min_input_size": (3, MIN_SIZE, MIN_SIZE),
        "pool_size": (7, 7),
        "crop_pct": crop_pct,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.conv",
        "classifier": classifier,
        "paper_name": title,
        "paper_ids": paper,
    }
    if release := release_of(name):
        config |= {"url": release.url, "license": release.licence, "origin_url": release.origin}
    return config


def register_family(
    module: str,
    network: type[nn.Module],
    variants: dict[str, dict[str, Any]],
    configs: dict[str, dict[str, Any]],
) -> None:
    """Makes an entry point from each row and registers it with timm.

    Args:
        module: `__name__` of the family's module, which receives the entry points.
        network: Class of the family's networks.
        variants: Constructor arguments by model name.
        configs: timm configurations by model name; see `default_config`.
    """
    namespace = vars(sys.modules[module])
    # timm looks for the configurations under this name, by model and tag.
    tagged = {release.name if (release := release_of(n)) else n: c for n, c in configs.items()}
    namespace["default_cfgs"] = generate_default_cfgs(dict(tagged))
    for name, row in variants.items():
        _OWN[name] = partial(_sketch, network, row)
        namespace[name] = register_model(_entry_point(module, network, name, row))


def _entry_point(module: str, network: type[nn.Module], name: str, row: dict[str, Any]) -> Any:
    def create(pretrained: bool = False, fused: bool = True, **kwargs: Any) -> nn.Module:
        _check_norms_of_maps(**kwargs)
        if pretrained:
            kwargs = add_weights(name, _OWN[name], kwargs)
        model = build_model_with_cfg(
            network,
            name,
            pretrained,
            feature_cfg={
                "out_indices": (0, 1, 2, 3),
                "feature_cls": PyramidFeatures if kwargs.get("output_norm") else PyramidParts,
                "flatten_sequential": True,  # for feature_cls "list" and "dict"
            },
            pretrained_filter_fn=adapt_state_dict,
            **{**row, **kwargs},
        )
        forget_weights(model)
        return fuse(model) if fused else model

    create.__name__ = create.__qualname__ = name
    create.__module__ = module
    create.__doc__ = f"{network.__name__} with {row}."
    return create


def _check_norms_of_maps(
    features_only: bool = False, output_norm: bool = False, feature_cls: Any = None, **_: Any
) -> None:
    """Raises a ValueError for norms that timm's other classes of feature extractors leave out."""
    if not (features_only and output_norm) or feature_cls in (None, "getter"):
        return
    if not (isinstance(feature_cls, type) and issubclass(feature_cls, FeatureGetterNet)):
        raise ValueError(
            f"output_norm has no effect on maps of feature_cls {feature_cls!r}; leave one of both "
            "out"
        )


def _sketch(network: type[nn.Module], row: dict[str, Any], **arguments: Any) -> nn.Module:
    model = network(**{**row, **arguments}, device="meta")
    for module in model.modules():
        if list(module.buffers(recurse=False)):  # they tell of arguments
            cast(Any, module.to_empty(device="cpu", recurse=False)).reset_parameters()
    return model
