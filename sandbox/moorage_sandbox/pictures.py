"""Recognise a picture and read its size from its first bytes, without decoding it. Standard library only."""

from __future__ import annotations

from typing import NamedTuple

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_END = b"IEND\xaeB`\x82"
MAX_JPEG_SEGMENTS = 1000
JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""Markers of the segment that holds the size. The three others in this range hold tables."""


class PictureHeader(NamedTuple):
    """`is_plain`: the data ends like a whole picture, and it is no animation.

    Not a dataclass: the box imports this module when it starts, and `dataclasses` takes a few milliseconds.
    """

    media_type: str
    width: int
    height: int
    is_plain: bool

    @property
    def pixels(self) -> int:
        return self.width * self.height


def media_type_of(start: bytes) -> str:
    """The media type of a PNG, JPEG, GIF or WebP picture that begins with `start`; empty for anything else."""
    if start.startswith(PNG_SIGNATURE):
        return "image/png"
    if start.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "image/webp"
    return ""


def read_header(data: bytes) -> PictureHeader | None:
    """None if `data` is no picture, or if the size cannot be read from it."""
    media_type = media_type_of(data)
    size: tuple[int, int] | None
    match media_type:
        case "image/png":
            size = _png_size(data)
            is_plain = data.endswith(PNG_END) and b"acTL" not in data[:4096]
        case "image/jpeg":
            size = _jpeg_size(data)
            is_plain = data.endswith(b"\xff\xd9")
        case "image/gif":
            size = (int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little"))
            is_plain = False  # whether it is an animation is known only behind its first frame
        case "image/webp":
            size, is_still = _webp_size(data)
            is_plain = is_still and int.from_bytes(data[4:8], "little") + 8 <= len(data)
        case _:
            return None
    if size is None or min(size) < 1:
        return None
    return PictureHeader(media_type, *size, is_plain=is_plain)


def _png_size(data: bytes) -> tuple[int, int] | None:
    if data[12:16] != b"IHDR" or len(data) < 24:
        return None
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    position = 2
    for _ in range(MAX_JPEG_SEGMENTS):
        while data[position : position + 2] == b"\xff\xff":
            position += 1
        if len(data) < position + 9 or data[position] != 0xFF:
            return None
        if data[position + 1] in JPEG_FRAMES:
            height, width = data[position + 5 : position + 7], data[position + 7 : position + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def _webp_size(data: bytes) -> tuple[tuple[int, int] | None, bool]:
    """The size, and whether it is a single picture. Source: RFC 9649, sections 2.5 to 2.7."""
    kind = data[12:16]
    if len(data) < 30:
        return None, False
    if kind == b"VP8X":
        size = int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        return size, not data[20] & 0x02
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1), True
    if kind == b"VP8 ":
        width, height = int.from_bytes(data[26:28], "little"), int.from_bytes(data[28:30], "little")
        return (width & 0x3FFF, height & 0x3FFF), True
    return None, False
