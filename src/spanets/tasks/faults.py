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
from spanets.tasks.errors import DivergedError, StoppedError
from spanets.tasks.resuming import resume_command
from spanets_runtime.errors import UsageError, UserError


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
    except UserError as error:
        raise UserError(f"{error}; when that is mended, {go_on}") from error
    except OSError as error:
        # TensorBoard's writer fails while another error ends the run, or on its own.
        if isinstance(error.__context__, UserError):
            raise UserError(f"{error.__context__}; when that is mended, {go_on}") from error
        where, what = error.filename or out, error.strerror or error
        raise UserError(f"{where}: {what}; when that is mended, {go_on}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what Lightning says of itself, and leaves signals and hooks as they were."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("fabric", "pytorch")]
    levels = [logger.level for logger in loggers]
    hook, handler = threading.excepthook, signal.getsignal(signal.SIGINT)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    # An error of TensorBoard's thread is raised again in this one.
    threading.excepthook = lambda args: None if args.exc_type is OSError else hook(args)
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
