"""The panels by name, and the command that computes each of them without the page."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spanets.explore.balance import balance, balanced_contexts, balanced_spectrum, tradeoff
from spanets.explore.compare import compare
from spanets.explore.detect import detect
from spanets.explore.frequencies import band, filters, frequencies, stages
from spanets.explore.look import look, look_closely, score_cams
from spanets.explore.results import Shown
from spanets.explore.workbench import Settings, Workbench


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        show: Computes it, from the models' words and the settings.
        options: Settings that it depends on, in the order of the command line.
    """

    show: Callable[[Workbench, list[str], Settings], Shown]
    options: tuple[str, ...]


PANELS = {
    "look": Panel(look_closely, ("image",)),
    "frequencies": Panel(frequencies, ("image", "band", "side")),
    "balance": Panel(balance, ("image", "stage", "balance")),
    "tradeoff": Panel(tradeoff, ("images", "stage", "limit")),
    "compare": Panel(compare, ("images", "limit")),
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


def command_of(
    panel: str, words: Sequence[str], settings: Settings, folder: str, image: str
) -> str:
    """Returns the command that writes a panel's pictures and numbers to a folder.

    Args:
        panel: Name from `PANELS`.
        words: The models.
        settings: The settings.
        folder: Folder of images.
        image: The image's name for the user; an upload's path is of no use to anyone.
    """
    values = {
        "image": [image],
        "images": [folder],
        "band": [f"{settings.low:g}", f"{settings.high:g}"],
        "side": [str(settings.side)],
        "stage": [settings.stage] * bool(settings.stage),
        "balance": [f"{value:g}" for value in settings.balance],
        "limit": [str(settings.limit)],
        "min_score": [f"{settings.min_score:g}"],
    }
    command = ["spanets", "explore", *words, "--panel", panel]
    for option in PANELS[panel].options:
        if values[option]:
            command += [OPTIONS[option], *values[option]]
    return shlex.join([*command, "--out", panel])
