"""Log lines: JSON for machines, text for a terminal, both with the ids of what is being worked on."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest

from moorage_common.logging_setup import JsonFormatter, TextFormatter, log_context

PROGRAM = """
import logging
from moorage_common.logging_setup import configure_logging, log_context
configure_logging(quiet=("chatty",), silent=("secretive",))
with log_context(session_id="s1"):
    logging.getLogger("moorage").info("A run begins", extra={"attempts": 2})
logging.getLogger("chatty").info("not shown")
logging.getLogger("secretive").error("never shown")
"""


def run_program(log_format: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "MOORAGE_LOG_FORMAT"}
    if log_format is not None:
        environment["MOORAGE_LOG_FORMAT"] = log_format
    return subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)


def make_record(**extra: object) -> logging.LogRecord:
    return logging.getLogger("moorage").makeRecord("moorage", logging.INFO, "f", 1, "Hello", (), None, extra=extra)


def test_with_json_each_line_is_one_object_that_names_its_session() -> None:
    (line,) = run_program("json").stderr.splitlines()
    record = json.loads(line)
    assert {name: record[name] for name in ("level", "logger", "message", "session_id", "attempts")} == {
        "level": "info",
        "logger": "moorage",
        "message": "A run begins",
        "session_id": "s1",
        "attempts": 2,
    }


@pytest.mark.parametrize("log_format", [None, "", "text"])
def test_without_a_setting_lines_are_for_people(log_format: str | None) -> None:
    (line,) = run_program(log_format).stderr.splitlines()
    assert line.endswith("INFO moorage A run begins (session_id=s1 attempts=2)")


def test_an_unknown_format_is_refused_by_name() -> None:
    result = run_program("xml")
    assert result.returncode != 0
    assert "MOORAGE_LOG_FORMAT is 'xml'. Set it to json or text." in result.stderr


def test_the_ids_of_nested_work_stand_together_and_end_with_it() -> None:
    with log_context(request_id="r1"):
        with log_context(session_id="s1"):
            assert json.loads(JsonFormatter().format(make_record()))["request_id"] == "r1"
            assert json.loads(JsonFormatter().format(make_record()))["session_id"] == "s1"
        assert "session_id" not in json.loads(JsonFormatter().format(make_record()))
    assert TextFormatter().format(make_record()).endswith("INFO moorage Hello")


def test_only_plain_values_are_logged() -> None:
    line = json.loads(JsonFormatter().format(make_record(seconds=1.5, secret={"key": "value"})))
    assert line["seconds"] == 1.5
    assert "secret" not in line
