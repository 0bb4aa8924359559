"""Names and limits that gate, box, host and their clients share. Standard library only, since the box imports it."""

from __future__ import annotations

import re
from enum import StrEnum

MAX_TOKEN_SECONDS = 120
"""The longest lifetime of a token. The gate refuses a token that was made for longer."""

MAX_CALL_SECONDS = 3600
"""The longest timeout that a call may ask for."""

MAX_CALL_KEY_CHARS = 100
MAX_CALL_BODY_BYTES = 4 * 1024 * 1024
MAX_RESULT_BYTES = 8 * 1024 * 1024
"""The largest result of a call, its screenshot included."""

MAX_TRANSFER_BYTES = 100 * 1024 * 1024
MAX_PATH_CHARS = 4096

MAX_PICTURE_BYTES = 5 * 1024 * 1024
"""The largest picture that `read_picture` may be asked for. As base64 it must fit into a result."""

MAX_SKILL_ARCHIVE_BYTES = 16 * 1024 * 1024
"""The largest archive of a skill, as it is sent. The unpacked files have their own limits."""
MAX_SKILL_FILES = 200

KEEP_ALIVE_SECONDS = 75
"""How long gate and host keep an unused connection. Their clients close it after 5 s, so it is never closed in use."""

HOME = "/home/ubuntu"
WORKSPACE_FOLDER = "workspace"
"""In the home directory."""
SKILLS_FOLDER = ".skills"
"""In the workspace. Each skill is in a folder named by its id; `.digests/<id>` beside it holds its archive's digest."""
WORKSPACE = f"{HOME}/{WORKSPACE_FOLDER}"
UPLOADS = f"{WORKSPACE}/upload"
OUTPUTS_FOLDER = ".cache/moorage/outputs"
"""In the home directory. Long outputs are kept there as files."""
OUTPUTS = f"{HOME}/{OUTPUTS_FOLDER}"
SKILLS = f"{WORKSPACE}/{SKILLS_FOLDER}"

DEBIAN_PYTHON = "/usr/bin/python3"
"""The Python of the sandbox's software. Another one that runs the box or the host may have no Pillow."""

X_SOCKETS = "/tmp/.X11-unix"  # noqa: S108 - the X protocol defines this path

SKILL_ID_PATTERN = r"[a-z0-9]+(-+[a-z0-9]+)*"
MAX_SKILL_ID_CHARS = 100


def is_skill_id(text: object) -> bool:
    return isinstance(text, str) and len(text) <= MAX_SKILL_ID_CHARS and bool(re.fullmatch(SKILL_ID_PATTERN, text))


DIGEST_PATTERN = r"[0-9a-f]{64}"
"""A SHA-256 in hexadecimal, as the gate's URLs and bodies hold it."""
DIGEST_PREFIX = "sha256:"
"""Stands before the hexadecimal digest in resources, in addresses of archives and in `.digests` files."""
PIN_PATTERN = f"{DIGEST_PREFIX}({DIGEST_PATTERN})"
"""A digest with its prefix. Its group is the hexadecimal digest."""

ALGORITHM = "EdDSA"

SHELL_FUNCTIONS = frozenset(
    {"shell_execute", "shell_read_output", "shell_wait_process", "shell_write_input", "shell_kill_process"}
)
FILE_FUNCTIONS = frozenset({"read_file", "write_file", "replace_in_file", "search_in_file", "find_files"})
PICTURE_FUNCTIONS = frozenset({"read_picture"})
"""What the runner calls itself to show a picture to a model. No model is offered these."""
BROWSER_FUNCTIONS = frozenset(
    {
        "browser_view",
        "browser_screenshot",
        "browser_navigate",
        "browser_restart",
        "browser_click",
        "browser_input",
        "browser_move_mouse",
        "browser_press_key",
        "browser_select_option",
        "browser_scroll_up",
        "browser_scroll_down",
        "browser_console_exec",
        "browser_console_view",
    }
)
SANDBOX_FUNCTIONS = SHELL_FUNCTIONS | FILE_FUNCTIONS | BROWSER_FUNCTIONS
"""What the agent's tools run in the box. Tests compare it with the box's signatures and the agent's tools."""


class Scope(StrEnum):
    """What a token allows. The trust file says which key may give which scopes."""

    BIND = "bind"
    CALL = "call"
    FILE_READ = "file:read"
    FILE_WRITE = "file:write"
    SKILLS = "skills"
    SHELL_READ = "shell:read"
    VNC = "vnc"


API_SCOPES = frozenset({Scope.VNC, Scope.FILE_READ, Scope.SHELL_READ})
RUNNER_SCOPES = frozenset(Scope)


class GateError(Exception):
    """The gate refused a request (`code` says why), or it cannot be reached (`code` is `unreachable`)."""

    def __init__(self, code: str, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
