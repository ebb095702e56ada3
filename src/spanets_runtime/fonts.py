"""Short labels for pictures, and fonts that have their characters."""

import os
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

from spanets_runtime.text import escape_controls

_SUFFIXES = (".ttf", ".otf", ".ttc")

_NOWHERE = "\U0010ffff"
"""A code point without a character; fonts draw it like any character that they lack."""


def picture_label(name: str, length: int | None = None) -> str:
    """Returns a name as one line, with control characters escaped.

    Args:
        name: Name of a class or a file.
        length: Limit in characters; a longer name loses its middle. None keeps all.
    """
    text = escape_controls(name)
    if length is None or len(text) <= length:
        return text
    return f"{text[: length * 2 // 3]}…{text[len(text) - length + length * 2 // 3 + 1 :]}"


def font_for(text: str, size: float = 10) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Returns a font for a text: Pillow's own, or an installed one that has more characters."""
    wanted = frozenset(text)
    default = ImageFont.load_default(size)
    lacking = _lacking(wanted, size)
    found = find_fonts(lacking)
    if not found:
        return default
    font = ImageFont.truetype(found[0], size)
    return font if len(_covered(font, wanted)) > len(wanted) - len(lacking) else default


@lru_cache(maxsize=256)  # finding out takes much longer than drawing the text
def _lacking(characters: frozenset[str], size: float) -> frozenset[str]:
    return characters - _covered(ImageFont.load_default(size), characters)


@lru_cache(maxsize=256)
def find_fonts(characters: frozenset[str]) -> tuple[str, ...]:
    """Returns up to five installed fonts that together have as many of the characters as possible.

    Returns:
        Paths; the font with most of the characters is first.
    """
    fonts: list[str] = []
    left = frozenset(c for c in characters if not c.isspace())
    covered = {path: _covered_by(path, left) for path in _installed_fonts()} if left else {}
    while left and len(fonts) < 5:
        # Of equal fonts prefer the plain one: "DejaVuSans.ttf", not "DejaVuSans-BoldOblique.ttf".
        path = max(covered, key=lambda path: (len(covered[path] & left), -len(path)), default=None)
        if path is None or not covered[path] & left:
            break
        fonts.append(path)
        left -= covered[path]
    return tuple(fonts)


def _covered_by(path: str, characters: frozenset[str]) -> frozenset[str]:
    try:
        return _covered(ImageFont.truetype(path, 12), characters)
    except (OSError, ImportError, ValueError):  # FreeType cannot read it, or is missing
        return frozenset()


def _covered(
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont, characters: Iterable[str]
) -> frozenset[str]:
    """Returns the characters that a font has, including spaces."""
    lacking = _drawn(font, _NOWHERE)
    return frozenset(c for c in characters if c.isspace() or _drawn(font, c) != lacking)


def _drawn(
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont, character: str
) -> tuple[tuple[int, int], bytes] | None:
    try:
        mask = font.getmask(character)
    except UnicodeError:  # without FreeType, Pillow's font has only Latin letters
        return None
    return mask.size, bytes(mask)


def _installed_fonts() -> Iterator[str]:
    for folder in _font_folders():
        for parent, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                if name.lower().endswith(_SUFFIXES):
                    yield os.path.join(parent, name)


def _font_folders() -> list[Path]:
    home, environment = Path.home(), os.environ
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    if sys.platform == "win32":
        local = Path(environment.get("LOCALAPPDATA", home / "AppData/Local"))
        system = Path(environment.get("WINDIR", "C:/Windows"))
        return [system / "Fonts", local / "Microsoft/Windows/Fonts"]
    shared = environment.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    own = environment.get("XDG_DATA_HOME") or home / ".local/share"
    return [*(Path(part, "fonts") for part in (own, *shared.split(":"))), home / ".fonts"]
