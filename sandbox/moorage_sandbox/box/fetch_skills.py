"""Fetches a session's initial skills before its tools start.

Runs as the init container of a pod, as the user of the box, and unpacks with the box's code. `MOORAGE_SKILLS` lists
the skills: `[{"id": …, "digest": "sha256:…"}]`. An archive is requested by its digest and checked against it, so a
wrong or forged response is refused.
"""

from __future__ import annotations

import argparse
import http.client
import json
import logging
import os
import re
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from moorage_common.backoff import Backoff
from moorage_common.logging_setup import configure_logging
from moorage_sandbox.box.shared.errors import BoxError
from moorage_sandbox.box.skills import Skills
from moorage_sandbox.protocol import (
    DIGEST_PREFIX,
    HOME,
    MAX_SKILL_ARCHIVE_BYTES,
    PIN_PATTERN,
    SKILLS_FOLDER,
    WORKSPACE_FOLDER,
    is_skill_id,
)

logger = logging.getLogger(__name__)

TRIES = 5
BACKOFF = Backoff(first_seconds=0.5, longest_seconds=4)
TIMEOUT_SECONDS = 20

PINNED_DIGEST = re.compile(PIN_PATTERN)
TERMINATION_LOG = Path("/dev/termination-log")


class SkillError(Exception):
    """A skill cannot be fetched or unpacked. The text is for people."""


def parse_pins(text: str) -> list[tuple[str, str]]:
    """Return the ids and hexadecimal digests in MOORAGE_SKILLS.

    Raises SkillError for an invalid id or digest, because they become parts of paths and addresses.
    """
    try:
        pins = [(str(pin["id"]), str(pin["digest"])) for pin in json.loads(text)]
    except (ValueError, TypeError, KeyError) as error:
        raise SkillError("MOORAGE_SKILLS is not a JSON list of objects with `id` and `digest`") from error
    found = []
    for skill_id, pinned in pins:
        digest = PINNED_DIGEST.fullmatch(pinned)
        if not is_skill_id(skill_id) or digest is None:
            raise SkillError(f"MOORAGE_SKILLS names an invalid skill: id {skill_id[:100]!r}, digest {pinned[:80]!r}")
        found.append((skill_id, digest[1]))
    return found


def fetch_missing(pins: list[tuple[str, str]], *, url: str, directory: Path) -> list[str]:
    """Fetch the skills that `directory` does not hold in the wanted version. Returns the ids of the fetched ones."""
    skills = Skills(str(directory))
    there = skills.digests()
    fetched = []
    for skill_id, digest in pins:
        if there.get(skill_id) == digest:
            continue
        try:
            skills.put(skill_id, digest, fetch(f"{url.rstrip('/')}/{DIGEST_PREFIX}{digest}"))
        except (SkillError, BoxError) as error:
            raise SkillError(f"{skill_id}: {error}") from error
        fetched.append(skill_id)
    return fetched


def fetch(address: str) -> bytes:
    """Download an archive, with retries. Raises SkillError when the last attempt fails too."""
    for attempt in range(1, TRIES + 1):
        try:
            return download(address)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in (408, 429) and error.code < 500:
                raise SkillError(f"the server refused the archive with status {error.code}") from None
            reason = str(error.code)
        except (OSError, http.client.HTTPException) as error:
            reason = str(error)
        if attempt < TRIES:
            time.sleep(BACKOFF.pause_seconds(attempt))
    raise SkillError(f"the archive could not be fetched: {reason}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def download(address: str) -> bytes:
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=TIMEOUT_SECONDS) as answer:
        content: bytes = answer.read(MAX_SKILL_ARCHIVE_BYTES + 1)
        if len(content) > MAX_SKILL_ARCHIVE_BYTES:
            raise SkillError(f"the archive is larger than {MAX_SKILL_ARCHIVE_BYTES} bytes")
        if answer.length:  # read() with a size does not report a response that ended too early
            raise http.client.IncompleteRead(content, answer.length)
    return content


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="moorage_sandbox.box.fetch_skills", description=__doc__)
    parser.add_argument("--url", required=True, help="Where archives are fetched: URL/DIGEST.")
    parser.add_argument("--home", type=Path, default=Path(HOME), help="The home directory of the commands.")
    return parser


def main() -> None:
    options = argument_parser().parse_args()
    configure_logging()
    os.umask(0o022)
    try:
        pins = parse_pins(os.environ.get("MOORAGE_SKILLS", "[]"))
        fetched = fetch_missing(pins, url=options.url, directory=options.home / WORKSPACE_FOLDER / SKILLS_FOLDER)
    except (SkillError, OSError) as error:
        logger.error("The skills cannot be fetched: %s", error)
        if TERMINATION_LOG.exists():  # Kubernetes shows its content in the pod's status
            TERMINATION_LOG.write_text(str(error)[:4000])
        sys.exit(1)
    logger.info("Fetched %d of %d skills", len(fetched), len(pins))


if __name__ == "__main__":
    main()
