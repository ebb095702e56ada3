"""Writes matplotlib figures; text is drawn literally, in fonts that have its characters."""

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
"""Longest name in a figure, in characters; longer ones would leave no room for the plot."""


PICTURES = (".png", ".svg", ".pdf")


def check_picture(path: str | Path) -> None:
    """Raises UsageError for an unsupported suffix, UserError if the path cannot be written."""
    if Path(path).suffix not in PICTURES:
        raise UsageError(f"--plot {path}: the suffix must be {', '.join(PICTURES)}")
    require("matplotlib", "analysis")
    check_place(path)


def name_label(name: str, length: int | None = MAX_LABEL) -> str:
    """Returns a name as a short label that matplotlib shows literally, also in legends."""
    text = picture_label(name, length).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text  # legends skip labels that begin with _


def render(figure: "Figure", format: str, **options: Any) -> bytes:
    """Renders a figure to bytes.

    Args:
        figure: The figure; fonts are added to its texts if they lack characters.
        format: "png", "svg" or "pdf".
        options: Options of `Figure.savefig`.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Characters that no installed font has are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        add_fonts(figure)
        figure.savefig(buffer, format=format, **options)
    return buffer.getvalue()


def add_fonts(figure: "Figure") -> None:
    """Adds fonts to the texts of a figure if they lack characters."""
    from matplotlib.text import Text

    for axes in figure.axes:  # creates the tick labels
        axes.get_xticklabels()
        axes.get_yticklabels()
    texts: list[Any] = figure.findobj(Text)
    families = _families_for(frozenset("".join(text.get_text() for text in texts)))
    for text in texts if families else ():
        text.set_fontfamily([*text.get_fontfamily(), *families])


def _families_for(characters: frozenset[str]) -> list[str]:
    """Returns font families with the characters that matplotlib's default font lacks."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    default = get_font(findfont(FontProperties()))
    lacking = frozenset(c for c in characters if not default.get_char_index(ord(c)))
    families = []
    for path in find_fonts(lacking):
        with suppress(RuntimeError, OSError):  # Pillow reads some fonts that matplotlib cannot
            fontManager.addfont(path)
            families.append(get_font(path).family_name)
    return families
