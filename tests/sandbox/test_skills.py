"""The init container fetches skills by digest from a real server, checks them, and unpacks them safely."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import moorage_sandbox
from moorage_sandbox.protocol import MAX_SKILL_ARCHIVE_BYTES
from support.waiting import HANG_SECONDS

Members = list[tuple[tarfile.TarInfo, bytes]]


def member(
    name: str, content: bytes = b"x", *, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644
) -> Members:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    return [(info, content)]


def archive(*members: Members) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for info, content in [one for each in members for one in each]:
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(packed.getvalue())


CUT_OFF = -1
"""Used instead of a status: the response ends too early."""

GOOD = archive(
    member("SKILL.md", b"---\nname: pdf\n---\n"),
    member("scripts/run.sh", b"#!/bin/sh\n", mode=0o755),
    member("a/b/c", b""),
)


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class ArchiveServer:
    """Answers by path; `answers` may be changed while it runs."""

    url: str
    answers: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def offer(self, content: bytes, *, digest: str | None = None) -> str:
        digest = digest or digest_of(content)
        self.answers[f"/skills/{digest}"] = [(200, content)]
        return digest


@contextmanager
def serving() -> Iterator[ArchiveServer]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            turns = made.answers.get(self.path, [(404, b"")])
            code, content = turns.pop(0) if len(turns) > 1 else turns[0]
            if code == CUT_OFF:
                self.send_response(200)
                self.send_header("Content-Length", str(2 * len(content)))
                self.end_headers()
                self.wfile.write(content)
                return
            self.send_response(code)
            if code == 302:
                self.send_header("Location", content.decode())
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = ArchiveServer(f"http://127.0.0.1:{server.server_port}/skills")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server() -> Iterator[ArchiveServer]:
    with serving() as made:
        yield made


def run(server: ArchiveServer, home: Path, pins: object) -> subprocess.CompletedProcess[str]:
    """Run the program as the init container does."""
    source = Path(moorage_sandbox.__file__).parent.parent
    start = (
        f"import sys; sys.path.insert(0, {str(source)!r}); from moorage_sandbox.box.fetch_skills import main; main()"
    )
    environment = {"PATH": os.environ["PATH"], "MOORAGE_SKILLS": pins if isinstance(pins, str) else json.dumps(pins)}
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", start, f"--url={server.url}", f"--home={home}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_SECONDS,
    )


def skills_directory(home: Path) -> Path:
    return home / "workspace" / ".skills"


def test_skills_are_installed_with_their_file_modes_and_fetched_only_once(
    server: ArchiveServer, tmp_path: Path
) -> None:
    pins = [{"id": "pdf--0a1b2c3d", "digest": server.offer(GOOD)}]
    assert run(server, tmp_path, pins).returncode == 0
    skill = skills_directory(tmp_path) / "pdf--0a1b2c3d"
    assert (skill / "SKILL.md").read_text().startswith("---")
    assert os.access(skill / "scripts" / "run.sh", os.X_OK)
    assert not os.access(skill / "SKILL.md", os.X_OK)
    assert "Fetched 0 of 1 skills" in run(server, tmp_path, pins).stderr
    assert len(server.asked) == 1


def test_another_version_replaces_the_installed_one(server: ArchiveServer, tmp_path: Path) -> None:
    run(server, tmp_path, [{"id": "pdf", "digest": server.offer(GOOD)}])
    newer = archive(member("SKILL.md", b"newer"))
    assert run(server, tmp_path, [{"id": "pdf", "digest": server.offer(newer)}]).returncode == 0
    assert sorted(path.name for path in (skills_directory(tmp_path) / "pdf").iterdir()) == ["SKILL.md"]
    assert sorted(path.name for path in skills_directory(tmp_path).iterdir()) == [".digests", "pdf"]


def test_a_download_is_repeated_when_the_server_is_busy_or_stops_early(server: ArchiveServer, tmp_path: Path) -> None:
    digest = server.offer(GOOD)
    server.answers[f"/skills/{digest}"] = [(503, b""), (429, b""), (CUT_OFF, GOOD[:100]), (200, GOOD)]
    assert run(server, tmp_path, [{"id": "pdf", "digest": digest}]).returncode == 0
    assert len(server.asked) == 4


BOMB = gzip.compress(bytes(200 * 1024 * 1024))
OFFERS: dict[str, tuple[Callable[[ArchiveServer], str], str]] = {
    "another archive": (lambda server: server.offer(GOOD, digest=digest_of(b"")), "not the expected digest"),
    "no archive": (lambda server: digest_of(b"nowhere"), "the server refused the archive with status 404"),
    "a large archive": (lambda server: server.offer(bytes(MAX_SKILL_ARCHIVE_BYTES + 1)), "the archive is larger than"),
    "a bomb": (lambda server: server.offer(BOMB), "The unpacked archive has more than 12 MiB"),
    "no skill": (lambda server: server.offer(archive(member("README.md"))), "has no SKILL.md"),
    "a path upwards": (
        lambda server: server.offer(archive(member("../evil"))),
        "'../evil' is not a relative path",
    ),
}
"""The tests of the box, which unpacks with the same code, cover what else an archive may not contain."""


@pytest.mark.parametrize(("offer", "message"), OFFERS.values(), ids=OFFERS.keys())
def test_a_wrong_archive_is_refused_and_leaves_no_file(
    server: ArchiveServer, tmp_path: Path, offer: Callable[[ArchiveServer], str], message: str
) -> None:
    done = run(server, tmp_path, [{"id": "pdf", "digest": offer(server)}])
    assert done.returncode == 1
    assert "The skills cannot be fetched: pdf: " in done.stderr
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_redirects_are_not_followed(server: ArchiveServer, tmp_path: Path) -> None:
    digest = digest_of(GOOD)
    server.answers["/elsewhere"] = [(200, GOOD)]
    server.answers[f"/skills/{digest}"] = [(302, server.url.replace("/skills", "/elsewhere").encode())]
    assert run(server, tmp_path, [{"id": "pdf", "digest": digest}]).returncode == 1
    assert "/elsewhere" not in server.asked


@pytest.mark.parametrize(
    "pins",
    [
        "no json",
        "{}" * 2,
        [{"id": "../pdf", "digest": digest_of(b"")}],
        [{"id": "pdf", "digest": "latest"}],
        [{"id": "pdf", "digest": digest_of(b"") + "/.."}],
        [{"id": "pdf"}],
    ],
    ids=["no json", "half json", "a path for an id", "no digest", "a path for a digest", "no digest at all"],
)
def test_invalid_pins_are_refused(server: ArchiveServer, tmp_path: Path, pins: object) -> None:
    assert run(server, tmp_path, pins).returncode == 1
    assert server.asked == []
