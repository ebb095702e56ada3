"""One-line messages for runs that end early: what was saved, and how to resume."""

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spanets.data.loaders import plain_worker_errors
from spanets.runs.file_names import INTERRUPTED
from spanets.training.errors import DivergedError, StoppedError
from spanets.training.resuming import resume_command
from spanets_runtime.errors import UsageError, UserError, describe_system_error, missing_memory


@contextmanager
def plain_errors(out: Path) -> Iterator[None]:
    """Turns errors into messages that say what was saved and how to resume."""
    go_on = f"go on with: {resume_command(out)}"
    try:
        with plain_worker_errors():
            yield
    except SystemExit:
        # Lightning exits like this after Ctrl-C, when its callbacks have run.
        left = out / INTERRUPTED
        raise UserError(f"stopped; the current weights are in {left}; {go_on}") from None
    except KeyboardInterrupt:  # after the training
        raise UserError(f"stopped; {go_on}") from None
    except (DivergedError, UsageError):
        raise
    except StoppedError as error:
        raise StoppedError(f"{error}; {go_on}") from None
    except Exception as error:
        first = _first_of(error)
        if (said := missing_memory(first)) is not None:
            raise UserError(f"{said}; or get more memory and {go_on}") from error
        if not isinstance(first, UserError | OSError):
            raise
        raise UserError(f"{_describe(first, out)}; fix this, then {go_on}") from error


def _first_of(error: BaseException) -> BaseException:
    """Returns the error that ended a run; TensorBoard and Lightning may raise others after it."""
    before = error.__context__
    if isinstance(error, UserError) or before is None:
        return error
    tells = isinstance(before, UserError) or missing_memory(before) is not None
    return before if tells else error


def _describe(error: UserError | OSError, out: Path) -> str:
    if isinstance(error, UserError):
        return str(error)
    said = describe_system_error(error)
    return said if error.filename is not None else f"{out}: {said}"


@contextmanager
def quiet() -> Iterator[None]:
    """Silences Lightning's own messages; restores signal handlers and hooks at the end."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("fabric", "pytorch")]
    levels = [logger.level for logger in loggers]
    hook, handler = threading.excepthook, signal.getsignal(signal.SIGINT)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    # An OSError of TensorBoard's thread is raised again in this thread.
    threading.excepthook = lambda args: None if issubclass(args.exc_type, OSError) else hook(args)
    try:
        with warnings.catch_warnings():
            for module in ("lightning", "torchmetrics", "torch.utils.data"):
                warnings.filterwarnings("ignore", module=module)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        threading.excepthook = hook
        # After an early Ctrl-C, Lightning leaves the signal ignored.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
