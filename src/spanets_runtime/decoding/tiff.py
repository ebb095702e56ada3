"""Decodes TIFF with samples of 1 to 16 bits, strictly by the tags.

Pillow's own reader treats 12 bits as 16, leaves 16-bit white-is-zero inverted, and mixes up planes
of 16 bits. So Pillow only uncompresses here.
"""

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets_runtime.decoding import tiff_segments as segments
from spanets_runtime.decoding import tiff_tags as tag
from spanets_runtime.decoding.decoded import MAX_PIXELS, Decoded, Refused
from spanets_runtime.decoding.jpeg import decode as decode_jpeg
from spanets_runtime.decoding.jpeg import with_tables
from spanets_runtime.decoding.tiff_page import (
    CMYK,
    LAB,
    PALETTE,
    PIECE_BYTES,
    RGB,
    WHITE_IS_ZERO,
    YCBCR,
    Page,
)
from spanets_runtime.decoding.tiff_tags import Tags

_MODES = {RGB: "RGB", PALETTE: "P", CMYK: "CMYK", YCBCR: "YCbCr", LAB: "LAB"}


def read_tiff(file: BinaryIO, max_pixels: int) -> Decoded:
    """Decodes the first page of a TIFF file.

    Raises:
        Refused: the image is too large, damaged or of an unsupported kind.
    """
    tags = Tags(file)
    page = Page.parse(tags, max_pixels)
    pixels = _read_samples(file, page, tags)
    image = _to_image(pixels, page, tags)
    is_single = page.samples == 1
    return Decoded(
        image,
        "JPEG" if page.compression == segments.JPEG else "TIFF",
        _orientation(tags),
        top=2**page.bits - 1 if is_single and page.photometric != PALETTE else 255,
        scaled=image.mode == "L" and is_single and page.bits < 8,
        white_is_zero=page.photometric == WHITE_IS_ZERO and is_single,
        bits=page.bits,
    )


def _read_samples(file: BinaryIO, page: Page, tags: Tags) -> NDArray[Any]:
    """Returns the samples (H, W, samples).

    A single sample of more than 8 bits, and palette indices, keep their stored numbers. All other
    samples are scaled to 8 bits.
    """
    is_wide = page.samples == 1 and page.bits > 8
    dtype = np.uint8 if not is_wide else np.uint16 if page.bits <= 16 else page.dtype
    samples = np.empty((page.height, page.width, page.samples), np.dtype(dtype).newbyteorder("="))
    for (top, left, plane), part in _parts(file, page, tags):
        into = samples[top : top + len(part), left : left + part.shape[1]]
        into = into[..., plane : plane + part.shape[2]]
        part = part[: into.shape[0], : into.shape[1]]
        if is_wide or page.bits == 8 or page.photometric == PALETTE:
            into[:] = part
        elif page.bits > 8:
            np.right_shift(part, page.bits - 8, out=into, casting="unsafe")
        else:
            into[:] = _stretched(part, page.bits)
    return samples


