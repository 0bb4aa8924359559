"""A program that prints the picture on standard input as JSON, scaled down to the limits in its arguments.

It runs with the sandbox's Python, which has Pillow. The picture may be hostile: the program has little memory and
time, and looks at the size in the header before it decodes anything.
"""

from __future__ import annotations

import base64
import io
import json
import resource
import struct
import sys
import zlib
from typing import Any

MAX_MEMORY = 1 << 30
MAX_CPU_SECONDS = 20
MAX_SOURCE_BYTES = 32 * 1024 * 1024
MAX_PIXELS = 50_000_000
"""The most pixels of a picture that is decoded. A larger one is refused."""
MAX_SIDE = 2000
"""Longest side of the result. Some servers refuse a picture with a longer side."""
DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SyntaxError, TypeError),
    *(ValueError, struct.error, zlib.error),
)
"""What Pillow raises for damaged files."""
PLAIN_FORMATS = frozenset({"PNG", "JPEG"})
"""Every server that takes pictures takes these. Others are converted."""
PLAIN_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
"""Other modes, such as CMYK, are converted."""
ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held."""
JPEG_QUALITIES = (85, 70, 50)
MAX_HALVINGS = 8


def shrink(data: bytes, *, max_bytes: int, max_pixels: int) -> dict[str, Any]:
    """The result's `media_type`, `width`, `height` and base64 `data`, or an `error` with a `message`."""
    from PIL import Image, ImageOps

    Image.MAX_IMAGE_PIXELS = None  # checked below, with a clear message
    is_photo = data.startswith(b"\xff\xd8")
    try:
        opened = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "GIF", "WEBP"))
        if opened.width * opened.height > MAX_PIXELS:
            size = f"{opened.width}x{opened.height}"
            return _error("too_large", f"the picture has {size} pixels; make a smaller copy of it first")
        scale = _scale(opened, max_pixels)
        is_plain = opened.format in PLAIN_FORMATS and opened.mode in PLAIN_MODES
        is_plain = is_plain and not getattr(opened, "is_animated", False)
        is_plain = is_plain and scale == 1 and len(data) <= max_bytes
        media_type = "image/jpeg" if is_photo else str(opened.get_format_mimetype())
        opened.draft("RGB", (int(opened.width * scale), int(opened.height * scale)))  # a large JPEG is decoded smaller
        opened.load()
        if is_plain and opened.getexif().get(ORIENTATION, 1) == 1:
            return _result(data, media_type, opened.size)
        image: Any = ImageOps.exif_transpose(opened)
    except MemoryError:
        raise
    except DAMAGE as error:
        return _error("invalid", f"the picture is damaged: {error}")
    image = image.convert("RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB")
    scale = _scale(image, max_pixels)
    if scale < 1:
        image = image.resize((max(1, int(image.width * scale)), max(1, int(image.height * scale))))
    return _encode(image, max_bytes=max_bytes, is_photo=is_photo)


def _scale(image: Any, max_pixels: int) -> float:
    pixels = image.width * image.height
    return float(min(1.0, (max_pixels / pixels) ** 0.5, MAX_SIDE / max(image.size)))


def _encode(image: Any, *, max_bytes: int, is_photo: bool) -> dict[str, Any]:
    """As PNG if it fits, otherwise as JPEG, which may have to be smaller still."""
    from PIL import Image

    if not is_photo and len(encoded := _save(image, "PNG")) <= max_bytes:
        return _result(encoded, "image/png", image.size)
    if image.mode == "RGBA":
        paper = Image.new("RGB", image.size, "white")
        paper.paste(image, mask=image.getchannel("A"))
        image = paper
    for _ in range(MAX_HALVINGS):
        for quality in JPEG_QUALITIES:
            if len(encoded := _save(image, "JPEG", quality=quality)) <= max_bytes:
                return _result(encoded, "image/jpeg", image.size)
        image = image.resize((max(1, image.width // 2), max(1, image.height // 2)))
    return _error("too_large", f"the picture cannot be made smaller than {max_bytes} bytes")


def _save(image: Any, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _result(data: bytes, media_type: str, size: tuple[int, int]) -> dict[str, Any]:
    encoded = base64.b64encode(data).decode()
    return {"media_type": media_type, "width": size[0], "height": size[1], "data": encoded}


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": code, "message": message}


def main() -> dict[str, Any]:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS))
    data = sys.stdin.buffer.read(MAX_SOURCE_BYTES + 1)
    if len(data) > MAX_SOURCE_BYTES:
        return _error(
            "too_large", f"the picture has more than {MAX_SOURCE_BYTES >> 20} MiB; make a smaller copy of it first"
        )
    try:
        return shrink(data, max_bytes=int(sys.argv[1]), max_pixels=int(sys.argv[2]))
    except ImportError:
        return _error("unavailable", "the library Pillow, which scales pictures, is missing in this sandbox")
    except MemoryError:
        return _error("too_large", "the picture needs too much memory; make a smaller copy of it first")


if __name__ == "__main__":
    print(json.dumps(main()))
