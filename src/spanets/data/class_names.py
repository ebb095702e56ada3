"""Compares class names: equal ones, easily confused ones, and differences between two lists.

Unicode spells a letter with an accent as one character (NFC) or two (NFD, which macOS uses in file
names). Both spellings are the same name here.
"""

import unicodedata
from collections.abc import Sequence

from spanets.data.class_lists import clean_name
from spanets_runtime.errors import UserError, nearest


def normal(name: str) -> str:
    """Returns a name in Unicode's NFC form, the form in which names are compared."""
    return unicodedata.normalize("NFC", name)


def describe_twins(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Returns a message for each group of classes whose names look alike."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(normal(name).casefold(), []).append(name)
    return tuple(
        f"{where}: classes {' and '.join(map(repr, group))} differ in "
        f"{'letter case' if len(set(map(normal, group))) > 1 else 'their Unicode spelling'} alone; "
        f"they are {len(group)} classes"
        for group in groups.values()
        if len(group) > 1
    )


def match_classes(names: Sequence[str], known: Sequence[str]) -> list[int]:
    """Returns the index of each name among the classes of a model.

    Raises:
        UserError: the model lacks one of them.
    """
    exact = {name: number for number, name in enumerate(known)}
    similar = {normal(name): number for number, name in enumerate(known)}
    return [exact[n] if n in exact else _find(normal(n), similar, n, known) for n in names]


def _find(key: str, numbers: dict[str, int], name: str, known: Sequence[str]) -> int:
    if key in numbers:
        return numbers[key]
    shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    hint = nearest(name, known) or f"; it has {shown}"
    raise UserError(f"the model has no class {name!r}{hint}")


def compare_classes(before: Sequence[str], now: Sequence[str]) -> str:
    """Describes how two lists of classes differ in names or order; "" if they are the same."""
    # Earlier versions kept invisible characters in the names of a list.
    first, second = ([normal(clean_name(name)) for name in names] for names in (before, now))
    if first == second:
        return ""
    gone = [name for name in first if name not in set(second)]
    come = [name for name in second if name not in set(first)]
    if gone or come:
        lines = [("is missing", "are missing", gone), ("is new", "are new", come)]
        return ", ".join(
            f"{_list(n)} {one if len(n) == 1 else many}" for one, many, n in lines if n
        )
    if len(first) != len(second):
        return f"{len(second)} classes instead of {len(first)}, some of them twice"
    place = next(i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
    return f"in another order: number {place} is {second[place]!r}, not {first[place]!r}"


def _list(names: Sequence[str], limit: int = 5) -> str:
    shown = ", ".join(map(repr, names[:limit]))
    return shown + (f" and {len(names) - limit} more" if names[limit:] else "")
