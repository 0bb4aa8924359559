"""Read one file from a multipart form (RFC 7578) as a stream: it is kept neither on disk nor in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from email.message import Message

from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from moorage_api.errors import InvalidError, TooLargeError

MAX_HEADER_BYTES = 16 * 1024

FORM_OVERHEAD_BYTES = 64 * 1024
"""Most bytes that a form may have in addition to its file."""

FORM_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


def check_declared_size(content_length: str, *, limit_bytes: int) -> None:
    """Refuse a form that says by itself that its file is too large, before it is read. Raises TooLargeError."""
    if content_length.isdigit() and int(content_length) > limit_bytes + FORM_OVERHEAD_BYTES:
        raise TooLargeError(f"The file is larger than the limit of {limit_bytes // 2**20} MiB", limit_bytes=limit_bytes)


@dataclass
class FormFile:
    filename: str
    content_type: str
    chunks: AsyncGenerator[bytes, None]


@dataclass
class _Events:
    """What the parser has reported since the last `feed`."""

    headers: Message = field(default_factory=Message)
    header_bytes: int = 0
    name: bytes = b""
    value: bytes = b""
    begun: list[Message] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    part_ended: bool = False
    ended: bool = False


class _FormParser:
    """Feeds chunks to the parser and returns the bytes of the first file part called `name`."""

    def __init__(self, boundary: bytes, *, name: str) -> None:
        self._name = name
        self._events = _Events()
        self._inside = False
        self.file: Message | None = None
        self.complete = False
        self.ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the file's bytes in this chunk. Raises InvalidError if the body is not a multipart form."""
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise InvalidError("The body is not a valid multipart form") from error
        data, self._events.data = self._events.data, []
        return data

    def _part_begin(self) -> None:
        self._events.headers = Message()
        self._events.header_bytes = 0

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._events.name += data[start:end]
        self._count(end - start)

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._events.value += data[start:end]
        self._count(end - start)

    def _count(self, size: int) -> None:
        self._events.header_bytes += size
        if self._events.header_bytes > MAX_HEADER_BYTES:
            raise InvalidError(f"The headers of a part of the form have more than {MAX_HEADER_BYTES} bytes")

    def _header_end(self) -> None:
        self._events.headers[self._events.name.decode("latin-1")] = self._events.value.decode("latin-1")
        self._events.name = self._events.value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._events.headers.get("content-disposition", "").encode("latin-1"))
        wanted = options.get(b"name") == self._name.encode() and b"filename" in options
        self._inside = wanted and self.file is None
        if self._inside:
            self.file = self._events.headers

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._events.data.append(data[start:end])

    def _part_end(self) -> None:
        self.complete = self.complete or self._inside
        self._inside = False

    def _end(self) -> None:
        self.ended = True


async def form_file(content_type: str, body: AsyncIterator[bytes], *, name: str) -> FormFile:
    """Find the file in the field `name`. Raises InvalidError if the form has no such file.

    Its chunks raise InvalidError if the body ends too early.
    """
    kind, options = parse_options_header(content_type.encode("latin-1"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidError(f"Send multipart/form-data with a file in the field `{name}`")
    try:
        parser = _FormParser(boundary, name=name)
    except FormParserError as error:
        raise InvalidError("The boundary of the form is too long; use at most 256 characters") from error
    first: list[bytes] = []
    async for chunk in body:
        first = parser.feed(chunk)
        if parser.file is not None:
            break
    if parser.file is None:
        raise InvalidError(f"The form has no file in the field `{name}`")
    _, disposition = parse_options_header(parser.file.get("content-disposition", "").encode("latin-1"))
    return FormFile(
        filename=unescape_name(disposition.get(b"filename", b"").decode("utf-8", "replace")),
        content_type=str(parser.file.get("content-type", "")),
        chunks=_chunks(parser, first, body),
    )


def unescape_name(name: str) -> str:
    """Undo the three escapes that browsers use in the names of a form (WHATWG HTML, "multipart form data")."""
    return name.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


async def _chunks(parser: _FormParser, first: list[bytes], body: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    for data in first:
        yield data
    async for chunk in body:
        for data in parser.feed(chunk):
            yield data
    if not parser.complete or not parser.ended:
        raise InvalidError("The upload ended too early and nothing was stored; upload the file again")
