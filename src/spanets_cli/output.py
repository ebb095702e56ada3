"""What commands print for machines: JSON that every reader takes."""

import json
import math
import sys
from typing import Any


def print_json(value: Any, **options: Any) -> int:
    """Prints plain values as JSON, with null for numbers that are none, which JSON does not have.

    Args:
        value: Lists, dictionaries, texts, numbers.
        options: Of `json.dumps`.

    Returns:
        The exit status: 1 if there was such a number, which is said on standard error; else 0.
    """
    places: list[str] = []
    print(json.dumps(_plain(value, "", places), indent=2, allow_nan=False, **options), flush=True)
    if places:
        count = f"{len(places)} numbers are" if len(places) > 1 else "1 number is"
        print(
            f"spanets: {count} not finite, null in the JSON, such as {places[0]}", file=sys.stderr
        )
    return int(bool(places))


def _plain(value: Any, place: str, places: list[str]) -> Any:
    """Returns the value with None for NaN and infinities, whose places are noted."""
    if isinstance(value, float) and not math.isfinite(value):
        places.append(place.lstrip("."))
        return None
    if isinstance(value, dict):
        return {key: _plain(inner, f"{place}.{key}", places) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{place}[{i}]", places) for i, inner in enumerate(value)]
    return value
