"""Stops a run at a scheduler's signal, after the same update on all processes."""

import signal
import threading
from types import FrameType

import lightning as L
import torch

# Signals that schedulers send before they end a job, if the system has them.
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]


class StopRequest:
    """Records that a signal asked this process to stop."""

    def __init__(self) -> None:
        self._asked = False

    def listen(self, trainer: L.Trainer) -> None:
        """Replaces Lightning's signal handlers; Lightning restores the original ones at the end.

        Lightning's handler communicates with other processes at any point of the program. In a
        distributed run this also handles Ctrl-C, because a process that exits at once would leave
        the others waiting.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        several = [signal.SIGINT] if trainer.world_size > 1 else []
        for number in _SIGNALS + several:
            signal.signal(number, self._ask)

    def agreed(self, trainer: L.Trainer) -> bool:
        """Returns whether any process was asked to stop; all processes must call this together."""
        if trainer.world_size == 1:
            return self._asked
        asked = torch.tensor(float(self._asked), device=trainer.strategy.root_device)
        return bool(trainer.strategy.reduce(asked, reduce_op="max"))

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if number == signal.SIGINT:  # a second Ctrl-C stops at once
            signal.signal(number, signal.default_int_handler)
