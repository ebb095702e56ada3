"""What ends a run early, said in one line: what is left of it, and how to go on."""

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spanets.data.loaders import plain_worker_errors
from spanets.runs.folder import INTERRUPTED
from spanets.training.errors import DivergedError, StoppedError
from spanets.training.resuming import resume_command
from spanets_runtime.errors import UsageError, UserError, describe_system_error, missing_memory


@contextmanager
def plain_errors(out: Path) -> Iterator[None]:
    """Says of a run that ends early what is left of it and how to go on."""
    go_on = f"go on with: {resume_command(out)}"
    try:
        with plain_worker_errors():
            yield
    except SystemExit:
        # Lightning leaves like this on Ctrl-C, once its callbacks have run.
        left = out / INTERRUPTED
        raise UserError(f"stopped; the weights as they were are in {left}; {go_on}") from None
    except KeyboardInterrupt:  # when the weights are final
        raise UserError(f"stopped; {go_on}") from None
    except (DivergedError, UsageError):
        raise
    except StoppedError as error:
        raise StoppedError(f"{error}; {go_on}") from None
    except Exception as error:
        first = _first_of(error)
        if (said := missing_memory(first)) is not None:
            raise UserError(f"{said}; or, with more memory, {go_on}") from error
        if not isinstance(first, UserError | OSError):
            raise
        raise UserError(f"{_describe(first, out)}; when that is mended, {go_on}") from error


def _first_of(error: BaseException) -> BaseException:
    """Returns what ended a run: TensorBoard and Lightning may fail in turn while it ends."""
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
    """Silences what Lightning says of itself, and leaves signals and hooks as they were."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("fabric", "pytorch")]
    levels = [logger.level for logger in loggers]
    hook, handler = threading.excepthook, signal.getsignal(signal.SIGINT)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    # An error of TensorBoard's thread is raised again in this one.
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
        # Lightning ignores Ctrl-C for good where it has met one early.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
