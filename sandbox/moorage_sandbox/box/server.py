"""The Unix socket: one connection per request, one JSON line each way, raw bytes after it where a size says so."""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from moorage_sandbox.box.box import Box
from moorage_sandbox.box.calls import AnsweredCalls, AnswerForgottenError
from moorage_sandbox.box.files.transfer import ConnectionLostError, open_for_sending, receive, receive_bytes, send
from moorage_sandbox.box.shared.errors import BoxError
from moorage_sandbox.box.skills import MAX_ARCHIVE_BYTES as MAX_SKILL_BYTES

MAX_LINE_BYTES = 4 * 1024 * 1024
MAX_ANSWER_BYTES = 8 * 1024 * 1024 - 64 * 1024
"""A little less than a client takes, for what it wraps around it."""
MAX_CONNECTIONS = 128
MAX_TIMEOUT_SECONDS = 3600
DRAIN_SECONDS = 2
MAX_DRAINED_BYTES = 128 * 1024 * 1024
IDLE_SECONDS = 60
"""A connection on which nothing moves for this long is given up."""


class BoxServer:
    def __init__(self, box: Box, path: str) -> None:
        self._box = box
        self._ledger = AnsweredCalls()
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._operations: dict[str, Callable[[socket.socket, dict[str, Any], bytes], None]] = {
            "ping": self._ping,
            "call": self._call,
            "file_read": self._file_read,
            "file_write": self._file_write,
            "shell_view": self._shell_view,
            "skill_list": self._skill_list,
            "skill_write": self._skill_write,
        }
        # Bound under another name and renamed, so that whoever finds the socket can connect to it.
        temporary = f"{path}.new"
        for stale in (temporary, path):
            if os.path.exists(stale):
                os.unlink(stale)
        before = os.umask(0o117)
        self._socket.bind(temporary)
        os.umask(before)
        self._socket.listen(128)
        os.rename(temporary, path)

    def start(self) -> None:
        threading.Thread(target=self._accept, name="accept", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                # No descriptor left, or the caller has already gone; either way the next one must be served.
                time.sleep(0.05)
                continue
            # The kernel's own timeouts: with Python's, the descriptor would not block and sendfile would not wait.
            patience = struct.pack("ll", IDLE_SECONDS, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
            if not self._slots.acquire(blocking=False):
                with connection:
                    refuse(connection, BoxError("limit", f"More than {MAX_CONNECTIONS} requests at a time."))
                continue
            try:
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
            except RuntimeError:
                # The commands have used up the number of processes that we share with them.
                self._slots.release()
                with connection:
                    refuse(connection, BoxError("limit", "No thread can be started: too many processes are running."))

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._handle(connection)
            except BoxError as error:
                refuse(connection, error)
                drain(connection)
            except (ConnectionLostError, OSError):
                # Whoever asked has gone, or reads no more.
                return
            except Exception as error:  # noqa: BLE001 - the outermost loop; the next request must be served
                traceback.print_exc(file=sys.stderr)
                refuse(connection, BoxError("internal", f"{type(error).__name__}: {error}"))
            finally:
                self._slots.release()

    def _handle(self, connection: socket.socket) -> None:
        line, early = read_line(connection)
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BoxError("invalid", "The request is not a line of JSON.") from error
        if not isinstance(request, dict):
            raise BoxError("invalid", "The request is not a JSON object.")
        operation = self._operations.get(str(request.get("op")))
        if operation is None:
            raise BoxError("invalid", f"There is no operation {str(request.get('op'))[:64]!r}.")
        operation(connection, request, early)

    def _ping(self, connection: socket.socket, request: dict[str, Any], early: bytes) -> None:
        answer(connection, {"ok": True, "boot_id": self._box.boot_id})

    def _call(self, connection: socket.socket, request: dict[str, Any], early: bytes) -> None:
        boot_id = self._box.boot_id
        try:
            expected = request.get("boot_id")
            if expected is not None and expected != boot_id:
                raise BoxError("rebooted", "The box was started anew; nothing was run.")
            line = self._answer_of(request)
        except BoxError as error:
            line = encoded(refusal(error, boot_id=boot_id))
        connection.sendall(line)

    def _answer_of(self, request: dict[str, Any]) -> bytes:
        key = field(request, "key", str)
        function = field(request, "function", str)
        args = field(request, "args", dict)
        timeout = request.get("timeout_seconds", 60)
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= MAX_TIMEOUT_SECONDS:
            raise BoxError("invalid", f"'timeout_seconds' must be above 0 and at most {MAX_TIMEOUT_SECONDS}.")
        if not 0 < len(key) <= 256:
            raise BoxError("invalid", "'key' must have 1 to 256 characters.")
        try:
            return self._ledger.answer(key, lambda: self._run(function, args, timeout))
        except AnswerForgottenError as error:
            raise BoxError("forgotten", "This call was run, and its answer is no longer kept.") from error

    def _run(self, function: str, args: dict[str, Any], timeout_seconds: float) -> bytes:
        """The call's answer as a line. Never raises: what is in the ledger must have an end."""
        boot_id = self._box.boot_id
        try:
            line = encoded({"ok": True, "boot_id": boot_id, "result": self._box.run(function, args, timeout_seconds)})
            if len(line) > MAX_ANSWER_BYTES:
                raise BoxError("too_large", f"The result of {function} has {len(line)} bytes, too many to hand over.")
        except BoxError as error:
            line = encoded(refusal(error, boot_id=boot_id))
        except Exception as error:  # noqa: BLE001 - see above
            traceback.print_exc(file=sys.stderr)
            line = encoded(refusal(BoxError("internal", f"{type(error).__name__}: {error}"), boot_id=boot_id))
        return line

    def _file_read(self, connection: socket.socket, request: dict[str, Any], early: bytes) -> None:
        shown = field(request, "path", str)
        file, size, content = open_for_sending(self._box.paths.resolve(shown), shown)
        with file:
            answer(connection, {"ok": True, "size": size})
            send(connection, file, size, content)

    def _file_write(self, connection: socket.socket, request: dict[str, Any], early: bytes) -> None:
        shown = field(request, "path", str)
        size = size_of(request)
        receive(connection, early, self._box.paths.resolve(shown), shown, size)
        answer(connection, {"ok": True, "size": size})

    def _shell_view(self, connection: socket.socket, request: dict[str, Any], early: bytes) -> None:
        answer(connection, {"ok": True, "result": self._box.shells.view(field(request, "name", str))})

    def _skill_list(self, connection: socket.socket, request: dict[str, Any], early: bytes) -> None:
        answer(connection, {"ok": True, "digests": self._box.skills.digests()})

    def _skill_write(self, connection: socket.socket, request: dict[str, Any], early: bytes) -> None:
        skill_id, digest = field(request, "id", str), field(request, "digest", str)
        size = size_of(request)
        if size > MAX_SKILL_BYTES:
            raise BoxError("too_large", f"A skill's archive has at most {MAX_SKILL_BYTES >> 20} MiB.")
        archive = receive_bytes(connection, early, size)
        self._box.skills.put(skill_id, digest, archive)
        answer(connection, {"ok": True, "size": size})


def size_of(request: dict[str, Any]) -> int:
    size = request.get("size")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise BoxError("invalid", "'size' must be the number of bytes that follow.")
    return size


def read_line(connection: socket.socket) -> tuple[bytes, bytes]:
    """The request's line, and what already came of the body after it."""
    data = bytearray()
    while (end := data.find(b"\n", max(0, len(data) - 65536))) < 0:
        if len(data) > MAX_LINE_BYTES:
            raise BoxError("invalid", f"The request's line has more than {MAX_LINE_BYTES} bytes.")
        block = connection.recv(65536)
        if not block:
            raise ConnectionLostError
        data += block
    return bytes(data[:end]), bytes(data[end + 1 :])


def field(request: dict[str, Any], name: str, kind: type) -> Any:
    value = request.get(name)
    if not isinstance(value, kind):
        raise BoxError("invalid", f"The request needs {name!r}, {'an object' if kind is dict else 'a string'}.")
    return value


def refusal(error: BoxError, **more: str) -> dict[str, Any]:
    return {"ok": False, **more, "error": {"code": error.code, "message": error.message}}


def refuse(connection: socket.socket, error: BoxError) -> None:
    try:
        answer(connection, refusal(error))
    except OSError:
        # Nobody is left to read it.
        return


def drain(connection: socket.socket) -> None:
    """Take what is still being sent: closed with that unread, the connection would lose the refusal."""
    try:
        connection.shutdown(socket.SHUT_WR)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", DRAIN_SECONDS, 0))
        left = MAX_DRAINED_BYTES
        while left > 0 and (block := connection.recv(262144)):
            left -= len(block)
    except OSError:
        return


def answer(connection: socket.socket, value: dict[str, Any]) -> None:
    connection.sendall(encoded(value))


def encoded(value: dict[str, Any]) -> bytes:
    # A lone surrogate, from a file's name or a page's text, has no UTF-8.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
