"""Where the pixels of a JPEG end in the data of its scans (ITU-T T.81, annexes F and G).

Decoders skip what follows the code of the last block of a scan, so it can hold any text. Where that code ends is only known after all
codes were read, which takes seconds in Python. It is therefore only done if the last bytes of a scan are without effect on the pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from lung_nodule_ct.formats.picture_parts import MARKER, Part

_SOS, _EOI, _DHT, _DRI, _ALONE = 0xDA, 0xD9, 0xC4, 0xDD, (0x01, 0xD8)
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_FRAMES = frozenset(range(0xC0, 0xD0)) - {_DHT, 0xC8, 0xCC}
_TAIL = 4
_MAX_SCANS = 64

Codes = Mapping[tuple[int, int], int]
"""The symbol of each Huffman code, by its length and value."""


def find_scan_tails(data: bytes, has_same_pixels: Callable[[bytes], bool]) -> list[Part]:
    """Return the data between the end of the pixels of each scan of a JPEG and the marker that follows.

    Args:
        data: The picture, without metadata.
        has_same_pixels: Whether other data decode to the same pixels.

    Raises:
        ValueError: The end of a scan cannot be determined, or there are more than 64 scans.
    """
    scans = list(_scans_of(data)) if data.startswith(b"\xff\xd8") else []
    if len(scans) > _MAX_SCANS:
        raise ValueError(f"expected at most {_MAX_SCANS} scans, got {len(scans)}")
    if not any(
        has_same_pixels(data[: end - _TAIL] + data[end:]) for _, _, end in scans if data[end - _TAIL : end].strip(b"\0")
    ):
        return []
    tails = []
    frame = _Frame()
    try:
        for segments, start, end in scans:
            for code, content in segments:
                frame.read(code, content)
            last = frame.end_of_scan(data[start:end]) + start
            if data[last:end].strip(b"\0"):
                replacement = b"" if data[end:] else b"\xff\xd9"  # the end of the picture was missing
                tails.append(Part("data behind a scan", last, end, data[last:end], replacement))
    except (LookupError, ValueError, struct.error) as error:
        raise ValueError("data behind the pixels of a scan, whose end cannot be found") from error
    return tails


def flat_ending(head: bytes, length: int) -> int:
    """Return the last bits of a scan of baseline coding that ends with flat blocks, each like the one before it.

    Args:
        head: A JPEG up to the data of its first scan.
        length: Number of bits.

    Raises:
        ValueError: The scan is of another coding, or is not the only one.
        LookupError: A table or a component is missing.
    """
    frame = _Frame()
    segments, _, _ = next(_scans_of(head))
    try:
        for code, content in segments:
            frame.read(code, content)
    except struct.error as error:
        raise ValueError("a segment that is too short") from error
    codes = frame.codes_of_flat_blocks()
    return int((codes * length)[-length:], 2)


_Segments = list[tuple[int, bytes]]


def _scans_of(data: bytes) -> Iterator[tuple[_Segments, int, int]]:
    """The segments before each scan, its own included, and start and end of its data."""
    segments: _Segments = []
    at = 2
    while marker := MARKER.search(data, at):
        code, at = marker[1][0], marker.end()
        if code == _EOI:
            return
        if code in _ALONE:
            continue
        begin = at + 2
        at += max(2, int.from_bytes(data[at:begin], "big"))
        segments.append((code, data[begin:at]))
        if code == _SOS:
            following = MARKER.search(data, at)
            yield segments, at, following.start() if following else len(data)
            segments = []


class _EndOfDataError(Exception):
    """A scan ends before its last block: decoders fill up what is missing."""


class _Bits:
    """The bits of a scan, without the zeros that follow each FF."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self._byte = self._left = 0

    def bit(self) -> int:
        if not self._left:
            if self.at >= len(self.data):
                raise _EndOfDataError
            self._byte, self._left = self.data[self.at], 8
            self.at += 1
            if self._byte == 0xFF:
                if self.data[self.at : self.at + 1] != b"\0":
                    raise _EndOfDataError
                self.at += 1
        self._left -= 1
        return self._byte >> self._left & 1

    def bits(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self.bit()
        return value

    def symbol(self, codes: Codes) -> int:
        code = 0
        for length in range(1, 17):
            code = code << 1 | self.bit()
            if (symbol := codes.get((length, code))) is not None:
                return symbol
        raise ValueError("no Huffman code")

    def restart(self) -> None:
        """Go on behind the next restart marker."""
        self._left = 0
        if not self.data[self.at : self.at + 1] == b"\xff":
            raise ValueError("no restart marker")
        self.at += 2


@dataclass
class _Component:
    """One component: its sampling factors, and which of its coefficients are not zero in the scans so far."""

    across: int
    down: int
    known: dict[int, bytearray] = field(default_factory=dict)


class _Frame:
    """What the segments so far say about the scans that follow."""

    def __init__(self) -> None:
        self._codes: dict[tuple[int, int], Codes] = {}
        self._components: dict[int, _Component] = {}
        self._restart = self._kind = self._width = self._height = 0
        self._scan: tuple[list[tuple[_Component, int, int]], int, int, int] = ([], 0, 0, 0)

    def read(self, code: int, content: bytes) -> None:
        """Take note of a segment."""
        if code == _DHT:
            while len(content) > 16:
                values = content[17 : 17 + sum(content[1:17])]
                self._codes[content[0] >> 4, content[0] & 15] = _huffman_codes(content[1:17], values)
                content = content[17 + len(values) :]
        elif code == _DRI:
            (self._restart,) = struct.unpack(">H", content)
        elif code == _SOS:
            count = content[0]
            chosen = [(self._components[content[1 + 2 * n]], content[2 + 2 * n]) for n in range(count)]
            first, last, bits = content[1 + 2 * count : 4 + 2 * count]
            self._scan = (
                [(component, tables >> 4, tables & 15) for component, tables in chosen],
                first,
                last,
                bits >> 4,
            )
        elif code in _FRAMES:
            self._kind = code
            self._height, self._width, count = struct.unpack_from(">xHHB", content)
            for number, factors, _ in struct.iter_unpack("3B", content[6 : 6 + 3 * count]):
                self._components[number] = _Component(factors >> 4, factors & 15)

    def codes_of_flat_blocks(self) -> str:
        """The bits of a unit of the scan of which every block is like the one before it.

        Raises:
            ValueError: The scan is of another coding than the baseline, or is not the only one.
            LookupError: A table or a component is missing.
        """
        components, first, last, _ = self._scan
        if self._kind not in _SEQUENTIAL or (first, last) != (0, 63) or len(components) != len(self._components):
            raise ValueError("not one scan of baseline coding")
        codes = ""
        for component, dc, ac in components:
            block = _code_of_zero(self._codes[0, dc]) + _code_of_zero(self._codes[1, ac])
            codes += block * (component.across * component.down if len(components) > 1 else 1)
        return codes

    def end_of_scan(self, data: bytes) -> int:
        """The byte after the last code of the scan that the last segment begins.

        Raises:
            ValueError: The scan is not coded in the way that its header says, or with arithmetic coding.
            LookupError: A table or a component is missing.
        """
        if self._kind not in (*_SEQUENTIAL, _PROGRESSIVE):
            raise ValueError("arithmetic coding")
        bits, run = _Bits(data), 0
        components, first, last, refined = self._scan
        across = max(component.across for component in self._components.values())
        down = max(component.down for component in self._components.values())
        if len(components) == 1:
            ((component, dc, ac),) = components
            columns = _ceil(_ceil(self._width * component.across, across), 8)
            lines = _ceil(_ceil(self._height * component.down, down), 8)
        else:
            columns, lines = _ceil(self._width, 8 * across), _ceil(self._height, 8 * down)
        try:
            for unit in range(columns * lines):
                if self._restart and unit and unit % self._restart == 0:
                    bits.restart()
                    run = 0
                for component, dc, ac in components:
                    for _ in range(component.across * component.down if len(components) > 1 else 1):
                        if self._kind in _SEQUENTIAL:
                            _read_block(bits, self._codes[0, dc], self._codes[1, ac])
                        elif first == 0:
                            bits.bit() if refined else bits.bits(bits.symbol(self._codes[0, dc]))
                        else:
                            known = component.known.setdefault(unit, bytearray(64))
                            read = _refine_band if refined else _read_band
                            run = read(bits, self._codes[1, ac], known, run, range(first, last + 1))
        except _EndOfDataError:
            return len(data)
        return bits.at


def _ceil(size: int, step: int) -> int:
    return (size + step - 1) // step


def _huffman_codes(counts: bytes, values: bytes) -> Codes:
    codes: dict[tuple[int, int], int] = {}
    code, following = 0, iter(values)
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            codes[length, code] = next(following)
            code += 1
        code <<= 1
    return codes


def _code_of_zero(codes: Codes) -> str:
    """The bits of the symbol 0: no difference to the block before, or no further coefficients."""
    for (length, value), symbol in codes.items():
        if symbol == 0:
            return f"{value:0{length}b}"
    raise LookupError("no code of 0")


def _read_block(bits: _Bits, dc: Codes, ac: Codes) -> None:
    """Read a block of sequential coding (F.1.2)."""
    bits.bits(bits.symbol(dc))
    index = 1
    while index < 64:
        zeros, size = divmod(bits.symbol(ac), 16)
        if not size and zeros < 15:
            return
        bits.bits(size)
        index += zeros + 1


def _read_band(bits: _Bits, codes: Codes, known: bytearray, run: int, band: range) -> int:
    """Read the first bits of some coefficients of a block (G.1.2.2), and return for how many more blocks they are zero."""
    if run:
        return run - 1
    index = band.start
    while index < band.stop:
        zeros, size = divmod(bits.symbol(codes), 16)
        if not size and zeros < 15:
            return (1 << zeros) - 1 + bits.bits(zeros)
        index += zeros
        if size:
            bits.bits(size)
            known[index] = 1
        index += 1
    return 0


def _refine_band(bits: _Bits, codes: Codes, known: bytearray, run: int, band: range) -> int:
    """Read one more bit of some coefficients of a block (G.1.2.3), and return for how many more blocks no more become known."""
    index = band.start
    while not run and index < band.stop:
        zeros, size = divmod(bits.symbol(codes), 16)
        if not size and zeros < 15:
            run = (1 << zeros) + bits.bits(zeros)
            break
        bits.bits(size)  # the sign
        while index < band.stop:
            if known[index]:
                bits.bit()
            elif not zeros:
                known[index] = bool(size)
                break
            else:
                zeros -= 1
            index += 1
        index += 1
    if run:
        for _ in filter(None, known[index : band.stop]):
            bits.bit()
        run -= 1
    return run
