"""Reads the table of models: size, cost, published accuracy and weights.

`spanets/bench/recount.py` writes the file, and a test verifies its numbers.
"""

import json
from fnmatch import filter as match_names
from pathlib import Path
from typing import Any

from spanets_runtime.errors import UsageError, nearest

TABLE = Path(__file__).with_name("model_table.json")


def model_table(pattern: str = "") -> list[dict[str, Any]]:
    """Returns a row for each model of this package whose name matches a shell pattern.

    Args:
        pattern: Shell pattern; "" matches all models.

    Returns:
        Rows of `model`, `parameters`, `macs` (multiply-accumulates of one image of 224²),
        `top1_paper` (percent on ImageNet-1K, or None) and `weights` (URL of the published
        file, or None), in the order of the papers' tables.

    Raises:
        UsageError: no model matches; the message suggests the nearest one.
    """
    rows = {row["model"]: row for row in json.loads(TABLE.read_text(encoding="utf-8"))}
    names = match_names(rows, pattern) if pattern else list(rows)
    if not names:
        hint = nearest(pattern.replace("*", ""), rows) or f"; known are {', '.join(rows)}"
        raise UsageError(f"no model matches {pattern!r}{hint}")
    return [rows[name] for name in names]
