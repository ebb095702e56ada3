"""Reads lists of names, one a line, from text files in the encodings that editors write."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spanets_runtime.errors import UserError
from spanets_runtime.reading import read_file

# UTF-32 before UTF-16: its byte-order mark begins with that of UTF-16.
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_MAX_BYTES = 2**24

# "0 ground", "1: square", "2 = disc" and "ground,0", "square: 1".
_NUMBER_FIRST = re.compile(r"(\d{1,9})(?:\s*[:=,;|\t]\s*|\s+)\S.*")
_NUMBER_LAST = re.compile(r".*\S\s*[:=,;|\t]\s*(\d{1,9})")
_SEPARATOR = re.compile(r"[:=,;|\t]")


@dataclass(frozen=True)
class NameList:
    """Names in the order of a file.

    Attributes:
        names: The names, without line ends and without spaces and invisible characters around.
        notes: A message if blank lines between names were left out.
    """

    names: list[str]
    notes: tuple[str, ...] = ()


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a text file, each cleaned by `clean_name`.

    Reads UTF-8 with or without a byte-order mark, and UTF-16 or UTF-32 with one, with line ends of
    Unix, Windows or old Macs. Blank lines at the end are left out.

    Raises:
        UserError: the file is missing, cannot be read or is not text.
    """
    lines = [clean_name(line) for line in re.split(r"\r\n|\r|\n", _read_text(path))]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def read_names(path: Path) -> NameList:
    """Reads a list of names in the order of their numbers, from 0.

    Raises:
        UserError: see `read_lines`; or a line has a number beside the name, or a control character.
    """
    lines = read_lines(path)
    names = [line for line in lines if line]
    for number, line in enumerate(lines, start=1):
        if any(unicodedata.category(character) == "Cc" for character in line.replace("\t", "")):
            raise UserError(f"{path}: line {number} holds a control character; write plain names")
    if _holds_numbers(names):
        raise UserError(
            f"{path}: has numbers beside the names, such as {names[0]!r}; write the names alone, "
            "one a line, from number 0"
        )
    return NameList(names, _note_blanks(path, lines))


def clean_name(line: str) -> str:
    """Returns a line in Unicode's NFC form, without spaces and invisible characters at its ends.

    Invisible characters are for example byte-order marks, zero-width spaces and direction marks.
    Within a name they stay, because some scripts need them.
    """
    start, end = 0, len(line)
    while start < end and _is_invisible(line[start]):
        start += 1
    while end > start and _is_invisible(line[end - 1]):
        end -= 1
    return unicodedata.normalize("NFC", line[start:end])


def _is_invisible(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) in ("Cf", "Cc")


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    content = read_file(path, _MAX_BYTES)
    try:
        text = content.decode(encoding_of(content))
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{path}: is not a text file in UTF-8, or in UTF-16 with a byte-order mark")
    return text


def encoding_of(start: bytes) -> str:
    """Returns the encoding of a text by its byte-order mark; UTF-8 without one."""
    return next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8")


def _holds_numbers(names: Sequence[str]) -> bool:
    """Whether lines hold a number beside each name; names such as "2 euro" do not count."""
    first = [_NUMBER_FIRST.fullmatch(name) for name in names]
    if len(names) > 1 and all(first):
        numbers = [int(match[1]) for match in first if match]
        in_order = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        return (in_order and numbers[0] in (0, 1)) or all(_SEPARATOR.search(n) for n in names)
    return len(names) > 1 and all(_NUMBER_LAST.fullmatch(name) for name in names)


def _note_blanks(path: Path, lines: Sequence[str]) -> tuple[str, ...]:
    blank = [number for number, line in enumerate(lines, start=1) if not line]
    if not blank:
        return ()
    after = next(i for i in range(blank[0], len(lines)) if lines[i])
    number = sum(bool(line) for line in lines[:after])
    count = f"{len(blank)} blank lines" if len(blank) > 1 else "a blank line"
    return (
        f"{path}: {count} left out, the first is line {blank[0]}; the number of {lines[after]!r} "
        f"after it is {number}",
    )
