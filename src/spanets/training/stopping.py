"""A scheduler's signal stops a run between two updates, the same ones on all processes."""

import signal
import threading
from types import FrameType

import lightning as L
import torch

# What schedulers send before they take a machine away, as far as the system knows them.
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]


class StopRequest:
    """Remembers that a signal asked this process to stop."""

    def __init__(self) -> None:
        self._asked = False

    def listen(self, trainer: L.Trainer) -> None:
        """Handles the signals in Lightning's place, which puts back what was before at the end.

        Its own handler communicates from within, whatever the process is just doing. Where there
        are several processes Ctrl-C is such a signal too: a process that leaves at once would leave
        the others waiting.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        several = [signal.SIGINT] if trainer.world_size > 1 else []
        for number in _SIGNALS + several:
            signal.signal(number, self._ask)

    def agreed(self, trainer: L.Trainer) -> bool:
        """Tells whether any process was asked to stop; all of them call this, and hear the same."""
        if trainer.world_size == 1:
            return self._asked
        asked = torch.tensor(float(self._asked), device=trainer.strategy.root_device)
        return bool(trainer.strategy.reduce(asked, reduce_op="max"))

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if number == signal.SIGINT:  # a second Ctrl-C does not wait
            signal.signal(number, signal.default_int_handler)
