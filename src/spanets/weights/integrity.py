"""Checks that a file is undamaged, with its checksums and with torch's own reader."""

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
    """Checks a file against the checksums in it, which torch stores but does not verify.

    Args:
        file: Open file, at any position.
        path: Its path, for the message.

    Raises:
        WeightsError: the file has changed since it was written.
    """
    file.seek(0)
    if file.read(2) != b"PK":
        return  # safetensors and the pickles of older releases have no checksums
    try:
        with open_archive(file, os.fstat(file.fileno()).st_size) as archive:
            # No checksum covers these attributes; torch skips the content of a "folder".
            odd = [part.filename for part in archive.infolist() if part.external_attr]
            damaged = odd[0] if odd else archive.testzip()
    # A wrong name, offset, version or flag can raise anything, besides zipfile's own error.
    except Exception as error:
        reason = first_line(error)
        raise WeightsError(f"{path}: damaged since it was written ({reason})") from error
    if damaged is not None:
        raise WeightsError(f"{path}: damaged since it was written (its part {damaged!r})")


def check_torch_reads(path: str | Path) -> None:
    """Opens a checkpoint as a resumed run will, without reading the weights.

    torch's archive reader checks fields that other readers ignore.

    Raises:
        WeightsError: torch cannot read it.
    """
    with open_regular(Path(path)) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.load(file, map_location="meta", weights_only=True)
        except Exception as error:
            reason = first_line(error)
            raise WeightsError(f"{path}: damaged since it was written ({reason})") from error
