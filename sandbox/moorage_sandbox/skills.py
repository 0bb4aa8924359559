"""Fetches a session's initial skills before its tools start: `python3 -I -m moorage_sandbox.skills --url URL`.

Runs as the pod's init container, as the box's own user, on the standard library alone. Which skills: `MOORAGE_SKILLS`,
`[{"id": …, "digest": "sha256:…"}]`. An archive is asked for by its digest, and the digest is the check: whoever answers
can't make it anything else.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import http.client
import json
import os
import re
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from typing import IO, Any

HOME = Path("/home/ubuntu")
MAX_FILES = 200
MAX_FILE_BYTES = 256 * 1024
MAX_BYTES = 10 * 1024 * 1024
MAX_ARCHIVE_BYTES = MAX_BYTES + 1024 * 1024
MAX_DEPTH = 16
TRIES = 5
FIRST_PAUSE_SECONDS = 0.5
TIMEOUT_SECONDS = 20
CHUNK_BYTES = 64 * 1024
DIGESTS = ".digests"
"""Beside the skills: which digest each of them is."""

SKILL_ID = re.compile(r"[a-z0-9]+(-+[a-z0-9]+)*")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
TERMINATION_LOG = Path("/dev/termination-log")


class SkillError(Exception):
    """A skill can't be had or may not be used. The text is for people."""


def wanted(text: str) -> list[tuple[str, str]]:
    """Ids and digests. Raises SkillError for what is none: they become paths and addresses."""
    try:
        pins = [(str(pin["id"]), str(pin["digest"])) for pin in json.loads(text)]
    except (ValueError, TypeError, KeyError) as error:
        raise SkillError("MOORAGE_SKILLS is no list of skills") from error
    for skill_id, digest in pins:
        if not SKILL_ID.fullmatch(skill_id) or len(skill_id) > 100 or not DIGEST.fullmatch(digest):
            raise SkillError(f"{skill_id[:100]!r} with {digest[:80]!r} is no skill")
    return pins


def sync(pins: list[tuple[str, str]], *, url: str, directory: Path) -> list[str]:
    """Have every skill in `directory`; those that are there in their version stay. Returns the ids of the new ones."""
    digests = directory / DIGESTS
    digests.mkdir(parents=True, exist_ok=True)
    fetched = []
    for skill_id, digest in pins:
        mark = digests / skill_id
        if mark.is_file() and mark.read_text() == digest and (directory / skill_id).is_dir():
            continue
        place(skill_id, digest, url=url, directory=directory)
        mark.write_text(digest)
        fetched.append(skill_id)
    return fetched


def place(skill_id: str, digest: str, *, url: str, directory: Path) -> None:
    """Fetch, compare, unpack beside, and put in place in one step."""
    archive, unpacked = directory / f".{skill_id}.archive", directory / f".{skill_id}.new"
    target, old = directory / skill_id, directory / f".{skill_id}.old"
    shutil.rmtree(unpacked, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    try:
        fetch(f"{url.rstrip('/')}/{digest}", digest, archive)
        unpacked.mkdir()
        with archive.open("rb") as file:
            unpack(file, unpacked)
        if not (unpacked / "SKILL.md").is_file():
            raise SkillError("the archive has no SKILL.md")
        if target.exists():
            target.rename(old)
        unpacked.rename(target)
    except SkillError as error:
        raise SkillError(f"{skill_id}: {error}") from error
    finally:
        archive.unlink(missing_ok=True)
        shutil.rmtree(unpacked, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def fetch(address: str, digest: str, target: Path) -> None:
    """Raises SkillError when it cannot be had after some tries, or is not what was asked for."""
    for attempt in range(TRIES):
        try:
            download(address, digest, target)
            return
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


def download(address: str, digest: str, target: Path) -> None:
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
    seen, size = hashlib.sha256(), 0
    with opener.open(address, timeout=TIMEOUT_SECONDS) as answer, target.open("wb") as file:
        while chunk := answer.read(CHUNK_BYTES):
            size += len(chunk)
            if size > MAX_ARCHIVE_BYTES:
                raise SkillError(f"the archive is larger than {MAX_ARCHIVE_BYTES} bytes")
            seen.update(chunk)
            file.write(chunk)
    if f"sha256:{seen.hexdigest()}" != digest:
        raise SkillError(f"the archive is not the one that was asked for: it is sha256:{seen.hexdigest()}")


def unpack(archive: IO[bytes], directory: Path) -> None:
    """Files and folders alone, below `directory`, within the limits of a bundle. Raises SkillError."""
    files = size = 0
    try:
        with gzip.GzipFile(fileobj=archive) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
            for member in tar:
                path = directory.joinpath(*parts_of(member.name))
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                if not member.isreg():
                    raise SkillError(f"{member.name!r} is no file and no folder")
                files, size = files + 1, size + member.size
                if files > MAX_FILES or member.size > MAX_FILE_BYTES or size > MAX_BYTES:
                    raise SkillError("it is larger than a skill may be")
                path.parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(member)
                assert content is not None
                with path.open("xb") as file:
                    shutil.copyfileobj(content, file)
                path.chmod(0o755 if member.mode & 0o100 else 0o644)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SkillError(f"the archive can't be unpacked: {error}") from error


def parts_of(name: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or len(path.parts) > MAX_DEPTH:
        raise SkillError(f"{name!r} leads out of the skill")
    return path.parts


def main() -> None:
    parser = argparse.ArgumentParser(prog="moorage_sandbox.skills", description=__doc__)
    parser.add_argument("--url", required=True, help="archives are at URL/DIGEST")
    parser.add_argument("--home", type=Path, default=HOME, help="home of the commands")
    options = parser.parse_args()
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