def _stretched(samples: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Scales numbers of up to 8 bits to 0..255."""
    return (samples * (255 / (2**bits - 1)) + 0.5).astype(np.uint8)


Place = tuple[int, int, int]


def _parts(file: BinaryIO, page: Page, tags: Tags) -> Iterator[tuple[Place, NDArray[Any]]]:
    """Yields the segments (rows, columns, samples), with row, column and sample of their start."""
    rows, columns = page.segment
    across, down = -(-page.width // columns), -(-page.height // rows)
    last = rows if page.is_tiled else page.height - (down - 1) * rows
    for plane in range(page.samples // page.in_plane):
        first = plane * across * down
        for start, stop in _batches(across * down, rows * page.row_bytes, last < rows):
            high = last if start == across * down - 1 else rows
            packed = [_read_segment(file, page, first + n) for n in range(start, stop)]
            found = _unpack(packed, page, tags, high)
            for i in range(stop - start):
                line, column = divmod(start + i, across)
                place = (line * rows, column * columns, plane)
                yield place, found[i * high : (i + 1) * high]


def _batches(count: int, size: int, is_last_short: bool) -> Iterator[tuple[int, int]]:
    """Divides `count` segments into batches; the last segment is separate if it is shorter."""
    at_once = max(1, PIECE_BYTES // size)
    end = count - is_last_short
    yield from ((start, min(start + at_once, end)) for start in range(0, end, at_once))
    if is_last_short:
        yield end, count


def _read_segment(file: BinaryIO, page: Page, number: int) -> bytes:
    offset, length = page.places[number].tolist()
    file.seek(offset)
    content = file.read(length)
    is_mirrored = page.is_mirrored and page.compression != segments.JPEG
    return segments.mirror_bits(content) if is_mirrored else content


def _unpack(packed: list[bytes], page: Page, tags: Tags, rows: int) -> NDArray[Any]:
    """Returns the samples of segments of `rows` rows each, concatenated."""
    columns = page.segment[1]
    if page.compression == segments.JPEG:
        return np.concatenate([_decode_jpeg(one, page, tags, rows) for one in packed])
    names = (tag.T4_OPTIONS, tag.T6_OPTIONS)
    options = [(name, tags.one(name, 0)) for name in names if name in tags]
    content = segments.unpack(packed, page.compression, rows, page.row_bytes, columns, options)
    count = columns * page.in_plane
    samples = _numbers(content, page, count).reshape(len(content), columns, page.in_plane)
    return np.cumsum(samples, axis=1, dtype=samples.dtype) if page.differences else samples


def _numbers(content: NDArray[np.uint8], page: Page, count: int) -> NDArray[Any]:
    """Returns `count` numbers of each row of bytes: (rows, count)."""
    if page.bits in (8, 16, 32):
        return content.view(page.dtype).astype(page.dtype.newbyteorder("="), copy=False)
    if page.bits in (1, 2, 4):
        shifts = np.arange(8 - page.bits, -1, -page.bits, dtype=np.uint8)
        parts = content[..., None] >> shifts & np.uint8(2**page.bits - 1)
        return parts.reshape(len(content), -1)[:, :count]
    found = np.empty((len(content), count), np.uint16)
    padded = np.zeros((count, 16), np.uint8)
    for row, line in enumerate(content):
        bits = np.unpackbits(line, count=count * page.bits)
        padded[:, 16 - page.bits :] = bits.reshape(count, page.bits)
        found[row] = np.packbits(padded, axis=1).view(">u2")[:, 0]
    return found


def _decode_jpeg(packed: bytes, page: Page, tags: Tags, rows: int) -> NDArray[Any]:
    whole = with_tables(packed, tags.content(tag.JPEG_TABLES), int(page.photometric == YCBCR))
    image = decode_jpeg(whole, MAX_PIXELS)
    columns = page.segment[1]
    pixels = np.asarray(image).reshape(image.height, image.width, -1)[:rows, :columns]
    if pixels.shape != (rows, columns, page.in_plane):
        raise Refused("truncated or corrupt image (a strip or tile of another size)")
    return 255 - pixels if image.mode == "CMYK" else pixels  # Pillow assumes Adobe's inverted CMYK


def _to_image(samples: NDArray[Any], page: Page, tags: Tags) -> Image.Image:
    """Returns the samples as an image with the right mode."""
    if page.samples == 1 and page.photometric != PALETTE:
        return _to_gray(samples[..., 0])
    mode = _MODES.get(page.photometric, "L")
    if page.compression == segments.JPEG and mode == "YCbCr":
        mode = "RGB"
    colours = samples[..., : page.colours]
    if page.photometric == WHITE_IS_ZERO:
        colours = 255 - colours
    image = _image_of(colours, mode)
    if mode == "P":
        image.putpalette(_palette(tags))
    if page.alpha is None:
        return image
    place, is_multiplied = page.alpha
    alpha = samples[..., place, None]
    if page.photometric == PALETTE:  # its samples are not scaled yet
        alpha = _stretched(alpha, page.bits)
    if mode in ("P", "CMYK"):
        colours, mode = np.asarray(image.convert("RGB")), "RGB"
    mode += "a" if is_multiplied else "A"
    return _image_of(np.concatenate([colours, alpha], axis=2), mode)


def _to_gray(samples: NDArray[Any]) -> Image.Image:
    if samples.dtype.itemsize == 4:
        if samples.min() < 0 or samples.max() > 0xFFFF:
            raise Refused("32-bit integer pixels have no fixed range; save it with 8 or 16 bits")
        samples = samples.astype(np.uint16)
    return Image.fromarray(samples)


def _image_of(samples: NDArray[Any], mode: str) -> Image.Image:
    height, width = samples.shape[:2]
    return Image.frombuffer(mode, (width, height), np.ascontiguousarray(samples), "raw", mode, 0, 1)


def _palette(tags: Tags) -> bytes:
    """Returns red, green and blue of each entry; some writers use 8 bits instead of 16."""
    table = tags.array(tag.COLORMAP).reshape(3, -1).T
    return (table if table.max() < 256 else table >> 8).astype(np.uint8).tobytes()


def _orientation(tags: Tags) -> int:
    if tag.ORIENTATION in tags:
        return tags.one(tag.ORIENTATION, 1)
    found = re.search(rb'tiff:Orientation(?:="|>)([0-9])', tags.content(tag.XMP))
    return int(found[1]) if found else 1
