"""Names of any script and of no script: printable, short, and drawn by a font that has them."""

import io
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from spanets_runtime import fonts
from spanets_runtime.figures import MAX_LABEL, name_label, render
from spanets_runtime.fonts import find_fonts, font_for, picture_label

# Of a script that neither Pillow's nor matplotlib's own font has.
HAD, MISSING = "\u732b", "\u72ac"


def block(left: int, bottom: int, right: int, top: int):
    pen = TTGlyphPen(None)
    pen.moveTo((left, bottom))
    for point in ((left, top), (right, top), (right, bottom)):
        pen.lineTo(point)
    pen.closePath()
    return pen.glyph()


def make_font(path: Path, characters: str) -> Path:
    """Writes a font that has these characters alone, as black blocks."""
    builder = FontBuilder(1000, isTTF=True)
    names = {ord(c): f"u{ord(c):x}" for c in characters}
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    shapes = dict.fromkeys(names.values(), block(0, 0, 1000, 1000))
    builder.setupGlyf({".notdef": block(0, 0, 100, 50), **shapes})
    builder.setupHorizontalMetrics(dict.fromkeys((".notdef", *names.values()), (1000, 0)))
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path.parent.mkdir(parents=True, exist_ok=True)
    builder.save(path)
    return path


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The only fonts of a machine."""
    monkeypatch.setattr(fonts, "_font_folders", lambda: [tmp_path / "fonts", tmp_path / "none"])
    find_fonts.cache_clear()
    yield tmp_path / "fonts"
    find_fonts.cache_clear()


# ---- text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cat", "cat"),
        ("猫 кот قط 😀", "猫 кот قط 😀"),
        ("caf\udce9", r"caf\udce9"),
        ("\ud800", r"\ud800"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\u202eb", r"a\u202eb"),
        ("", ""),
    ],
)
def test_names_are_picture_label(name, shown):
    assert picture_label(name) == shown


@given(st.text(st.characters()), st.integers(3, 50))
def test_any_name_is_one_short_line_that_can_be_encoded(name, length):
    text = picture_label(name, length)
    assert len(text.splitlines()) <= 1
    assert len(text) <= length
    text.encode()
    whole = picture_label(name)
    kept, dots, end = text.partition("…")
    assert text == whole or (dots and whole.startswith(kept) and whole.endswith(end))


def test_long_names_lose_their_middle():
    assert picture_label("a" * 400 + "z" * 100, 10) == "aaaaaa…zzz"


# ---- fonts


def test_the_font_that_has_the_characters_is_found(installed):
    make_font(installed / "deep/er/a.ttf", HAD)
    make_font(installed / "b.ttf", "ab")
    (installed / "broken.ttf").write_bytes(b"no font")
    (installed / "readme.txt").touch()
    assert find_fonts(frozenset(HAD + " ")) == (str(installed / "deep/er/a.ttf"),)
    both = find_fonts(frozenset("ab" + HAD))
    assert [Path(path).name for path in both] == ["b.ttf", "a.ttf"]
    assert find_fonts(frozenset(MISSING)) == ()
    assert find_fonts(frozenset()) == ()


def test_a_word_is_drawn_by_a_font_that_has_it(installed):
    make_font(installed / "a.ttf", HAD + "0.9")

    def drawn(word: str) -> float:
        picture = Image.new("L", (60, 20))
        ImageDraw.Draw(picture).text((0, 0), word, 255, font_for(word))
        return float(np.asarray(picture).mean())

    assert isinstance(font_for("cat 0.9"), type(ImageFont.load_default(10)))
    assert font_for("cat 0.9").getname()[0] != "a"
    assert font_for(f"{HAD} 0.9").getname()[0] == "a"
    assert drawn(HAD * 3) > 5 * drawn(MISSING)  # blocks, where the other is as if missing
    assert font_for("a\u72acb").getname()[0] != "a"  # nobody has it: the usual font


def test_a_figure_is_drawn_with_the_fonts_that_it_needs(installed):
    family = make_font(installed / "private blocks.ttf", HAD).stem

    def draw(name: str) -> tuple[float, list[str]]:
        figure = Figure((2, 2))
        axes = figure.subplots()
        axes.plot([1, 10], label=name)
        axes.set_yscale("log")  # its ticks are formulas, and remain so
        axes.legend()
        picture = Image.open(io.BytesIO(render(figure, "png"))).convert("L")
        (text,) = axes.get_legend().get_texts()
        return 255 - float(np.asarray(picture).mean()), text.get_fontfamily()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # older matplotlib, newer pyparsing
        inked, families = draw(name_label(HAD * 3))
        missing, others = draw(name_label(MISSING * 3))
    assert family in families
    assert family not in others
    assert inked > 1.1 * missing  # blocks


ODD = ["$_$", r"$\frac$", r"\$x\$", "$", "_a", "{", "%", "#", "^", "\ud800", "caf\udce9", "a\nb"]


@pytest.mark.parametrize("name", [*ODD, "猫", "قط", "😀", "x" * 500, " "])
def test_any_name_can_stand_in_a_figure(name):
    """In titles, at ticks and in legends."""
    figure = Figure((2, 2))
    axes = figure.subplots()
    label = name_label(name)
    axes.plot([0, 1], label=label)
    axes.set(title=label, xlabel=label)
    axes.set_xticks([0, 1], [label, label])
    shown = axes.legend().get_texts()
    assert render(figure, "png").startswith(b"\x89PNG")
    assert len(shown) == 1
    assert len(label) <= MAX_LABEL + label.count("\\$")


def test_a_user_s_own_settings_of_matplotlib_stay(installed):
    make_font(installed / "mine.ttf", HAD)
    before = dict(matplotlib.rcParams)
    figure = Figure((1, 1))
    figure.suptitle(HAD)
    render(figure, "svg")
    assert dict(matplotlib.rcParams) == before
