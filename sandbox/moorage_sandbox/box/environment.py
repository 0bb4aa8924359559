"""The environment variables of every program that runs in the box."""

from __future__ import annotations

import os

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PASSED_ON = ("TZ", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
"""Commands get no other variable of the box's own environment."""


def command_environment(*, home: str, display: str) -> dict[str, str]:
    """Return variables for a dumb terminal without a pager, so that programs print plain text and do not wait."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ} | {
        "HOME": home,
        "USER": "ubuntu",
        "LOGNAME": "ubuntu",
        "SHELL": "/bin/bash",
        "PATH": f"{home}/.local/bin:{SYSTEM_PATH}",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
        "PAGER": "cat",
        "GIT_PAGER": "cat",
        "MANPAGER": "cat",
        "SYSTEMD_PAGER": "cat",
        "DISPLAY": display,
        "MPLBACKEND": "Agg",
        # Debian refuses `pip install` outside of a virtual environment (PEP 668). Here it is wanted: the packages go to
        # ~/.local of this user, and the sandbox ends with the session.
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
    }
