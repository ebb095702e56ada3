"""The panels by name, what each needs, and the command that computes it without the page."""

import shlex
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from spanets.explore.balance import balance, balanced_contexts, balanced_spectrum, tradeoff
from spanets.explore.compare import MOST_MODELS, compare
from spanets.explore.detect import detect
from spanets.explore.frequencies import band, filters, frequencies, stages
from spanets.explore.look import look, look_closely, score_cams
from spanets.explore.results import Shown
from spanets.explore.workbench import Settings, Workbench
from spanets_runtime.errors import UsageError


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        show: Computes it, from the models' words and the settings.
        options: Settings that it depends on, in the order of the command line.
        fewest: Smallest number of models.
        most: Largest number of models; None means any.
    """

    show: Callable[[Workbench, list[str], Settings], Shown]
    options: tuple[str, ...]
    fewest: int = 1
    most: int | None = 1


PANELS = {
    "look": Panel(look_closely, ("image",), most=None),
    "frequencies": Panel(frequencies, ("image", "band", "side")),
    "balance": Panel(balance, ("image", "stage", "balance")),
    "tradeoff": Panel(tradeoff, ("images", "stage", "limit")),
    "compare": Panel(compare, ("images", "limit"), 2, MOST_MODELS),
    "detect": Panel(detect, ("image", "min_score")),
}

# What the page shows first, or alone, of a panel whose whole takes longer.
PARTS = {
    "look": look,
    "score_cam": score_cams,
    "band": band,
    "stages": stages,
    "filters": filters,
    "balanced_contexts": balanced_contexts,
    "balanced_spectrum": balanced_spectrum,
}

OPTIONS = {
    "image": "--image",
    "images": "--images",
    "band": "--band",
    "side": "--side",
    "stage": "--stage",
    "balance": "--balance",
    "limit": "--limit",
    "min_score": "--score",
}


_NEEDED = {"image": "--image FILE", "images": "--images DIR"}


def check_panel(name: str, models: int, given: Collection[str]) -> None:
    """Checks, before a model is opened, that a panel can use what the command line gives.

    Args:
        name: Name from `PANELS`.
        models: Number of models.
        given: Options that the user gave, such as "--band".

    Raises:
        UsageError: another number of models, an option is missing, or is not one of the panel's.
    """
    panel = PANELS[name]
    if models < panel.fewest or (panel.most is not None and models > panel.most):
        taken = "one model" if panel.most == 1 else f"{panel.fewest} to {panel.most} models"
        raise UsageError(f"--panel {name} takes {taken}, not {models}")
    for option in panel.options:
        if option in _NEEDED and OPTIONS[option] not in given:
            raise UsageError(f"--panel {name} needs {_NEEDED[option]}")
    own = [OPTIONS[option] for option in panel.options]
    if foreign := [option for option in given if option not in own]:
        raise UsageError(
            f"--panel {name} does not use {foreign[0]}; leave it out (it uses {', '.join(own)})"
        )


def command_of(
    bench: Workbench, panel: str, words: Sequence[str], settings: Settings, image: str
) -> str:
    """Returns the command that writes a panel's pictures and numbers to a folder.

    Args:
        bench: The models and images.
        panel: Name from `PANELS`.
        words: The models.
        settings: The settings.
        image: The image's name for the user; an upload's path is of no use to anyone.
    """
    values = {
        "image": [image],
        "images": [str(bench.folder or "DIR")],
        "band": [f"{settings.low:g}", f"{settings.high:g}"],
        "side": [str(settings.side)],
        "stage": [settings.stage] * bool(settings.stage),
        "balance": [f"{value:g}" for value in settings.balance],
        "limit": [str(settings.limit)],
        "min_score": [f"{settings.min_score:g}"],
    }
    named = [bench.model(word).source.word for word in words]
    command = ["spanets", "explore", *named, *bench.opening, "--panel", panel]
    for option in PANELS[panel].options:
        if values[option]:
            command += [OPTIONS[option], *values[option]]
    return shlex.join([*command, "--out", panel])
