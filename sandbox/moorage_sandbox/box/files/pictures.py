"""Read a picture for a model that sees: checked, and scaled down if it is too large. A separate program decodes it."""

from __future__ import annotations

import json
import os
import signal
from base64 import b64encode
from typing import Any

from moorage_sandbox.box.files.opening import open_regular
from moorage_sandbox.box.shared.deadline import Deadline
from moorage_sandbox.box.shared.errors import BoxError, translate_os_errors
from moorage_sandbox.box.shared.processes import ChildProcesses, read_output
from moorage_sandbox.pictures import media_type_of, read_header
from moorage_sandbox.protocol import DEBIAN_PYTHON

SHRINK_PROGRAM = os.path.join(os.path.dirname(__file__), "shrink.py")
MAX_SECONDS = 30


def describe_picture(start: bytes, size: int) -> dict[str, Any] | None:
    """What `read_file` says of a picture that begins with `start`. None if the file is something else."""
    if not media_type_of(start) or b"\0" not in start:  # a text may begin with GIF89a
        return None
    header = read_header(start)
    described: dict[str, Any] = {"media_type": media_type_of(start), "size": size}
    if header is not None:
        described |= {"width": header.width, "height": header.height}
    return described


def read_picture(
    path: str, display_path: str, deadline: Deadline, *, children: ChildProcesses, max_bytes: int, max_pixels: int
) -> dict[str, Any]:
    """The picture's `media_type`, `width`, `height` and base64 `data`, within the limits. Raises BoxError."""
    with open_regular(path, display_path) as file, translate_os_errors(display_path):
        if not media_type_of(file.read(16)):
            raise BoxError("invalid", f"{display_path} is not a PNG, JPEG, GIF or WebP picture.")
        file.seek(0)
        answer = _run_program(file.fileno(), deadline, children=children, limits=(max_bytes, max_pixels))
        if answer is not None and answer.get("error") == "unavailable":
            file.seek(0)
            whole = file.read(max_bytes + 1)
            return _unscaled(whole, display_path, max_bytes=max_bytes, max_pixels=max_pixels, why=answer["message"])
    if answer is None:
        raise BoxError("timeout", f"{display_path}: the picture took too long to decode. Make a smaller copy of it.")
    if "error" in answer:
        raise BoxError(answer["error"], f"{display_path}: {answer['message']}.")
    return answer


def _unscaled(whole: bytes, display_path: str, *, max_bytes: int, max_pixels: int, why: str) -> dict[str, Any]:
    """The file itself, which is possible without Pillow if it is within the limits."""
    header = read_header(whole)
    if header is None or not header.is_plain or len(whole) > max_bytes or header.pixels > max_pixels:
        raise BoxError("unavailable", f"{display_path}: {why}.")
    data = b64encode(whole).decode()
    return {"media_type": header.media_type, "width": header.width, "height": header.height, "data": data}


def _run_program(
    file: int, deadline: Deadline, *, children: ChildProcesses, limits: tuple[int, int]
) -> dict[str, Any] | None:
    """The program's answer; None if it does not end in time."""
    output, output_write = os.pipe()
    try:
        argv = [DEBIAN_PYTHON, "-I", SHRINK_PROGRAM, *map(str, limits)]
        child = children.spawn(argv, env={}, fds={0: file, 1: output_write})
    except FileNotFoundError:
        os.close(output)
        return {
            "error": "unavailable",
            "message": f"{DEBIAN_PYTHON}, which scales pictures, is missing in this sandbox",
        }
    finally:
        os.close(output_write)
    with open(output, "rb", buffering=0) as reader:
        answer = read_output(reader.fileno(), deadline.within(MAX_SECONDS))
    child.signal(signal.SIGKILL)
    if answer is None:
        return None
    try:
        result: dict[str, Any] = json.loads(answer)
    except ValueError:
        return {"error": "too_large", "message": "the picture needs too much memory or time; make a smaller copy of it"}
    return result
