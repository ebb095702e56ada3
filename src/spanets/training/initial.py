"""What a run starts from: its initial weights, and modules that stay as they are."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import nn

from spanets.backbones.factory import create_pretrained
from spanets.recipe import Recipe
from spanets.weights.classifiers import BACKBONE, find_body
from spanets_runtime.errors import UsageError, nearest

# ---- weights


def pretrained_weights(recipe: Recipe) -> dict[str, Any]:
    """Returns the published weights of a recipe's model, by name; fetches them if needed.

    Raises:
        UsageError: no weights of the model are published.
        UserError: they cannot be fetched or are damaged.
    """
    return create_pretrained(recipe.model.name, recipe.model.args).state_dict()


# ---- frozen modules


def find_frozen(model: nn.Module, patterns: str) -> dict[str, nn.Module]:
    """Returns the modules that `model.freeze` names, without those inside of another one.

    Args:
        model: The whole network.
        patterns: Names or shell patterns of modules, separated by commas; see the key's help.

    Raises:
        UsageError: a pattern matches no module with parameters, or nothing is left to train.
    """
    found: dict[str, nn.Module] = {}
    known = {
        name: m for name, m in model.named_modules() if name and any(True for _ in m.parameters())
    }
    for pattern in filter(None, (part.strip() for part in patterns.split(","))):
        names = [name for name in known if fnmatchcase(name, pattern)]
        if not names and pattern == BACKBONE:
            names = list(find_body(model))
        if not names:
            raise UsageError(
                f"model.freeze: {pattern!r} matches no module with parameters"
                f"{nearest(pattern, known) or '; the first are ' + ', '.join([*known][:6])}"
            )
        found |= {name: known[name] for name in names}
    inside = {p for m in found.values() for p in m.parameters()}
    if all(parameter in inside for parameter in model.parameters()):
        raise UsageError(f"model.freeze {patterns!r} leaves nothing to train")
    return {name: m for name, m in found.items() if not any(_parents(name, found))}


def _parents(name: str, found: Mapping[str, nn.Module]) -> Iterator[str]:
    yield from (other for other in found if name.startswith(f"{other}."))


class Frozen(Callback):
    """Keeps modules untrained and in evaluation mode: no gradients, fixed running statistics.

    Args:
        modules: The modules.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.modules = list(modules.values())
        for module in self.modules:
            module.requires_grad_(False)
            module.eval()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Puts the modules into evaluation mode, whatever has put the model into training.

        Lightning does not call `on_train_epoch_start` for an epoch that it resumes in the middle.
        """
        for module in self.modules:
            module.eval()


def describe_frozen(model: nn.Module, modules: Mapping[str, nn.Module]) -> str:
    """Returns a line about what is frozen, with the number of parameters left to train."""
    total = sum(p.numel() for p in model.parameters())
    left = sum(p.numel() for p in model.parameters() if p.requires_grad)
    names = ", ".join([*modules][:4]) + (
        f" and {len(modules) - 4} more" if len(modules) > 4 else ""
    )
    return f"frozen: {names}; {left:,} of {total:,} parameters are trained"
