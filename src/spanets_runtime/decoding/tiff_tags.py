"""Reads the tags of the first page of a TIFF or BigTIFF file, in either byte order."""

import struct
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from spanets_runtime.decoding.decoded import Refused

SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
FILL_ORDER, STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_COUNTS = (
    *(266, 273, 274, 277),
    *(278, 279),
)
PLANAR, T4_OPTIONS, T6_OPTIONS, PREDICTOR, COLORMAP = 284, 292, 293, 317, 320
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, SUB_PAGES = 322, 323, 324, 325, 330
INK_SET, EXTRA, FORMAT, JPEG_TABLES, SUBSAMPLING, RANGES = 332, 338, 339, 347, 530, 532
XMP, DNG_VERSION = 700, 50706

_READ = {SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, STRIP_OFFSETS}
_READ |= {ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_COUNTS, PLANAR, T4_OPTIONS, T6_OPTIONS}
_READ |= {PREDICTOR, COLORMAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, SUB_PAGES}
_READ |= {INK_SET, EXTRA, FORMAT, JPEG_TABLES, SUBSAMPLING, RANGES, XMP, DNG_VERSION}

# NumPy's type names, without the byte order. A rational is two numbers.
_TYPES = {1: "u1", 2: "u1", 3: "u2", 4: "u4", 5: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4"}
_TYPES |= {10: "i4", 11: "f4", 12: "f8", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}
_PAIRS = {5, 10}

_MAX_ENTRIES = 4096
_MAX_BYTES = 2**24

_DAMAGED = "truncated or corrupt image (its tags are damaged)"


class Tags:
    """The tags of the first page that its pixels depend on.

    Attributes:
        order: Byte order, "<" or ">".
        has_more: Whether other pages follow.
        size: Size of the file, in bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.size = file.seek(0, 2)
        file.seek(0)
        head = file.read(16)
        self.order = "<" if head[:1] == b"I" else ">"
        is_big = 43 in head[2:4]
        self._values: dict[int, NDArray[Any]] = {}
        try:
            place = self._read_int(head[8:16] if is_big else head[4:8])
            self.has_more = self._read_page(file, place, is_big)
        except (struct.error, ValueError, OverflowError, OSError) as error:
            raise Refused(_DAMAGED) from error

    def _read_int(self, content: bytes) -> int:
        return int.from_bytes(content, "little" if self.order == "<" else "big")

    def _read_page(self, file: BinaryIO, place: int, is_big: bool) -> bool:
        entry, field, head = (20, 8, 8) if is_big else (12, 4, 2)
        file.seek(place)
        count = self._read_int(file.read(head))
        if not 0 < count <= _MAX_ENTRIES:
            raise Refused(_DAMAGED)
        content = file.read(count * entry + field)
        if len(content) < count * entry:
            raise Refused(_DAMAGED)
        for start in range(0, count * entry, entry):
            one = content[start : start + entry]
            tag, kind = self._read_int(one[:2]), self._read_int(one[2:4])
            if tag in _READ and kind in _TYPES and tag not in self._values:
                number = self._read_int(one[4 : 4 + field])
                self._values[tag] = self._read_values(file, kind, number, one[4 + field :])
        return self._read_int(content[count * entry :]) != 0

    def _read_values(self, file: BinaryIO, kind: int, count: int, inline: bytes) -> NDArray[Any]:
        dtype = np.dtype(self.order + _TYPES[kind])
        count *= 1 + (kind in _PAIRS)
        length = count * dtype.itemsize
        if length > _MAX_BYTES:
            raise Refused(_DAMAGED)
        if length > len(inline):
            file.seek(self._read_int(inline))
            inline = file.read(length)
        return np.frombuffer(inline[:length], dtype, count)

    def __contains__(self, tag: int) -> bool:
        return tag in self._values

    def array(self, tag: int) -> NDArray[Any]:
        """Returns all values of a tag; an empty array if it is missing."""
        return self._values.get(tag, np.empty(0, np.uint8))

    def all(self, tag: int) -> tuple[int, ...]:
        """Returns up to 64 values of a tag as integers."""
        return tuple(int(value) for value in self.array(tag)[:64])

    def one(self, tag: int, default: int) -> int:
        """Returns the first value of a tag, or `default` if it is missing."""
        return next(iter(self.all(tag)), default)

    def content(self, tag: int) -> bytes:
        """Returns the bytes of a tag."""
        return self.array(tag).tobytes()
