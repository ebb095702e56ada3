"""Decodes JPEG as Pillow does, but refuses files whose data end early.

libjpeg fills missing pixels with gray, and Pillow does not report its warning. So this module feeds
each stretch of compressed data to the decoder separately, followed by extra bytes. If the stretch
is complete, the decoder looks for a marker and consumes these bytes one by one. If not, it waits
until it has enough bytes for a block.

This does not detect flipped bits in the data, nor one or two missing blocks of 8x8 pixels at the
end of a stretch.
"""

from io import BytesIO
from typing import Any, BinaryIO

from PIL import Image, ImageChops

from spanets_runtime.decoding.decoded import (
    Decoded,
    Refused,
    check_size,
    orientation_of,
    read_whole,
)
from spanets_runtime.decoding.jpeg_layout import CUT, END, Layout, read_layout

# Metadata that may hold the orientation.
_METADATA = frozenset({"exif", "xmp"})

# A decoder reads up to 57 bits ahead. The extra bits are ones, because no code consists of ones
# only, so they can replace almost no missing data. The zero after each 0xFF is byte stuffing.
_BEYOND = b"\xff\x00" * 8
_OTHER = b"\x00" * 8
_PROBES = 4


def read_jpeg(file: BinaryIO, max_pixels: int) -> Decoded:
    """Decodes the first JPEG image of a file.

    Raises:
        Refused: the image is too large, of a rare kind, or its data end early.
    """
    image = decode(read_whole(file), max_pixels)
    # `getexif` takes a hundredth of the decoding time, so skip it without metadata.
    has_metadata = bool(_METADATA & image.info.keys())
    return Decoded(image, "JPEG", orientation_of(image) if has_metadata else 1)


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """Decodes JPEG data to mode "L", "RGB" or "CMYK".

    Raises:
        Refused: See `read_jpeg`.
    """
    layout = read_layout(data)
    image = _decode(data, layout, max_pixels, _BEYOND)
    if layout.end is None:
        # Without an end marker, the extra bytes may have been decoded in place of missing data.
        again = _decode(data, layout, max_pixels, _OTHER)
        if ImageChops.difference(image, again).getbbox() is not None:
            raise Refused(CUT)
    return image


def _decode(data: bytes, layout: Layout, max_pixels: int, beyond: bytes) -> Image.Image:
    with Image.open(BytesIO(data), formats=("JPEG",)) as image:
        check_size(image.width, image.height, max_pixels)
        image.load_prepare()
        ((name, box, _, arguments),) = image.tile
        # A private name: Pillow's public loop does not show how many bytes the decoder consumed.
        decoder = Image._getdecoder(image.mode, name, arguments, image.decoderconfig)
        try:
            decoder.setimage(image.im, box)
            _feed(decoder, data, layout, beyond)
        finally:
            decoder.cleanup()
        image.tile = []
    return image


def _feed(decoder: Any, data: bytes, layout: Layout, beyond: bytes) -> None:
    """Feeds the stretches to the decoder.

    Raises:
        Refused: the data of a stretch end early.
    """
    rest, start = b"", 0
    for end in layout.stretches:
        is_done, rest = _take(decoder, rest + data[start:end] + beyond)
        if is_done:  # an image with one scan ends here
            return
        for _ in range(_PROBES):
            is_done, rest = _take(decoder, rest + b"\x55")
            if is_done or rest:
                raise Refused(CUT)
        start = end
    is_done, _ = _take(decoder, bytes((0xFF, END)))
    if not is_done:
        raise Refused(CUT)


def _take(decoder: Any, data: bytes) -> tuple[bool, bytes]:
    """Feeds data to the decoder; returns whether the image is complete, and the unused data."""
    used, error = decoder.decode(data)
    if error < 0:
        raise Refused("truncated or corrupt image (broken data)")
    return used < 0, data[max(used, 0) :]


def with_tables(data: bytes, tables: bytes, transform: int) -> bytes:
    """Builds a complete JPEG from a strip or tile of a TIFF file and its separate tables.

    Args:
        data: The strip or tile, with start and end markers.
        tables: The tables, with start and end markers, or empty.
        transform: Adobe's number of the colour transform: 0 none, 1 YCbCr.
    """
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
    return b"\xff\xd8" + adobe + tables[2:-2] + data[2:]
