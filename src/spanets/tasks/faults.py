"""What ends a run early, said in one line: what is left of it, and how to go on."""

import logging
import signal
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spanets.data.loaders import plain_worker_errors
from spanets.runs.folder import INTERRUPTED
from spanets.tasks.errors import DivergedError, StoppedError
from spanets.tasks.resuming import resume_command
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
        if (said := missing_memory(error)) is not None:
            raise UserError(f"{said}; or, with more memory, {go_on}") from error
        if (said := _describe(error, out)) is None:
            raise
        raise UserError(f"{said}; when that is mended, {go_on}") from error


def _describe(error: Exception, out: Path) -> str | None:
    """Says what a user can mend; None for a defect of ours."""
    # TensorBoard's writer fails while another error ends the run, or on its own.
    if isinstance(error, OSError) and isinstance(error.__context__, UserError):
        error = error.__context__
    if isinstance(error, UserError):
        return str(error)
    if not isinstance(error, OSError):
        return None
    if error.filename is not None:
        return describe_system_error(error)
    where = traceback.extract_tb(error.__traceback__)[-1].filename
    if "multiprocessing" in where:  # a lock between processes, which lies in shared memory
        return (
            f"processes that load images cannot be started ({error.strerror}); lower data.workers"
        )
    return f"{out}: {describe_system_error(error)}"


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
