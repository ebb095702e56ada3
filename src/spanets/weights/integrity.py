"""Whether a file is as it was written: by the checksums in it, and as torch itself reads it."""

import os
import warnings
from pathlib import Path
from typing import BinaryIO

import torch

from spanets.weights.archives import open_archive
from spanets.weights.errors import WeightsError
from spanets.weights.files import open_regular
from spanets_runtime.errors import first_line


def check_intact(file: BinaryIO, path: str | Path) -> None:
    """Compares a file with the checksums that torch stored in it, and does not look at.

    Args:
        file: Open, at any position.
        path: Of it, for the message.

    Raises:
        WeightsError: it has changed since it was written.
    """
    file.seek(0)
    if file.read(2) != b"PK":
        return  # safetensors, or the pickle of older releases: these hold no checksums
    try:
        with open_archive(file, os.fstat(file.fileno()).st_size) as archive:
            # What no checksum covers: torch would leave out the content of a "folder".
            odd = [part.filename for part in archive.infolist() if part.external_attr]
            damaged = odd[0] if odd else archive.testzip()
    # Beside its own error, whatever a wrong name, offset, version or flag leads to.
    except Exception as error:
        reason = first_line(error)
        raise WeightsError(f"{path}: damaged since it was written ({reason})") from error
    if damaged is not None:
        raise WeightsError(f"{path}: damaged since it was written (its part {damaged!r})")


def check_torch_reads(path: str | Path) -> None:
    """Opens a checkpoint of one's own run as a resumed run will, without reading the weights.

    torch's reader of archives refuses some that others read, by fields that nothing else uses.

    Raises:
        WeightsError: torch does not read it.
    """
    with open_regular(Path(path)) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.load(file, map_location="meta", weights_only=True)
        except Exception as error:
            reason = first_line(error)
            raise WeightsError(f"{path}: damaged since it was written ({reason})") from error
