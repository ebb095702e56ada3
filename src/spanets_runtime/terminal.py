"""What a terminal can show."""

import os
import sys
from typing import Any

COLOUR = "cyan"
COLOUR_CODE, RESET_CODE = "\x1b[36m", "\x1b[0m"
"""The colour of progress bars as tqdm names it, and the codes that tqdm writes around a bar."""


def is_styled(stream: Any) -> bool:
    """Whether lines and bold type may be drawn: the stream is a terminal that understands them."""
    return bool(stream.isatty()) and os.environ.get("TERM") not in (None, "", "dumb")


def bar_colour() -> str | None:
    """Returns the colour of progress bars; None without a terminal, or if NO_COLOR is set."""
    return COLOUR if is_styled(sys.stderr) and not os.environ.get("NO_COLOR") else None
