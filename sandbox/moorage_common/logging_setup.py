"""Logging of every process: JSON lines for machines, readable lines for a terminal.

A request id or a session id that is set with `log_context` appears in every line that is logged inside it. A process
that works for one session, such as a gate, gets the session's id in MOORAGE_SESSION_ID, and all its lines have it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType

FORMAT_VARIABLE = "MOORAGE_LOG_FORMAT"
"""`json` or `text`. The chart sets `json`; without the variable a process writes text."""

SESSION_VARIABLE = "MOORAGE_SESSION_ID"

RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "logger"}

_context: ContextVar[Mapping[str, str]] = ContextVar("log_context", default=MappingProxyType({}))
_process_fields: dict[str, str] = {}
"""Fields of every line of this process, in all threads."""


class log_context:
    """Add `fields` (such as `request_id`, `session_id`) to what this task and its subtasks log inside the block.

    Every request enters it, and a class costs half of what a generator does.
    """

    def __init__(self, **fields: str) -> None:
        self._fields = fields

    def __enter__(self) -> None:
        self._token = _context.set({**_context.get(), **self._fields})

    def __exit__(self, *_: object) -> None:
        _context.reset(self._token)


def extra_fields(record: logging.LogRecord) -> dict[str, str | int | float | bool]:
    """What `log_context` and the call's `extra` give a line beside its message. Only plain values are taken."""
    extra = {
        name: value
        for name, value in vars(record).items()
        if name not in RECORD_FIELDS and isinstance(value, str | int | float | bool)
    }
    return {**_process_fields, **_context.get(), **extra}


def logger_name(record: logging.LogRecord) -> str:
    """The logger's name, which is that of its module. A module that runs as the program has `__main__` as its name."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return str(spec.name) if record.name == "__main__" and spec is not None else record.name


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, the extra fields, and the traceback of an error."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": logger_name(record),
            "message": record.getMessage(),
            **extra_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """`2026-01-31 12:00:00,123 INFO moorage_api.main message (session_id=… seconds=2)`, then a traceback."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(logger)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.logger = logger_name(record)
        line = super().formatMessage(record)
        fields = " ".join(f"{name}={value}" for name, value in extra_fields(record).items())
        return f"{line} ({fields})" if fields else line


def configure_logging(*, quiet: Iterable[str] = (), silent: Iterable[str] = ()) -> None:
    """Log from INFO on to standard error: also warnings of Python, and errors that end the process or a thread.

    Raises ValueError for an unknown format in MOORAGE_LOG_FORMAT. Loggers named in `quiet` start at WARNING. Those in
    `silent` log nothing: their lines may hold secrets.
    """
    chosen = os.environ.get(FORMAT_VARIABLE) or "text"
    if chosen not in ("json", "text"):
        raise ValueError(f"{FORMAT_VARIABLE} is {chosen!r}. Set it to json or text.")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if chosen == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    if session_id := os.environ.get(SESSION_VARIABLE):
        _process_fields["session_id"] = session_id
    logging.captureWarnings(True)
    sys.excepthook = log_uncaught
    threading.excepthook = lambda ended: log_uncaught(ended.exc_type, ended.exc_value, ended.exc_traceback)
    for name in quiet:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in silent:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Log an error that ends the process or a thread. SystemExit and a Ctrl-C are no errors."""
    if issubclass(kind, SystemExit | KeyboardInterrupt):
        return
    logging.getLogger("moorage").critical("Ended by an unexpected error", exc_info=(kind, error or kind(), trace))
