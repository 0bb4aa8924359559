"""Serves the box's Unix socket. A connection carries one request: a JSON line in each direction.

Raw bytes follow a line that contains their `size`.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

from moorage_sandbox.box.box import Box
from moorage_sandbox.box.calls import AnsweredCalls, AnswerForgottenError
from moorage_sandbox.box.files.transfer import ConnectionLostError, open_to_send, receive, receive_bytes, send
from moorage_sandbox.box.shared.errors import BoxError
from moorage_sandbox.protocol import MAX_CALL_BODY_BYTES, MAX_CALL_SECONDS, MAX_RESULT_BYTES, MAX_SKILL_ARCHIVE_BYTES

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = MAX_CALL_BODY_BYTES
MAX_ANSWER_BYTES = MAX_RESULT_BYTES - 64 * 1024
"""The gate accepts MAX_RESULT_BYTES for its own answer, which contains this one."""
MAX_CONNECTIONS = 128
DRAIN_SECONDS = 2
MAX_DRAINED_BYTES = 128 * 1024 * 1024
IDLE_SECONDS = 60
"""A connection on which no byte moves for this long is closed."""


class BoxServer:
    def __init__(self, box: Box, path: str) -> None:
        self._box = box
        self._answered = AnsweredCalls()
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
        # The socket is bound under a temporary name and renamed when it listens, so a client that finds it can connect.
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
                # No file descriptor is free, or the client has gone. The next client must still be served.
                time.sleep(0.05)
                continue
            # The timeouts of the kernel. Python's own timeout makes the descriptor non-blocking, and sendfile fails.
            patience = struct.pack("ll", IDLE_SECONDS, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
            if not self._slots.acquire(blocking=False):
                with connection:
                    message = f"The box already handles {MAX_CONNECTIONS} requests. Try again later."
                    send_refusal(connection, BoxError("limit", message))
                continue
            try:
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
            except RuntimeError:
                # Commands share the limit of processes and threads with the box, and have used all of it.
                self._slots.release()
                with connection:
                    message = "The box cannot start a thread: too many processes are running. End some of them."
                    send_refusal(connection, BoxError("limit", message))

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._handle(connection)
            except BoxError as error:
                send_refusal(connection, error)
                drain(connection)
            except (ConnectionLostError, OSError):
                # The client has gone, or no longer reads.
                return
            except Exception as error:  # the outermost loop; the next request must be served
                logger.exception("A request failed unexpectedly")
                send_refusal(connection, BoxError("internal", f"{type(error).__name__}: {error}"))
            finally:
                self._slots.release()

    def _handle(self, connection: socket.socket) -> None:
        line, early = read_line(connection)
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BoxError("invalid", "The request is not valid JSON.") from error
        if not isinstance(request, dict):
            raise BoxError("invalid", "The request is not a JSON object.")
        operation = self._operations.get(str(request.get("op")))
        if operation is None:
            raise BoxError("invalid", f"There is no operation {str(request.get('op'))[:64]!r}.")
        operation(connection, request, early)

    def _ping(self, connection: socket.socket, request: dict[str, Any], early: bytes) -> None:
        send_answer(connection, {"ok": True, "boot_id": self._box.boot_id})

    def _call(self, connection: socket.socket, request: dict[str, Any], early: bytes) -> None:
        boot_id = self._box.boot_id
        try:
            expected = request.get("boot_id")
            if expected is not None and expected != boot_id:
                raise BoxError("rebooted", "The box was restarted before this call; it did not run.")
            line = self._answer_call(request)
        except BoxError as error:
            line = encode(refusal_of(error, boot_id=boot_id))
        connection.sendall(line)

    def _answer_call(self, request: dict[str, Any]) -> bytes:
        key = read_field(request, "key", str)
        function = read_field(request, "function", str)
        args = read_field(request, "args", dict)
        timeout = request.get("timeout_seconds", 60)
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= MAX_CALL_SECONDS:
            raise BoxError("invalid", f"'timeout_seconds' must be above 0 and at most {MAX_CALL_SECONDS}.")
        if not 0 < len(key) <= 256:
            raise BoxError("invalid", "'key' must have 1 to 256 characters.")
        try:
            return self._answered.answer(key, lambda: self._run(function, args, timeout))
        except AnswerForgottenError as error:
            raise BoxError("forgotten", "This call ran before, and its answer is no longer stored.") from error

    def _run(self, function: str, args: dict[str, Any], timeout_seconds: float) -> bytes:
        """Run the function and return the answer as a line. Never raises, because other calls wait for the answer."""
        boot_id = self._box.boot_id
        try:
            line = encode({"ok": True, "boot_id": boot_id, "result": self._box.run(function, args, timeout_seconds)})
            if len(line) > MAX_ANSWER_BYTES:
                message = f"The result of {function} has {len(line)} bytes. At most {MAX_ANSWER_BYTES} can be sent."
                raise BoxError("too_large", message)
        except BoxError as error:
            line = encode(refusal_of(error, boot_id=boot_id))
        except Exception as error:
            logger.exception("%s failed unexpectedly", function)
            line = encode(refusal_of(BoxError("internal", f"{type(error).__name__}: {error}"), boot_id=boot_id))
        return line

    def _file_read(self, connection: socket.socket, request: dict[str, Any], early: bytes) -> None:
        path = read_field(request, "path", str)
        file, size, content = open_to_send(self._box.paths.resolve(path), path)
        with file:
            send_answer(connection, {"ok": True, "size": size})
            send(connection, file, size, content)

    def _file_write(self, connection: socket.socket, request: dict[str, Any], early: bytes) -> None:
        path = read_field(request, "path", str)
        size = size_of(request)
        receive(connection, early, self._box.paths.resolve(path), path, size)
        send_answer(connection, {"ok": True, "size": size})

    def _shell_view(self, connection: socket.socket, request: dict[str, Any], early: bytes) -> None:
        send_answer(connection, {"ok": True, "result": self._box.shells.view(read_field(request, "name", str))})

    def _skill_list(self, connection: socket.socket, request: dict[str, Any], early: bytes) -> None:
        send_answer(connection, {"ok": True, "digests": self._box.skills.digests()})

    def _skill_write(self, connection: socket.socket, request: dict[str, Any], early: bytes) -> None:
        skill_id, digest = read_field(request, "id", str), read_field(request, "digest", str)
        size = size_of(request)
        if size > MAX_SKILL_ARCHIVE_BYTES:
            raise BoxError("too_large", f"A skill's archive has at most {MAX_SKILL_ARCHIVE_BYTES >> 20} MiB.")
        archive = receive_bytes(connection, early, size)
        self._box.skills.put(skill_id, digest, archive)
        send_answer(connection, {"ok": True, "size": size})


def size_of(request: dict[str, Any]) -> int:
    size = request.get("size")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise BoxError("invalid", "'size' must be the number of bytes that follow.")
    return size


def read_line(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return the line of the request, and the part of the body that arrived with it."""
    data = bytearray()
    while (end := data.find(b"\n", max(0, len(data) - 65536))) < 0:
        if len(data) > MAX_LINE_BYTES:
            raise BoxError("invalid", f"The request's line has more than {MAX_LINE_BYTES} bytes.")
        block = connection.recv(65536)
        if not block:
            raise ConnectionLostError
        data += block
    return bytes(data[:end]), bytes(data[end + 1 :])


def read_field(request: dict[str, Any], name: str, kind: type) -> Any:
    value = request.get(name)
    if not isinstance(value, kind):
        raise BoxError("invalid", f"The request needs {name!r}, {'an object' if kind is dict else 'a string'}.")
    return value


def refusal_of(error: BoxError, **more: str) -> dict[str, Any]:
    return {"ok": False, **more, "error": {"code": error.code, "message": error.message}}


def send_refusal(connection: socket.socket, error: BoxError) -> None:
    try:
        send_answer(connection, refusal_of(error))
    except OSError:
        # The client has gone.
        return


def drain(connection: socket.socket) -> None:
    """Read what the client still sends. Closing the connection with unread data would discard our refusal."""
    try:
        connection.shutdown(socket.SHUT_WR)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", DRAIN_SECONDS, 0))
        left = MAX_DRAINED_BYTES
        while left > 0 and (block := connection.recv(262144)):
            left -= len(block)
    except OSError:
        return


def send_answer(connection: socket.socket, value: dict[str, Any]) -> None:
    connection.sendall(encode(value))


def encode(value: dict[str, Any]) -> bytes:
    # File names and texts of pages may contain lone surrogates, which UTF-8 cannot encode.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
