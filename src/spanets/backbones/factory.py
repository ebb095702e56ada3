"""Builds any registered timm model from a name and arguments, given by a user or a file."""

from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

from spanets.backbones.limits import ModelTooLargeError
from spanets.weights.errors import show_name
from spanets_runtime.errors import UsageError, first_line, nearest

# Arguments of timm's factory that would read other files or access the network.
_FETCHING_ARGUMENTS = ("checkpoint_path", "cache_dir", "kwargs_filter")


def create_model(name: str, arguments: Mapping[str, Any], **more: Any) -> nn.Module:
    """Builds a registered timm model with random weights.

    Args:
        name: timm name, without a scheme such as "hf-hub:", which would download.
        arguments: Model arguments from a user or a file. They are untrusted, so they are checked.
        **more: Model arguments from the caller. They are not checked.

    Raises:
        UsageError: unknown name, an argument that the model does not accept, or one that would
            download weights.
    """
    if ":" in name or not timm.is_model(name):
        hint = (
            nearest(name.partition(".")[0], timm.list_models())
            or "; known are timm's and those of `spanets models`"
        )
        raise UsageError(f"unknown model {name!r}{hint}")
    for key in arguments:
        if key in _FETCHING_ARGUMENTS or str(key).startswith("pretrained"):
            raise UsageError(f"model argument {key!r} is not allowed here: it would fetch weights")
    try:
        return timm.create_model(name, **{**arguments, **more})
    except ModelTooLargeError:
        raise
    # Models raise any kind of exception for bad arguments.
    except Exception as error:
        given = show_name(str(dict(arguments)))
        raise UsageError(f"model {name} with {given}: {first_line(error)}") from error
