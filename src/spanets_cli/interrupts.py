"""Ctrl-C: the first one stops a command, and those that follow disturb nothing."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def one_interrupt(for_good: bool) -> Iterator[None]:
    """Lets Ctrl-C raise KeyboardInterrupt once, and never while the command clears up after it.

    Args:
        for_good: The program ends with the command, and its end is not to be disturbed either.
    """
    before = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if before is not signal.default_int_handler or not is_main:  # ignored, as in the background
        yield
        return
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        if not for_good:
            signal.signal(signal.SIGINT, before)
