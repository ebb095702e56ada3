"""Zip archives as PyTorch writes them: parts stored as they are, no larger than the file."""

from typing import BinaryIO
from zipfile import ZIP_STORED, BadZipFile, ZipFile

from spanets.weights.errors import WeightsError, show_name

# The list of an archive's parts, some 80 bytes each. Python makes objects ten times as large of it.
_MAX_DIRECTORY = 16 * 2**20


class _BoundedReads:
    """An open file of which no more than `_MAX_DIRECTORY` bytes can be read at once.

    zipfile reads the whole list of an archive's parts by one call.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > _MAX_DIRECTORY:
            raise BadZipFile("its list of parts is too long")
        return self._file.read(_MAX_DIRECTORY if size < 0 else size)


def open_archive(file: BinaryIO, size: int) -> ZipFile:
    """Opens an archive whose parts can be read without needing more memory than the file has bytes.

    Args:
        file: Open, at any position.
        size: Its bytes.

    Raises:
        WeightsError: a part that is compressed or encrypted, or is there twice.
        BadZipFile: a damaged archive.
    """
    archive = ZipFile(_BoundedReads(file))
    parts = archive.infolist()
    for part in parts:
        if part.compress_type != ZIP_STORED or part.flag_bits & 1:
            raise WeightsError(
                f"its part {show_name(part.filename)} is compressed or encrypted, which PyTorch "
                "never does, so it is refused"
            )
    # Some readers tell upper from lower case, some do not.
    if len({part.filename.lower() for part in parts}) < len(parts):
        raise BadZipFile("two parts have one name")
    # Parts that overlap would multiply the file.
    if sum(part.file_size for part in parts) > size:
        raise BadZipFile("its parts are larger than the file")
    return archive
