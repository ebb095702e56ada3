"""Decodes PNG from the chunks that the pixels need; ignores all others.

Pillow alone would refuse an image because of a large or damaged text or profile. It also compares a
transparent colour of 16 bits, or of less than 8, with wrongly scaled pixels.
"""

import struct
import zlib
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets_runtime.decoding.decoded import Decoded, Refused, check_size, orientation_of

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})

# Texts that may hold the orientation.
_KEYWORDS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")

# Limit of a metadata chunk in bytes, compressed and uncompressed.
_MAX_METADATA = 2**20

# More than any writer needs for the largest image; each chunk takes about a microsecond.
_MAX_CHUNKS = 2**21

_PIECE = 2**16
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

# The seven passes of an interlaced image: first row, first column, row step, column step.
_PASSES = (
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
    *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
)


class Header(NamedTuple):
    """The fields of the IHDR chunk."""

    width: int
    height: int
    depth: int
    colour: int
    compression: int
    filtering: int
    interlace: int

    def raw_bytes(self) -> int:
        """Returns the size of the filtered rows, in bytes."""
        bits = self.depth * _SAMPLES.get(self.colour, 4)
        passes = _PASSES if self.interlace else ((0, 0, 1, 1),)
        total = 0
        for top, left, down, right in passes:
            rows = -(-(self.height - top) // down)
            columns = -(-(self.width - left) // right)
            if rows > 0 and columns > 0:
                total += rows * (1 + -(-columns * bits // 8))
        return total


@dataclass
class _Chunks:
    """A PNG file in memory with only the chunks to keep."""

    header: Header
    key: bytes | None = None  # the transparent colour
    cleaned: BytesIO = field(default_factory=BytesIO)
    data: list[tuple[int, int]] = field(default_factory=list)  # offset, length

    def add(self, kind: bytes, content: bytes) -> None:
        if kind == b"IDAT":
            self.data.append((self.cleaned.tell() + 8, len(content)))
        self.cleaned.write(struct.pack(">I", len(content)) + kind)
        self.cleaned.write(content)
        self.cleaned.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))


def read_png(file: BinaryIO, max_pixels: int) -> Decoded:
    """Decodes a PNG image; for an animation, the default image.

    Raises:
        Refused: the image is too large, or damaged in a part that the pixels need.
    """
    chunks = _read_chunks(file, max_pixels)
    header = chunks.header
    with Image.open(chunks.cleaned, formats=("PNG",)) as image:
        image.load()
        _check_rows(image, chunks)
        hidden = None if chunks.key is None else _match(image, chunks)
        return Decoded(
            image,
            "PNG",
            orientation_of(image),
            top=2**header.depth - 1 if header.colour == 0 else 255,
            scaled=header.colour == 0 and header.depth in (2, 4),
            bits=header.depth,
            hidden=hidden,
        )


def read_deep_png(file: BinaryIO, max_pixels: int) -> tuple[NDArray[np.uint16], int] | None:
    """Decodes colours of 16 bits, which Pillow reduces to 8.

    Returns:
        The pixels (H, W, C) and the EXIF orientation; None for other images, see `read_png`.

    Raises:
        Refused: see `read_png`; or gray of 16 bits with alpha.
    """
    chunks = _read_chunks(file, max_pixels)
    if chunks.header.depth != 16 or chunks.header.colour == 0:
        return None
    if chunks.header.colour == 4:
        raise Refused("a PNG of 16-bit gray with alpha; save it without alpha")
    with Image.open(chunks.cleaned, formats=("PNG",)) as image:
        image.load()
        _check_rows(image, chunks)
        pixels = np.asarray(image).astype(np.uint16)
        pixels <<= 8
        pixels |= _lower_bytes(chunks)
        return pixels, orientation_of(image)


def _read_chunks(file: BinaryIO, max_pixels: int) -> _Chunks:
    file.seek(len(SIGNATURE))
    kind, length = _next(file) or (b"", 0)
    content = _content(file, kind, length) if (kind, length) == (b"IHDR", 13) else None
    if content is None:
        raise Refused("truncated or corrupt image (it does not begin with a header)")
    chunks = _Chunks(Header(*struct.unpack(">IIBBBBB", content)))
    check_size(chunks.header.width, chunks.header.height, max_pixels)
    chunks.cleaned.write(SIGNATURE)
    chunks.add(kind, content)
    limit = 2 * chunks.header.raw_bytes() + _MAX_METADATA  # compression adds little
    for _ in range(_MAX_CHUNKS):
        found = _next(file)
        if found is None or found[0] == b"IEND":
            break
        if not chunks.data and not found[0].isalpha():
            raise Refused("truncated or corrupt image (no chunk where one must be)")
        if found[0] in _CRITICAL and chunks.cleaned.tell() + found[1] > limit:
            raise Refused("truncated or corrupt image (more data than pixels)")
        if found[0] == b"IHDR":
            raise Refused("truncated or corrupt image (a second header)")
        _take(file, *found, chunks)
    chunks.add(b"IEND", b"")
    chunks.cleaned.seek(0)
    return chunks


def _next(file: BinaryIO) -> tuple[bytes, int] | None:
    """Reads the kind and length of the next chunk; None at the end of the file."""
    head = file.read(8)
    return None if len(head) < 8 else (head[4:], int.from_bytes(head[:4], "big"))


def _take(file: BinaryIO, kind: bytes, length: int, chunks: _Chunks) -> None:
    """Keeps a chunk if the pixels need it, or skips it."""
    header = chunks.header
    is_transparency = kind == b"tRNS" and length <= 256
    is_metadata = kind in _TEXTS | {b"eXIf"} and length <= _MAX_METADATA
    if kind not in _CRITICAL and not (is_transparency or is_metadata):
        if kind[0:1].isupper() and not chunks.data:
            name = kind.decode("ascii")
            raise Refused(f"a PNG with the unknown critical chunk {name}; save it again")
        file.seek(length + 4, 1)
        return
    content = _content(file, kind, length)
    if content is None:  # ignore a damaged ancillary chunk
        return
    if kind == b"tRNS" and header.colour in (0, 2):
        chunks.key = content
    elif kind in _CRITICAL or kind in (b"tRNS", b"eXIf") or _tells_orientation(kind, content):
        chunks.add(kind, content)


def _content(file: BinaryIO, kind: bytes, length: int) -> bytes | None:
    """Reads the content of a chunk; None for a damaged ancillary chunk.

    Data that end early are left to the decoder, which knows whether pixels are missing.

    Raises:
        Refused: a critical chunk is damaged.
    """
    content = file.read(length)
    checksum = file.read(4)
    if len(checksum) < 4:
        return content if kind == b"IDAT" else None
    if zlib.crc32(content, zlib.crc32(kind)) == int.from_bytes(checksum, "big"):
        return content
    if kind in _CRITICAL:
        raise Refused(f"truncated or corrupt image (the checksum of its {kind.decode()} is wrong)")
    return None


def _tells_orientation(kind: bytes, content: bytes) -> bool:
    """Returns whether a text chunk holds EXIF or XMP, small enough for Pillow."""
    keyword = next((word for word in _KEYWORDS if content.startswith(word)), None)
    if keyword is None:
        return False
    packed = b""
    if kind == b"zTXt":
        packed = content[len(keyword) + 1 :]
    elif kind == b"iTXt" and content[len(keyword) : len(keyword) + 1] == b"\1":
        *_, packed = content[len(keyword) + 2 :].split(b"\0", 2)
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(packed, _MAX_METADATA // 2)
    except zlib.error:
        return False
    return not unpacking.unconsumed_tail


def _check_rows(image: Image.Image, chunks: _Chunks) -> None:
    """Refuses compressed data that end before the last row; Pillow would leave the rest black."""
    header = chunks.header
    last = image.crop((0, header.height - 1, header.width, header.height))
    if not header.interlace and last.getbbox() is not None:
        return  # rows are in order, so all before the last one are there too
    unpacking, count, view = zlib.decompressobj(), 0, chunks.cleaned.getbuffer()
    for start, length in chunks.data:
        for place in range(start, start + length, _PIECE):
            count += len(unpacking.decompress(view[place : min(place + _PIECE, start + length)]))
    if count < header.raw_bytes():
        raise Refused("truncated or corrupt image (it holds less than its size)")


def _match(image: Image.Image, chunks: _Chunks) -> NDArray[np.bool_] | None:
    """Returns a mask (H, W) of the pixels with the transparent colour, by their stored numbers."""
    header, key = chunks.header, chunks.key
    assert key is not None
    if len(key) != 2 * _SAMPLES[header.colour]:
        return None
    wanted = np.frombuffer(key, ">u2") & (2**header.depth - 1)
    pixels: NDArray[Any] = np.asarray(image)
    if header.colour == 0:
        if header.depth in (2, 4):
            pixels = pixels // (255 // (2**header.depth - 1))
        return pixels == wanted[0]
    if header.depth == 16:
        hidden = (pixels == wanted >> 8).all(-1)
        return hidden & (_lower_bytes(chunks) == wanted & 255).all(-1) if hidden.any() else hidden
    return (pixels == wanted).all(-1)


def _lower_bytes(chunks: _Chunks) -> NDArray[np.uint8]:
    """Decodes 16-bit colour again, to get the lower bytes that Pillow drops."""
    chunks.cleaned.seek(0)
    with Image.open(chunks.cleaned, formats=("PNG",)) as image:
        # The other byte order makes Pillow keep the lower bytes.
        raw = f"{image.mode};16L"
        tiles: Any = [(name, box, place, raw) for name, box, place, *_ in image.tile]
        image.tile = tiles
        image.load()
        return np.asarray(image)
