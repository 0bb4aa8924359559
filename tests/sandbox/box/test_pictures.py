"""Pictures for models that see: recognised by `read_file`, checked and scaled down by `read_picture`."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from moorage_sandbox.pictures import read_header
from sandbox.box.running import Refused, RunningBox

LIMITS = {"max_bytes": 1_000_000, "max_pixels": 1_000_000}
LOSSLESS = {"lossless": True}
KINDS = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(width: int, height: int) -> Image.Image:
    """A picture that does not compress."""
    return Image.effect_noise((width, height), 200).convert("RGB")


def png_with_size(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be that large."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\0" * 1000)
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (header, body)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + b"\0\0\0\0IEND\xaeB`\x82"


def write(box: RunningBox, name: str, data: bytes) -> Path:
    path = box.workspace / name
    path.write_bytes(data)
    return path


def read(box: RunningBox, data: bytes, **limits: int) -> tuple[dict[str, Any], bytes]:
    write(box, "picture", data)
    result = box.call("read_picture", filepath="picture", **(LIMITS | limits))
    return result, base64.b64decode(result["data"])


@pytest.mark.parametrize("kind", KINDS)
def test_read_file_describes_a_picture(shared_box: RunningBox, kind: str) -> None:
    data = encode(noise(64, 48), kind)
    write(shared_box, "picture", data)
    seen = shared_box.call("read_file", filepath="picture")
    assert seen["picture"] == {"media_type": KINDS[kind], "width": 64, "height": 48, "size": len(data)}


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_small_picture_stays_as_it_is(shared_box: RunningBox, kind: str) -> None:
    data = encode(noise(64, 48), kind)
    result, read_data = read(shared_box, data)
    assert (result["media_type"], result["width"], result["height"]) == (KINDS[kind], 64, 48)
    assert read_data == data


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_a_picture_that_some_servers_refuse_becomes_a_png(shared_box: RunningBox, kind: str) -> None:
    result, data = read(shared_box, encode(Image.new("RGB", (64, 48), "red"), kind, **LOSSLESS))
    assert (result["media_type"], result["width"], result["height"]) == ("image/png", 64, 48)
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.convert("RGB").getpixel((5, 5))) == ("PNG", (255, 0, 0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "limits",
    [{"max_pixels": 10_000}, {"max_bytes": 9_000}, {"max_bytes": 1_000, "max_pixels": 100_000_000}],
    ids=["pixels", "bytes", "few bytes"],
)
def test_a_large_picture_is_scaled_down_to_the_limits(
    shared_box: RunningBox, kind: str, limits: dict[str, int]
) -> None:
    result, data = read(shared_box, encode(noise(400, 300), kind), **limits)
    header = read_header(data)
    assert header is not None
    assert (header.media_type, header.width, header.height) == (
        result["media_type"],
        result["width"],
        result["height"],
    )
    assert header.pixels <= (LIMITS | limits)["max_pixels"]
    assert len(data) <= (LIMITS | limits)["max_bytes"]
    assert Image.open(io.BytesIO(data)).size == (header.width, header.height)
    assert abs(header.width / header.height - 4 / 3) < 0.1


def test_a_very_long_picture_gets_a_side_that_servers_accept(shared_box: RunningBox) -> None:
    result, _ = read(shared_box, encode(Image.new("RGB", (20, 9000)), "PNG"))
    assert max(result["width"], result["height"]) <= 2000


def test_a_transparent_picture_stays_transparent_when_it_is_scaled(shared_box: RunningBox) -> None:
    _, data = read(shared_box, encode(Image.new("RGBA", (400, 300), (255, 0, 0, 0)), "PNG"), max_pixels=10_000)
    assert Image.open(io.BytesIO(data)).convert("RGBA").getpixel((5, 5))[3] == 0  # type: ignore[index]


def test_only_the_first_picture_of_an_animation_is_read(shared_box: RunningBox) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    animation = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    result, data = read(shared_box, animation)
    assert result["media_type"] == "image/png"
    assert Image.open(io.BytesIO(data)).convert("RGB").getpixel((5, 5)) == (255, 0, 0)


def test_a_photo_is_turned_as_its_camera_was_held(shared_box: RunningBox) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    result, data = read(shared_box, encode(noise(40, 30), "JPEG", exif=exif.tobytes()))
    assert (result["width"], result["height"]) == (30, 40)
    assert Image.open(io.BytesIO(data)).size == (30, 40)


REFUSED: dict[str, tuple[bytes, str, str]] = {
    "a PNG that claims to be huge": (png_with_size(60_000, 60_000), "too_large", "60000x60000"),
    "a PNG whose size is a lie": (png_with_size(5_000, 5_000), "invalid", "damaged"),
    "a truncated PNG": (encode(noise(300, 200), "PNG")[:20_000], "invalid", "damaged"),
    "a truncated JPEG": (encode(noise(300, 200), "JPEG")[:9_000], "invalid", "damaged"),
    "only a signature": (b"\x89PNG\r\n\x1a\n\0\0\0\0", "invalid", "damaged"),
    "a JPEG of zeros": (b"\xff\xd8\xff" + b"\0" * 500, "invalid", "damaged"),
    "a text": (b"just text", "invalid", "not a PNG"),
    "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "invalid", "not a PNG"),
    "a BMP": (encode(noise(20, 20), "BMP"), "invalid", "not a PNG"),
    "an empty file": (b"", "invalid", "not a PNG"),
}


@pytest.mark.parametrize(("data", "code", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_usable_picture_is_refused_in_words(
    shared_box: RunningBox, data: bytes, code: str, words: str
) -> None:
    with pytest.raises(Refused) as refused:
        read(shared_box, data)
    assert refused.value.code == code
    assert words in refused.value.message
    assert shared_box.call("find_files", dir_path=".", glob_pattern="picture")["files"], "the box still works"


@pytest.mark.parametrize(
    ("name", "content"),
    [("notes.png", "text, whatever its name says\n"), ("drawing.svg", "<svg/>\n"), ("poem.txt", "GIF89a, a poem\n")],
)
def test_a_text_is_read_as_text_whatever_its_name_is(shared_box: RunningBox, name: str, content: str) -> None:
    write(shared_box, name, content.encode())
    seen = shared_box.call("read_file", filepath=name)
    assert (seen["content"], seen.get("picture")) == (content, None)
