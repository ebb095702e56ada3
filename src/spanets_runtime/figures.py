"""Matplotlib's figures as files: names are drawn as they are, in fonts that have them."""

import io
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spanets_runtime.errors import UsageError, require
from spanets_runtime.files import check_place
from spanets_runtime.fonts import find_fonts, picture_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_LABEL = 40
"""Characters of a name in a figure; longer ones would leave no room for the rest."""


PICTURES = (".png", ".svg", ".pdf")


def check_picture(path: str | Path) -> None:
    """Raises UsageError for a suffix that no figure is written for, UserError for a bad place."""
    if Path(path).suffix not in PICTURES:
        raise UsageError(f"--plot {path}: the suffix must be {', '.join(PICTURES)}")
    require("matplotlib", "analysis")
    check_place(path)


def name_label(name: str, length: int | None = MAX_LABEL) -> str:
    """Returns a name as a label: short, without formulas, and shown in a legend in any case."""
    text = picture_label(name, length).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text  # legends leave out what begins so


def render(figure: "Figure", format: str, **options: Any) -> bytes:
    """Draws a figure.

    Args:
        figure: Its fonts are added to, where they lack characters of its texts.
        format: "png", "svg" or "pdf".
        options: Of `Figure.savefig`.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Of scripts that no installed font has; they are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        _add_fonts(figure)
        figure.savefig(buffer, format=format, **options)
    return buffer.getvalue()


def _add_fonts(figure: "Figure") -> None:
    from matplotlib.text import Text

    for axes in figure.axes:  # makes what is written at the ticks
        axes.get_xticklabels()
        axes.get_yticklabels()
    texts: list[Any] = figure.findobj(Text)
    families = _families_for(frozenset("".join(text.get_text() for text in texts)))
    for text in texts if families else ():
        text.set_fontfamily([*text.get_fontfamily(), *families])


def _families_for(characters: frozenset[str]) -> list[str]:
    """Returns families of fonts that have what matplotlib's default font lacks."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    default = get_font(findfont(FontProperties()))
    lacking = frozenset(c for c in characters if not default.get_char_index(ord(c)))
    families = []
    for path in find_fonts(lacking):
        with suppress(RuntimeError, OSError):  # of a kind that Pillow draws and matplotlib does not
            fontManager.addfont(path)
            families.append(get_font(path).family_name)
    return families
