"""Builds any registered timm model from a name and arguments, given by a user or a file."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

import timm
from torch import nn

from spanets.backbones.limits import ModelTooLargeError
from spanets.backbones.registry import own_models
from spanets.weights.errors import show_name
from spanets.weights.pretrained import describe_unpublished
from spanets_runtime.errors import UsageError, UserError, first_line, nearest

# Arguments of timm's factory that would read other files or access the network.
_FETCHING_ARGUMENTS = ("checkpoint_path", "cache_dir", "kwargs_filter")

_MOST_SHOWN = 5


def create_model(name: str, arguments: Mapping[str, Any], **more: Any) -> nn.Module:
    """Builds a registered timm model with random weights.

    Args:
        name: timm name, with or without a tag, and without a scheme such as "hf-hub:", which would
            download.
        arguments: Model arguments from a user or a file. They are untrusted, so they are checked.
        **more: Model arguments from the caller. They are not checked.

    Raises:
        UsageError: unknown name, an argument that the model does not accept, or one that would
            download weights.
    """
    check_name(name)
    _check_arguments(arguments)
    try:
        return timm.create_model(name, **{**arguments, **more})
    except ModelTooLargeError:
        raise
    # Models raise any kind of exception for bad arguments.
    except Exception as error:
        raise _explain_arguments(name, arguments, error) from error


def create_pretrained(name: str, arguments: Mapping[str, Any], **more: Any) -> nn.Module:
    """Builds a registered timm model with its published weights; they are fetched if need be.

    Args:
        name: See `create_model`. Without a tag, timm's default weights are taken.
        arguments: See `create_model`.
        **more: See `create_model`.

    Raises:
        UsageError: see `create_model`; or no weights are published for the name.
        UserError: the weights cannot be fetched, or do not fit the arguments.
    """
    check_name(name)
    _check_arguments(arguments)
    if not timm.is_model_pretrained(name):
        raise UsageError(_describe_without_weights(name))
    try:
        with _few_hub_messages():
            return timm.create_model(name, pretrained=True, **{**arguments, **more})
    except UserError:
        raise
    # Of other models: from the hub's library (some of these are also ValueErrors), the disk, torch.
    except (OSError, RuntimeError) as error:
        raise _explain_fetching(name, error) from error
    except Exception as error:
        if _is_of_network(error):
            raise _explain_fetching(name, error) from error
        raise _explain_arguments(name, arguments, error) from error


def check_name(name: str) -> None:
    """Checks that a name, with or without a tag, is that of a registered model.

    Raises:
        UsageError: it is not; the message suggests the nearest name or tag.
    """
    model, _, tag = name.partition(".")
    if ":" in name or not timm.is_model(name):
        hint = (
            nearest(model, timm.list_models()) or "; known are timm's and those of `spanets models`"
        )
        raise UsageError(f"unknown model {name!r}{hint}")
    if tag and tag not in (tags := _list_tags(model)):
        known = f"it has {_list(tags)}" if tags else "it has none"
        raise UsageError(f"unknown tag {tag!r} of model {model}; {known}{nearest(tag, tags)}")


def has_fixed_size(name: str) -> bool:
    """Whether a model, named with or without a tag, is built for images of one size.

    Raises:
        UsageError: see `check_name`.
    """
    check_name(name)
    config = timm.get_pretrained_cfg(name)
    return config is not None and config.fixed_input_size


def has_published_weights(name: str) -> bool:
    """Whether weights are published for a name, with or without a tag."""
    return timm.is_model_pretrained(name)


def _list_tags(model: str) -> list[str]:
    """Returns the tags of a model, which may have none."""
    names = timm.list_models(f"{model}.*", include_tags=True)
    return [name.partition(".")[2] for name in names if name.startswith(f"{model}.")]


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    for key in arguments:
        if key in _FETCHING_ARGUMENTS or str(key).startswith("pretrained"):
            raise UsageError(f"model argument {key!r} is not allowed here: it would fetch weights")


def _describe_without_weights(name: str) -> str:
    model = name.partition(".")[0]
    if model in own_models():
        return describe_unpublished(model)
    family = f"{model.partition('_')[0]}*"
    known = [found.partition(".")[0] for found in timm.list_pretrained(family)]
    hint = nearest(model, known) or nearest(model, timm.list_pretrained())
    return f"no weights of {name} are published{hint}"


def _explain_arguments(name: str, arguments: Mapping[str, Any], error: Exception) -> UsageError:
    given = show_name(str(dict(arguments)))
    return UsageError(f"model {name} with {given}: {first_line(error)}")


def _explain_fetching(name: str, error: Exception) -> UserError:
    reason = first_line(error)
    if type(error).__name__ in ("LocalEntryNotFoundError", "OfflineModeIsEnabled"):
        reason = "no network, and they are not in the hub's cache"
    return UserError(f"{name}: its published weights cannot be loaded ({reason})")


@contextmanager
def _few_hub_messages() -> Iterator[None]:
    """Shows only the first of the hub's messages; it logs each of some ten retries."""
    logger, seen = logging.getLogger("huggingface_hub.utils._http"), count()

    def is_first(record: logging.LogRecord) -> bool:
        return next(seen) == 0

    logger.addFilter(is_first)
    try:
        yield
    finally:
        logger.removeFilter(is_first)


def _is_of_network(error: BaseException | None) -> bool:
    """Whether an error, or one that it comes from, is that of an HTTP library."""
    while error is not None:
        if type(error).__module__.split(".")[0] in ("httpx", "httpcore", "requests", "urllib3"):
            return True
        error = error.__cause__
    return False


def _list(names: list[str]) -> str:
    more = len(names) - _MOST_SHOWN
    return ", ".join(names[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")
