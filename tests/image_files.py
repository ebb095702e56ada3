"""Image files written by hand from numbers, so that no reader is its own judge."""

import struct
import zlib

import numpy as np

PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PASSES = (
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)),
    (1, 0, 2, 1),
)


def pack_rows(numbers: np.ndarray, bits: int, order: str = ">") -> list[bytes]:
    """Returns the bytes of each row of numbers (H, W * samples), the first in the upper bits."""
    rows = []
    for row in numbers.reshape(len(numbers), -1):
        if bits in (8, 16, 32):
            rows.append(row.astype(f"{order}u{bits // 8}").tobytes())
        else:
            text = "".join(format(int(number), f"0{bits}b") for number in row)
            text += "0" * (-len(text) % 8)
            rows.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    return rows


def png_chunk(kind: bytes, content: bytes, wrong: int = 0) -> bytes:
    checksum = zlib.crc32(kind + content) ^ wrong
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_file(
    numbers: np.ndarray,
    depth: int,
    colour: int,
    interlaced: bool = False,
    before: bytes = b"",
    after: bytes = b"",
    packed: bytes | None = None,
) -> bytes:
    """Writes numbers (H, W) or (H, W, samples) as PNG, with chunks before and after the data."""
    height, width = numbers.shape[:2]
    numbers = numbers.reshape(height, width, -1)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    raw = b""
    for top, left, down, right in PASSES if interlaced else ((0, 0, 1, 1),):
        part = numbers[top::down, left::right]
        if part.size:
            raw += b"".join(b"\0" + row for row in pack_rows(part, depth))
    data = png_chunk(b"IDAT", zlib.compress(raw) if packed is None else packed)
    start = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    return start + before + data + after + png_chunk(b"IEND", b"")


def packbits(content: bytes) -> bytes:
    """Packs bytes as literal runs."""
    runs = (content[i : i + 128] for i in range(0, len(content), 128))
    return b"".join(bytes([len(run) - 1]) + run for run in runs)


PACKERS = {1: bytes, 8: zlib.compress, 32946: zlib.compress, 32773: packbits}
_CODES = {"B": 1, "H": 3, "I": 4, "Q": 16}


def tiff_file(
    numbers: np.ndarray,
    bits: int,
    photometric: int,
    order: str = "<",
    *,
    big: bool = False,
    planar: bool = False,
    compression: int = 1,
    predictor: int = 1,
    tile: tuple[int, int] | None = None,
    rows: int | None = None,
    kind: int = 1,
    more: dict | None = None,
    mirrored: bool = False,
) -> bytes:
    """Writes numbers (H, W) or (H, W, samples) as a page of TIFF.

    Args:
        tile: Height and width.
        rows: Of a strip.
        kind: Of numbers: 1 without a sign, 2 with, 3 floating point.
        more: Other tags: a letter of `struct` and values.
    """
    height, width = numbers.shape[:2]
    numbers = numbers.reshape(height, width, -1)
    samples = numbers.shape[2]
    high, wide = tile or (rows or height, width)
    segments = []
    for part in np.split(numbers, samples, 2) if planar else [numbers]:
        if tile:
            part = np.pad(part, ((0, -height % high), (0, -width % wide), (0, 0)))
        for top in range(0, len(part), high):
            for left in range(0, part.shape[1], wide):
                piece = part[top : top + high, left : left + wide]
                if predictor == 2:
                    piece = np.diff(piece, axis=1, prepend=0) % 2**bits
                raw = b"".join(pack_rows(piece, bits, order))
                raw = bytes(int(f"{b:08b}"[::-1], 2) for b in raw) if mirrored else raw
                segments.append(PACKERS[compression](raw))
    tags = {256: ("I", [width]), 257: ("I", [height]), 258: ("H", [bits] * samples)}
    tags |= {259: ("H", [compression]), 262: ("H", [photometric]), 277: ("H", [samples])}
    tags |= {
        284: ("H", [2 if planar else 1]),
        317: ("H", [predictor]),
        339: ("H", [kind] * samples),
    }
    tags |= {322: ("I", [wide]), 323: ("I", [high])} if tile else {278: ("I", [high])}
    tags |= {266: ("H", [2])} if mirrored else {}
    tags |= more or {}
    starts = np.cumsum([16, *map(len, segments)])[:-1].tolist()
    offsets, counts = (324, 325) if tile else (273, 279)
    tags |= {offsets: ("I", starts), counts: ("I", list(map(len, segments)))}
    return _tiff_pages(tags, b"".join(segments), order, big)


def _tiff_pages(tags: dict, data: bytes, order: str, big: bool) -> bytes:
    data += b"\0" * (len(data) % 2)
    word, size, head = ("Q", 20, 8) if big else ("I", 12, 2)
    room = struct.calcsize(word)
    place = 16 + len(data)
    extra_at = place + head + size * len(tags) + room
    entries, extra = b"", b""
    for tag in sorted(tags):
        letter, values = tags[tag]
        body = struct.pack(f"{order}{len(values)}{letter}", *values)
        entries += struct.pack(f"{order}HH{word}", tag, _CODES[letter], len(values))
        if len(body) <= room:
            entries += body.ljust(room, b"\0")
        else:
            entries += struct.pack(order + word, extra_at + len(extra))
            extra += body
    mark = b"II" if order == "<" else b"MM"
    version = struct.pack(f"{order}HHH", 43, 8, 0) if big else struct.pack(f"{order}H", 42)
    start = (mark + version + struct.pack(order + word, place)).ljust(16, b"\0")
    count = struct.pack(order + ("Q" if big else "H"), len(tags))
    return start + data + count + entries + bytes(room) + extra


def bmp_file(
    rows: list[bytes],
    width: int,
    height: int,
    bits: int,
    *,
    compression: int = 0,
    palette: bytes = b"",
    masks: tuple[int, ...] = (),
    top_down: bool = False,
) -> bytes:
    """Writes rows, the uppermost first, as BMP; compressed data as one row."""
    rows = rows if top_down or compression in (1, 2) else rows[::-1]
    data = b"".join(row + bytes(-len(row) % 4) if compression in (0, 3) else row for row in rows)
    size = 40 if len(masks) < 4 else 108
    fields = struct.pack(
        *("<IiiHHIIiiII", size, width, -height if top_down else height, 1, bits, compression),
        *(len(data), 0, 0, len(palette) // 4, 0),
    )
    fields += struct.pack(f"<{len(masks)}I", *masks)
    fields = fields.ljust(size, b"\0") if size > 40 else fields
    start = 14 + len(fields) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + fields + palette + data
