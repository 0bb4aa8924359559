"""Checks the addresses that the browser is asked to open."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

from moorage_sandbox.box.shared.errors import BoxError
from moorage_sandbox.box.shared.paths import Paths

SCHEMES = ("http", "https", "data", "file")
LOCAL = re.compile(r"(localhost|127\.[0-9.]+|\[::1\])(:\d+)?(/|$)")


def check_url(text: str, paths: Paths) -> str:
    """Return the address with its scheme.

    Raises BoxError: `invalid` for another scheme or a broken address, `forbidden` for a file outside of home.
    """
    text = text.strip()
    if text == "about:blank":
        return text
    # "example.com:8080" looks like a scheme and a path, but is a host and a port.
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):(?!\d)", text)
    if match is None:
        scheme, text = "http", ("http://" if LOCAL.match(text) else "https://") + text
    else:
        scheme = match[1].lower()
    if scheme not in SCHEMES:
        raise BoxError(
            "invalid", f"The browser opens http, https, data and file addresses and about:blank, not {scheme}."
        )
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise BoxError("invalid", f"{text[:200]!r} is not a valid address: {error}.") from error
    if scheme in ("http", "https") and not parts.hostname:
        raise BoxError("invalid", f"{text[:200]!r} is not a valid address: it has no host.")
    if scheme == "file":
        path = os.path.realpath(unquote(parts.path))
        if path != paths.home and not path.startswith(os.path.realpath(paths.home) + "/"):
            raise BoxError("forbidden", f"The browser opens only files below {paths.home}.")
    return text
