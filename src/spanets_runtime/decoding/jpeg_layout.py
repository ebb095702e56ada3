"""Reads the markers of a JPEG image: its kind, and the positions of its compressed data."""

import re
from dataclasses import dataclass, field

from spanets_runtime.decoding.decoded import Refused

END = 0xD9
_START, _SCAN, _INTERVAL = 0xD8, 0xDA, 0xDD
_RESTARTS = range(0xD0, 0xD8)
_ALONE = {0x01, _START, *_RESTARTS}
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_READ = {0xC0, 0xC1, 0xC2}
_KINDS = {0xC3: "lossless", 0xC9: "arithmetic", 0xCA: "arithmetic", 0xCB: "lossless"}

# `re` is fast for a pattern with a literal first byte and no repetition.
_MARKER = re.compile(rb"\xff[\x01-\xfe]")

# A scan of ten bytes may cost the decoder a pass over the whole image.
_MAX_SCANS = 500

CUT = "truncated or corrupt image (its data end before its last pixels)"


@dataclass
class Layout:
    """The structure of a JPEG image.

    Attributes:
        stretches: End offsets of the stretches of compressed data; each is at a marker.
        end: Offset of the end marker, or None.
        size: Width and height, in pixels.
        factors: By component, the horizontal and vertical sampling factors.
        missing: By component, the number of missing bits of each of its 64 coefficients.
        interval: Units between restart markers; 0 for none.
        scans: Number of scans.
        due: Number of restart markers that the scan still needs.
    """

    stretches: list[int] = field(default_factory=list)
    end: int | None = None
    size: tuple[int, int] = (0, 0)
    factors: dict[int, tuple[int, int]] = field(default_factory=dict)
    missing: dict[int, list[int]] = field(default_factory=dict)
    interval: int = 0
    scans: int = 0
    due: int = 0

    def is_whole(self) -> bool:
        """Returns whether the scans contain every bit of every coefficient."""
        return not any(map(any, self.missing.values()))

    def add_frame(self, body: bytes) -> None:
        """Reads the image size and the components."""
        self.size = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
        for number, factors, _ in zip(body[6::3], body[7::3], body[8::3], strict=False):
            self.factors[number] = max(1, factors >> 4), max(1, factors & 15)
            self.missing[number] = [1] * 64

    def begin_scan(self, body: bytes) -> None:
        """Reads a scan's components and coefficients."""
        self.scans += 1
        if self.scans > _MAX_SCANS:
            raise Refused(f"a JPEG of more than {_MAX_SCANS} scans")
        count = body[0] if body else 0
        numbers = [n for n in body[1 : 1 + 2 * count : 2] if n in self.factors]
        first, last, bits = (*body[1 + 2 * count :], 0, 63, 0)[:3]
        for number in numbers:
            for place in range(first, min(last, 63) + 1):
                self.missing[number][place] = bits & 15
        self.due = 0
        if self.interval and numbers:
            self.due = max(0, -(-self._blocks(numbers) // self.interval) - 1)

    def _blocks(self, numbers: list[int]) -> int:
        """Returns the number of units in a scan of these components."""
        across = max(x for x, _ in self.factors.values())
        down = max(y for _, y in self.factors.values())
        width, height = self.size
        if len(numbers) > 1:
            return -(-width // (8 * across)) * -(-height // (8 * down))
        own = self.factors[numbers[0]]
        columns, rows = -(-width * own[0] // across), -(-height * own[1] // down)
        return -(-columns // 8) * -(-rows // 8)


def read_layout(data: bytes) -> Layout:
    """Reads the markers of a file's first image.

    Raises:
        Refused: the kind of JPEG is not supported, or the image is missing or incomplete.
    """
    layout, place, in_scan = Layout(), 2, False
    while found := _MARKER.search(data, place):
        place, marker = found.end(), data[found.end() - 1]
        if in_scan:
            layout.stretches.append(found.start())
            layout.due -= marker in _RESTARTS
        if marker in _ALONE:
            continue
        if in_scan and layout.due > 0:
            raise Refused(CUT)
        if marker == END:
            layout.end = found.start()
            break
        length = int.from_bytes(data[place : place + 2], "big")
        in_scan = _read_segment(marker, data[place + 2 : place + length], layout)
        place += length
    else:
        if in_scan:
            layout.stretches.append(len(data))
    if not layout.stretches:
        raise Refused("truncated or corrupt image (it holds no picture)")
    if layout.end is None and (layout.due > 0 or not layout.is_whole()):
        raise Refused(CUT)
    return layout


def _read_segment(marker: int, body: bytes, layout: Layout) -> bool:
    """Reads a marker's segment into `layout`; returns whether compressed data follow."""
    if marker in _FRAMES:
        if marker not in _READ:
            kind = _KINDS.get(marker, "hierarchical or arithmetic")
            raise Refused(f"a JPEG of a rare kind ({kind}), which is not read; save it as PNG")
        if body[:1] not in (b"\x08", b""):
            raise Refused(f"a JPEG of {body[0]} bits, only 8 are supported; save it as PNG")
        layout.add_frame(body)
    elif marker == _INTERVAL:
        layout.interval = int.from_bytes(body[:2], "big")
    elif marker == _SCAN:
        layout.begin_scan(body)
    return marker == _SCAN
