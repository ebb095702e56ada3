"""Uncompresses the strips or tiles of a TIFF page."""

import struct
import zlib
from collections.abc import Iterable, Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets_runtime.decoding.decoded import Refused

NONE, FAX, JPEG, DEFLATE = 1, frozenset({2, 3, 4}), 7, frozenset({8, 32946})
LIBTIFF = {5: "LZW", 32773: "PackBits", 34925: "LZMA", 50000: "Zstandard"}
"""Compressions that libtiff unpacks, through Pillow."""

PREDICTED = {5, *DEFLATE, 34925, 50000}
"""Compressions that may use a predictor, which stores differences of samples."""

KNOWN = {NONE, JPEG, *FAX, *DEFLATE, *LIBTIFF}

_MIRRORED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
_CUT = "truncated or corrupt image (it holds less than its size)"


def mirror_bits(content: bytes) -> bytes:
    """Reverses the bits of each byte, for files with the first pixel in the lowest bit."""
    return content.translate(_MIRRORED)


def unpack(
    segments: Sequence[bytes],
    compression: int,
    rows: int,
    row_bytes: int,
    width: int,
    options: Iterable[tuple[int, int]] = (),
) -> NDArray[np.uint8]:
    """Uncompresses segments of one size.

    Args:
        segments: The compressed segments.
        compression: TIFF's number of the compression, one of `KNOWN` except JPEG.
        rows: Number of rows of each segment.
        row_bytes: Size of a row, in bytes.
        width: Width of a row in pixels, which fax codes need.
        options: Tags that the compression depends on, with their values.

    Returns:
        The rows of all segments, (segments * rows, row_bytes).

    Raises:
        Refused: a segment holds too little data.
    """
    size = rows * row_bytes
    if compression == NONE:
        content = b"".join(_checked(segment, size) for segment in segments)
    elif compression in DEFLATE:
        content = b"".join(_inflate(segment, size) for segment in segments)
    else:
        bits = 1 if compression in FAX else 8
        side = width if bits == 1 else row_bytes
        file = _gray_tiff(segments, compression, rows, side, bits, options)
        with Image.open(file, formats=("TIFF",)) as image:
            content = image.tobytes()
    return np.frombuffer(content, np.uint8).reshape(len(segments) * rows, row_bytes)


def _checked(content: bytes, size: int) -> bytes:
    if len(content) < size:
        raise Refused(_CUT)
    return content[:size]


def _inflate(segment: bytes, size: int) -> bytes:
    try:
        return _checked(zlib.decompressobj().decompress(segment, size), size)
    except zlib.error as error:
        raise Refused(f"truncated or corrupt image ({error})") from error


def _gray_tiff(
    segments: Sequence[bytes],
    compression: int,
    rows: int,
    width: int,
    bits: int,
    options: Iterable[tuple[int, int]],
) -> BytesIO:
    """Writes a TIFF file with the segments as strips of gray pixels.

    libtiff then only uncompresses the bytes and does not interpret them.
    """
    count = len(segments)
    tags = {256: width, 257: rows * count, 258: bits, 259: compression, 262: 1, 277: 1, 278: rows}
    tags |= dict(options)
    lengths = [len(segment) for segment in segments]
    entries = 2 + len(tags)
    lists_at = 8 + 2 + 12 * entries + 4
    data_at = lists_at + (8 * count if count > 1 else 0)
    offsets = [data_at + sum_ for sum_ in _running_sums(lengths)]
    table = {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()}
    for number, (tag, values) in enumerate(((273, offsets), (279, lengths))):
        value = values[0] if count == 1 else lists_at + 4 * count * number
        table[tag] = struct.pack("<HHII", tag, 4, count, value)
    lists = struct.pack(f"<{2 * count}I", *offsets, *lengths) if count > 1 else b""
    page = struct.pack("<H", entries) + b"".join(table[tag] for tag in sorted(table)) + bytes(4)
    return BytesIO(b"II*\0" + struct.pack("<I", 8) + page + lists + b"".join(segments))


def _running_sums(lengths: Sequence[int]) -> list[int]:
    return [0, *np.cumsum(lengths[:-1], dtype=np.int64).tolist()]
