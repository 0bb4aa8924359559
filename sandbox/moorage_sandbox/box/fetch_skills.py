"""Fetches a session's initial skills before its tools start.

Runs as the pod's init container, as the box's own user, and unpacks as the box does. Which skills: `MOORAGE_SKILLS`,
`[{"id": …, "digest": "sha256:…"}]`. An archive is asked for by its digest, and the digest is the check: whoever answers
can't make it anything else.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from moorage_sandbox.box.shared.errors import BoxError
from moorage_sandbox.box.skills import MAX_ARCHIVE_BYTES, Skills, is_id

HOME = Path("/home/ubuntu")
TRIES = 5
FIRST_PAUSE_SECONDS = 0.5
TIMEOUT_SECONDS = 20

PINNED = re.compile(r"sha256:([0-9a-f]{64})")
TERMINATION_LOG = Path("/dev/termination-log")


class SkillError(Exception):
    """A skill can't be had or may not be used. The text is for people."""


def wanted(text: str) -> list[tuple[str, str]]:
    """Ids and hexadecimal digests. Raises SkillError for what is none: they become paths and addresses."""
    try:
        pins = [(str(pin["id"]), str(pin["digest"])) for pin in json.loads(text)]
    except (ValueError, TypeError, KeyError) as error:
        raise SkillError("MOORAGE_SKILLS is no list of skills") from error
    found = []
    for skill_id, pinned in pins:
        digest = PINNED.fullmatch(pinned)
        if not is_id(skill_id) or digest is None:
            raise SkillError(f"{skill_id[:100]!r} with {pinned[:80]!r} is no skill")
        found.append((skill_id, digest[1]))
    return found


def sync(pins: list[tuple[str, str]], *, url: str, directory: Path) -> list[str]:
    """Have every skill in `directory`; those that are there in their version stay. Returns the ids of the new ones."""
    skills = Skills(str(directory))
    there = skills.digests()
    fetched = []
    for skill_id, digest in pins:
        if there.get(skill_id) == digest:
            continue
        try:
            skills.put(skill_id, digest, fetch(f"{url.rstrip('/')}/sha256:{digest}"))
        except (SkillError, BoxError) as error:
            raise SkillError(f"{skill_id}: {error}") from error
        fetched.append(skill_id)
    return fetched


def fetch(address: str) -> bytes:
    """Raises SkillError when it cannot be had after some tries."""
    for attempt in range(TRIES):
        try:
            return download(address)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in (408, 429) and error.code < 500:
                raise SkillError(f"the archive is not there ({error.code})") from None
            reason = str(error.code)
        except (OSError, http.client.HTTPException) as error:
            reason = str(error)
        if attempt + 1 < TRIES:
            time.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
    raise SkillError(f"the archive could not be fetched: {reason}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def download(address: str) -> bytes:
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=TIMEOUT_SECONDS) as answer:
        content: bytes = answer.read(MAX_ARCHIVE_BYTES + 1)
        if len(content) > MAX_ARCHIVE_BYTES:
            raise SkillError(f"the archive is larger than {MAX_ARCHIVE_BYTES} bytes")
        if answer.length:  # a bounded read says nothing of an answer that was cut off
            raise http.client.IncompleteRead(content, answer.length)
    return content


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="moorage_sandbox.box.fetch_skills", description=__doc__)
    parser.add_argument("--url", required=True, help="Where archives are fetched: URL/DIGEST.")
    parser.add_argument("--home", type=Path, default=HOME, help="The home directory of the commands.")
    return parser


def main() -> None:
    options = argument_parser().parse_args()
    os.umask(0o022)
    try:
        pins = wanted(os.environ.get("MOORAGE_SKILLS", "[]"))
        fetched = sync(pins, url=options.url, directory=options.home / "workspace" / ".skills")
    except (SkillError, OSError) as error:
        print(f"skills: {error}", file=sys.stderr)
        if TERMINATION_LOG.exists():  # what the pod's status shows
            TERMINATION_LOG.write_text(str(error)[:4000])
        sys.exit(1)
    print(f"skills: {len(fetched)} of {len(pins)} fetched", file=sys.stderr)


if __name__ == "__main__":
    main()
