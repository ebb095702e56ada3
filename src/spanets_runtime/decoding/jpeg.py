"""JPEG: decoded as Pillow does, but refused where libjpeg would fill in what is missing.

libjpeg fills a picture whose data end early with gray, and says so in a warning that Pillow does
not pass on. Here each stretch of compressed data is handed to the decoder by itself, and followed
by bytes that no complete stretch needs: a decoder that has all pixels of the stretch is looking for
a marker, and takes byte after byte; one that lacks some waits until it has enough for a block.

Not found: flipped bits in the data, and one or two blocks of 8x8 pixels at the end of a stretch.
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

# What of a JPEG may tell its orientation.
_METADATA = frozenset({"exif", "xmp"})

# A decoder asks for up to 57 bits beyond those that it uses. Ones, since no code consists of them:
# of what is missing they stand for next to nothing. The zero after each 0xFF is no data.
_BEYOND = b"\xff\x00" * 8
_OTHER = b"\x00" * 8
_PROBES = 4


def read_jpeg(file: BinaryIO, max_pixels: int) -> Decoded:
    """Decodes a JPEG image, of several in a file the first.

    Raises:
        Refused: too large, of a rare kind, or its data end early.
    """
    image = decode(read_whole(file), max_pixels)
    # All that could tell it is there by now; to look takes a hundredth of decoding.
    has_metadata = bool(_METADATA & image.info.keys())
    return Decoded(image, "JPEG", orientation_of(image) if has_metadata else 1)


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """Decodes JPEG data to mode "L", "RGB" or "CMYK".

    Raises:
        Refused: as for `read_jpeg`.
    """
    layout = read_layout(data)
    image = _decode(data, layout, max_pixels, _BEYOND)
    if layout.end is None:
        # The bytes that follow then stood for data, if any was missing.
        again = _decode(data, layout, max_pixels, _OTHER)
        if ImageChops.difference(image, again).getbbox() is not None:
            raise Refused(CUT)
    return image


def _decode(data: bytes, layout: Layout, max_pixels: int, beyond: bytes) -> Image.Image:
    with Image.open(BytesIO(data), formats=("JPEG",)) as image:
        check_size(image.width, image.height, max_pixels)
        image.load_prepare()
        ((name, box, _, arguments),) = image.tile
        # Pillow's own name, for its loop over a file does not say what the decoder has taken.
        decoder = Image._getdecoder(image.mode, name, arguments, image.decoderconfig)
        try:
            decoder.setimage(image.im, box)
            _feed(decoder, data, layout, beyond)
        finally:
            decoder.cleanup()
        image.tile = []
    return image


def _feed(decoder: Any, data: bytes, layout: Layout, beyond: bytes) -> None:
    """Hands the decoder one stretch after the other.

    Raises:
        Refused: the data of one end early.
    """
    rest, start = b"", 0
    for end in layout.stretches:
        is_done, rest = _take(decoder, rest + data[start:end] + beyond)
        if is_done:  # a picture of one scan, which needs no more
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
    """Hands data to the decoder; returns whether it has the picture, and what it has not used."""
    used, error = decoder.decode(data)
    if error < 0:
        raise Refused("truncated or corrupt image (broken data)")
    return used < 0, data[max(used, 0) :]


def with_tables(data: bytes, tables: bytes, transform: int) -> bytes:
    """Returns a whole JPEG from a strip or tile of a TIFF file, whose tables stand elsewhere.

    Args:
        data: With its own start and end.
        tables: With start and end of their own, or none.
        transform: Of colours, as Adobe numbers it: 0 none, 1 YCbCr.
    """
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
    return b"\xff\xd8" + adobe + tables[2:-2] + data[2:]
