"""A readable report of what `load_weights` did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from spanets.weights.errors import show_name

_SHOWN = 4


@dataclass
class LoadReport:
    """What `load_weights` loaded, skipped and left at its initial values.

    Attributes:
        path: The file.
        released: Whether the file had the released code's names.
        names: Whose names the file has, for display.
        loaded: Number of loaded tensors.
        skipped: Keys of the file that were skipped, each with the reason.
        fresh: Keys of the model that keep their values, each with the reason.
        prefix: Prefix that was removed from the file's keys.
        outside: Keys of the file without the prefix, which were skipped.
        averaged: Name of the weights in the file, if they are averages over updates.
        unused: Names of other sets of weights in the file, each with a description.
        converted: Keys of tensors whose dtype was converted, each with both dtypes.
        not_finite: Keys of tensors that hold NaN or infinity.
        adapted: Keys of tensors that were adapted to other images, each with the reason.
    """

    path: str
    released: bool = False
    names: str = "our names"
    loaded: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)
    prefix: str = ""
    outside: list[str] = field(default_factory=list)
    averaged: str | None = None
    unused: dict[str, str] = field(default_factory=dict)
    converted: dict[str, str] = field(default_factory=dict)
    not_finite: list[str] = field(default_factory=list)
    adapted: dict[str, str] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """Returns a line with a count for each kind of difference between file and model."""
        outside = dict.fromkeys(self.outside, f"not under '{show_name(self.prefix)}'")
        lines = [
            *_count("left out", {**self.skipped, **outside}),
            *_count("keep their initial values", self.fresh),
            *_count("converted", self.converted),
            *_count("adapted", self.adapted),
        ]
        if self.averaged:
            lines.append(f"the weights are averages over updates ({show_name(self.averaged)})")
        for name, what in self.unused.items():
            lines.append(f"another set of weights was not used: {show_name(name)} ({what})")
        if self.not_finite:
            named = list_names(self.not_finite)
            lines.append(f"warning: {len(self.not_finite)} hold NaN or infinity: {named}")
        return lines

    def __str__(self) -> str:
        """Returns a summary line, then the notes."""
        whole = f"{self.path}: {self.loaded} tensors loaded ({self.names})"
        return "\n".join([whole, *self.notes()])


def list_names(keys: Sequence[str], limit: int = _SHOWN) -> str:
    """Returns the first keys, and how many more there are."""
    more = len(keys) - limit
    shown = ", ".join(map(show_name, keys[:limit]))
    return shown + (f" (and {more} more)" if more > 0 else "")


def _count(verb: str, reasons: Mapping[str, str]) -> list[str]:
    """Returns a line for each reason, with its keys."""
    keys: dict[str, list[str]] = {}
    for key, reason in reasons.items():
        keys.setdefault(reason, []).append(key)
    return [f"{len(k)} {verb}: {list_names(k)} ({reason})" for reason, k in keys.items()]
