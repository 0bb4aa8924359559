"""Make file names and media types from clients safe to store and to send back."""

from __future__ import annotations

import mimetypes
import re
from urllib.parse import quote

from moorage_api.events.log import make_storable

MAX_NAME = 255
DEFAULT_TYPE = "application/octet-stream"
MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}( *;[\x20-\x7e]{0,50})?")
"""Type and subtype as in RFC 6838, section 4.2. ASCII only: it becomes a header in responses and the object store."""


def safe_filename(name: str) -> str:
    """Return the last path part without control characters, at most 255 characters; "file" if nothing remains."""
    last = re.split(r"[/\\]", str(make_storable(name)))[-1]
    printable = "".join(character for character in last if character.isprintable()).strip()
    if printable in {"", ".", ".."}:
        return "file"
    if len(printable) > MAX_NAME:
        stem, dot, extension = printable.rpartition(".")
        keep = dot + extension if dot and len(extension) <= 20 else ""
        printable = (stem if keep else printable)[: MAX_NAME - len(keep)] + keep
    return printable


def extension_of(filename: str) -> str:
    """Return the extension with its dot, "" if the name has no extension."""
    stem, dot, extension = filename.rpartition(".")
    return f".{extension}" if dot and stem else ""


def media_type_of(filename: str, declared: str) -> str:
    """Return the declared type if it is valid and specific, else the type that the file name suggests."""
    if MEDIA_TYPE.fullmatch(declared) and not declared.startswith(DEFAULT_TYPE):
        return declared
    return mimetypes.guess_type(filename)[0] or DEFAULT_TYPE


def content_disposition(filename: str) -> str:
    """Build the header of RFC 6266, with the file name encoded as in RFC 8187."""
    return f"attachment; filename*=utf-8''{quote(filename, safe='')}"
