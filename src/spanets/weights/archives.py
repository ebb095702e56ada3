"""Zip archives as PyTorch writes them: uncompressed parts, together no larger than the file."""

from typing import BinaryIO
from zipfile import ZIP_STORED, BadZipFile, ZipFile

from spanets.weights.errors import WeightsError, show_name

# Limit for the list of parts, some 80 bytes each. Python's objects for it take ten times as much.
_MAX_DIRECTORY = 16 * 2**20


class _BoundedReads:
    """An open file that reads at most `_MAX_DIRECTORY` bytes at once.

    zipfile reads the whole list of an archive's parts in one call.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > _MAX_DIRECTORY:
            raise BadZipFile("its list of parts is too long")
        return self._file.read(_MAX_DIRECTORY if size < 0 else size)


def open_archive(file: BinaryIO, size: int) -> ZipFile:
    """Opens an archive and checks that its parts need no more memory than the file has bytes.

    Args:
        file: Open file, at any position.
        size: File size, in bytes.

    Raises:
        WeightsError: a part is compressed or encrypted.
        BadZipFile: damaged archive, duplicate names, or parts larger than the file.
    """
    archive = ZipFile(_BoundedReads(file))
    parts = archive.infolist()
    for part in parts:
        if part.compress_type != ZIP_STORED or part.flag_bits & 1:
            raise WeightsError(
                f"its part {show_name(part.filename)} is compressed or encrypted, which PyTorch "
                "never does, so it is refused"
            )
    # Only some readers distinguish upper and lower case.
    if len({part.filename.lower() for part in parts}) < len(parts):
        raise BadZipFile("two parts have one name")
    # Overlapping parts could expand to many times the file's size.
    if sum(part.file_size for part in parts) > size:
        raise BadZipFile("its parts are larger than the file")
    return archive
