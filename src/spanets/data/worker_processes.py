"""A data loader that reports in one line why its worker processes cannot start."""

from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from spanets_runtime.errors import UserError, missing_memory


class ImageLoader(DataLoader[Any]):
    """Torch's loader, with a `UserError` if locks or memory for worker processes are missing."""

    # Torch has no public hook at the start of the processes.
    def _get_iterator(self) -> _BaseDataLoaderIter:
        if not self.num_workers:
            return super()._get_iterator()
        self.check_worker_number_rationality()
        try:
            return _Iterator(self)
        except OSError as error:
            reason = missing_memory(error) or error.strerror
            raise UserError(
                f"processes that load images cannot be started ({reason}); lower data.workers or "
                "--workers"
            ) from error


class _Iterator(_MultiProcessingDataLoaderIter):
    # Torch sets it just before the first process starts. Without it, an iterator whose start failed
    # raises an error when it is garbage-collected.
    _shutdown = True
