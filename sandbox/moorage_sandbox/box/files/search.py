"""A program that prints, as JSON, the lines of standard input that match the regular expression in its argument."""

from __future__ import annotations

import json
import re
import resource
import sys

MAX_MATCHES = 200
MAX_TEXT = 500
MAX_MEMORY = 1 << 30
MAX_LINE_BYTES = 1 << 20


def search(regex: str) -> dict[str, object]:
    try:
        pattern = re.compile(regex)
    except (re.error, RecursionError, OverflowError) as error:
        return {"error": "invalid", "message": f"the regular expression is not valid: {error}"}
    matches: list[dict[str, object]] = []
    number = 0
    lines = open(0, "rb")  # noqa: SIM115 - standard input, until the end of the process
    if b"\0" in lines.peek(8192)[:8192]:
        return {"error": "invalid", "message": "this is a binary file, not text; use the shell (grep -a, strings)"}
    while line := lines.readline(MAX_LINE_BYTES):
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if found := pattern.search(text):
            if len(matches) == MAX_MATCHES:
                return {"matches": matches, "truncated": True}
            start = max(0, found.start() - MAX_TEXT // 2) if len(text) > MAX_TEXT else 0
            matches.append({"line": number, "text": text[start : start + MAX_TEXT]})
        # readline returns a longer line in several parts. Only the last part ends the line.
        number += line.endswith(b"\n")
    return {"matches": matches, "truncated": False}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    print(json.dumps(search(sys.argv[1])))
