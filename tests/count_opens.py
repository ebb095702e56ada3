"""Counts how often files are opened, whoever in this process opens them."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_runs import call

_watched: dict[str, int] = {}


def _count(event: str, arguments: tuple[object, ...]) -> None:
    if _watched and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if path in _watched:
            _watched[path] += 1


@contextmanager
def count_opens(path: Path) -> Iterator[list[int]]:
    """Yields a list, to which the number of times is added at the end."""
    if _count not in _hooks:
        sys.addaudithook(_count)  # for good: there is no way to remove one
        _hooks.append(_count)
    name, counts = os.path.realpath(path), list[int]()
    _watched[name] = 0
    try:
        yield counts
    finally:
        counts.append(_watched.pop(name))


_hooks: list[object] = []


def command_id(words: Sequence[object]) -> str:
    """Returns the name of a parametrized command."""
    return "-".join(word for word in map(str, words) if word.islower())


dense_commands = pytest.mark.parametrize(
    "words",
    [
        ("predict", "CHECKPOINT", "IMAGES", "--out", "OUT"),
        ("eval", "CHECKPOINT", "--workers", 0),
        ("eval", "CHECKPOINT", "--workers", 0, "--data", "DATA"),
        pytest.param(
            ("export", "CHECKPOINT", "--static", "--size", 64, "--out", "OUT/a.pt2"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [
                "export",
                "CHECKPOINT",
                "--features-only",
                "--static",
                "--size",
                "64",
                "--out",
                "OUT/a.pt2",
            ],
            marks=pytest.mark.slow,
        ),
        ("bench", "CHECKPOINT", "--size", 64, "--rounds", 1),
    ],
    ids=command_id,
)


def assert_opens_once(
    words: Sequence[object], checkpoint: Path, places: dict[str, Path], capsys
) -> None:
    """Runs a command, with paths in place of the words in capitals, and counts the openings."""
    places = {"CHECKPOINT": checkpoint, **places}
    out = str(places.pop("OUT"))
    given = [places.get(str(word), str(word).replace("OUT", out)) for word in words]
    with count_opens(checkpoint) as counts:
        status, _, said = call(capsys, *given)
        assert status == 0, said
    assert counts == [1]
