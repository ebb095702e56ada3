"""Any registered timm model, from a name and arguments that a user or a file gave."""

from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

from spanets.backbones.limits import ModelTooLargeError
from spanets.weights.errors import show_name
from spanets_runtime.errors import UsageError, first_line, nearest

# Arguments of timm's factory that would read other files or reach for the network.
_FETCHING_ARGUMENTS = ("checkpoint_path", "cache_dir", "kwargs_filter")


def create_model(name: str, arguments: Mapping[str, Any], **more: Any) -> nn.Module:
    """Builds a registered timm model with random weights.

    Args:
        name: Without a scheme, such as "hf-hub:", which would fetch.
        arguments: Of the model; checked, for a file may have given them.
        **more: Arguments that the caller decides on.

    Raises:
        UsageError: an unknown name, an argument that the model does not take, or one that would
            fetch weights from elsewhere.
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
    # Models check their arguments in every way there is, or not at all.
    except Exception as error:
        given = show_name(str(dict(arguments)))
        raise UsageError(f"model {name} with {given}: {first_line(error)}") from error
