"""The parameters of the sandbox functions, and the check of the arguments that a model wrote for them."""

from __future__ import annotations

from typing import Any, NamedTuple

from moorage_sandbox.box.shared.errors import BoxError
from moorage_sandbox.protocol import MAX_CALL_SECONDS, MAX_PATH_CHARS, MAX_PICTURE_BYTES


class Param(NamedTuple):
    """`kind` is text, integer, number or flag. `least` and `most` bound a number, or the length of a text."""

    kind: str
    required: bool = True
    least: float = 0
    most: float = 1_000_000


NAME = Param("text", least=1, most=64)
PATH = Param("text", most=MAX_PATH_CHARS)
PATTERN = Param("text", most=4096)
TEXT = Param("text", most=4 * 1024 * 1024)
FLAG = Param("flag")
OPTIONAL_FLAG = Param("flag", required=False)
LINE = Param("integer", required=False, most=1_000_000_000)
INDEX = Param("integer")
OPTIONAL_INDEX = Param("integer", required=False)
COORDINATE = Param("number", most=100_000)
OPTIONAL_COORDINATE = Param("number", required=False, most=100_000)
URL = Param("text", most=1024 * 1024)

SIGNATURES: dict[str, dict[str, Param]] = {
    "shell_execute": {"session_id": NAME, "exec_dir": PATH, "command": TEXT},
    "shell_read_output": {"session_id": NAME},
    "shell_wait_process": {"session_id": NAME, "seconds": Param("number", required=False, most=MAX_CALL_SECONDS)},
    "shell_write_input": {"session_id": NAME, "input_text": TEXT, "press_enter": FLAG},
    "shell_kill_process": {"session_id": NAME},
    "read_file": {
        "filepath": PATH,
        "start_line": LINE,
        "end_line": LINE,
        "max_length": Param("integer", required=False, least=1),
    },
    "read_picture": {
        "filepath": PATH,
        "max_bytes": Param("integer", least=1, most=MAX_PICTURE_BYTES),
        "max_pixels": Param("integer", least=1, most=100_000_000),
    },
    "write_file": {
        "filepath": PATH,
        "content": TEXT,
        "append": OPTIONAL_FLAG,
        "leading_newline": OPTIONAL_FLAG,
        "trailing_newline": OPTIONAL_FLAG,
    },
    "replace_in_file": {"filepath": PATH, "old_str": TEXT, "new_str": TEXT},
    "search_in_file": {"filepath": PATH, "regex": PATTERN},
    "find_files": {"dir_path": PATH, "glob_pattern": PATTERN},
    "browser_view": {},
    "browser_screenshot": {},
    "browser_navigate": {"url": URL},
    "browser_restart": {"url": URL},
    "browser_click": {
        "index": OPTIONAL_INDEX,
        "coordinate_x": OPTIONAL_COORDINATE,
        "coordinate_y": OPTIONAL_COORDINATE,
    },
    "browser_input": {
        "text": Param("text", most=100_000),
        "press_enter": FLAG,
        "index": OPTIONAL_INDEX,
        "coordinate_x": OPTIONAL_COORDINATE,
        "coordinate_y": OPTIONAL_COORDINATE,
    },
    "browser_move_mouse": {"coordinate_x": COORDINATE, "coordinate_y": COORDINATE},
    "browser_press_key": {"key": Param("text", most=64)},
    "browser_select_option": {"index": INDEX, "option": INDEX},
    "browser_scroll_up": {"to_top": OPTIONAL_FLAG},
    "browser_scroll_down": {"to_bottom": OPTIONAL_FLAG},
    "browser_console_exec": {"javascript": Param("text", most=1024 * 1024)},
    "browser_console_view": {"max_lines": Param("integer", required=False, least=1, most=1000)},
}

KINDS: dict[str, tuple[type, ...]] = {"text": (str,), "integer": (int,), "number": (int, float), "flag": (bool,)}
KIND_WORDS = {"text": "a string", "integer": "a whole number", "number": "a number", "flag": "true or false"}


def check_arguments(function: str, args: dict[str, Any]) -> dict[str, Any]:
    """Return `args` without optional arguments that are null.

    Raises BoxError: `unknown_function`, or `invalid` with the argument and what is wrong with it.
    """
    signature = SIGNATURES.get(function)
    if signature is None:
        raise BoxError("unknown_function", f"There is no function {function!r}.")
    if unknown := sorted(set(args) - set(signature)):
        raise BoxError(
            "invalid",
            f"{function} has no parameter {unknown[0]!r}. Its parameters are: {_describe_signature(signature)}.",
        )
    values: dict[str, Any] = {}
    for name, param in signature.items():
        value = args.get(name)
        if value is not None:
            _check_value(function, name, param, value)
            values[name] = value
        elif param.required:
            raise BoxError(
                "invalid", f"{function} needs {name!r}. Its parameters are: {_describe_signature(signature)}."
            )
    return values


def _check_value(function: str, name: str, param: Param, value: Any) -> None:
    # In Python, bool is a subclass of int. A JSON true is not a number.
    if not isinstance(value, KINDS[param.kind]) or (type(value) is bool and param.kind != "flag"):
        raise BoxError("invalid", f"{function}: {name!r} must be {KIND_WORDS[param.kind]}, not {str(value)[:80]!r}.")
    if isinstance(value, str):
        if not param.least <= len(value) <= param.most:
            wanted = f"{param.least:g} to {param.most:.0f} characters"
            raise BoxError("invalid", f"{function}: {name!r} must have {wanted}, not {len(value)}.")
        if "\0" in value:
            raise BoxError("invalid", f"{function}: {name!r} must not contain a NUL character.")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise BoxError("invalid", f"{function}: {name!r} contains half of a surrogate pair.") from error
    elif isinstance(value, int | float) and not param.least <= value <= param.most:
        raise BoxError(
            "invalid", f"{function}: {name!r} must be from {param.least:g} to {param.most:.0f}, not {value}."
        )


def _describe_signature(signature: dict[str, Param]) -> str:
    return ", ".join(name if it.required else f"{name} (optional)" for name, it in signature.items()) or "none"
