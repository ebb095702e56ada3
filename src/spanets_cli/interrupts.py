"""Ctrl-C: the first one stops a command; later ones are ignored."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def one_interrupt(for_good: bool) -> Iterator[None]:
    """Raises KeyboardInterrupt for the first Ctrl-C only, so that clean-up is not interrupted.

    Args:
        for_good: Keep ignoring Ctrl-C after the command, because the program ends with it.
    """
    before = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    # A background process ignores Ctrl-C; this must stay so.
    if before is not signal.default_int_handler or not is_main:
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
