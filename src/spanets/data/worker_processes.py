"""A loader whose processes start, or that says in one line why they cannot."""

from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from spanets_runtime.errors import UserError, missing_memory


class ImageLoader(DataLoader[Any]):
    """Torch's loader, whose processes need locks in shared memory and memory of their own."""

    # No public hook of torch's is called where the processes start.
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
    # Until torch sets it, before the first process starts. An iterator without it, of which nothing
    # was started, complains when it is collected.
    _shutdown = True
