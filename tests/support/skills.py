"""Skills as their authors publish them, and a server that offers repositories as GitHub does."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
FONT = b"\x00\x01\x00\x00\x00\x0c\x00\x80\x00\x03\x00\x40OS/2" + bytes(range(256)) * 20
REPORT = """#!/usr/bin/env python3
import pathlib, sys

here = pathlib.Path(__file__).parent.parent
template = (here / "assets" / "template.txt").read_text()
print(template.format(title=" ".join(sys.argv[1:])))
"""


def skill_md(name: str = "brand-report", description: str = "Makes reports in the house style.", more: str = "") -> str:
    return f"""---
name: {name}
description: {description}
license: Apache-2.0
{more}---

# Reports

Run `scripts/report.py` with the title; see [the guide](references/guide.pdf) for the style.
"""


ENTRY = """metadata:
  version: "1.10"
  entry.command: python3 scripts/report.py
"""


def brand_report(name: str = "brand-report", *, more: str = ENTRY, files: Mapping[str, bytes] = {}) -> dict[str, bytes]:
    """A skill with a script, a font and a PDF."""
    return {
        "SKILL.md": skill_md(name, more=more).encode(),
        "scripts/report.py": REPORT.encode(),
        "assets/template.txt": b"== {title} ==\n",
        "assets/House.ttf": FONT,
        "references/guide.pdf": PDF,
        **files,
    }


def write_skill(directory: Path, files: Mapping[str, bytes]) -> Path:
    for path, content in files.items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return directory


Change = Callable[[tarfile.TarFile], None]


def tarball(files: Mapping[str, bytes], *, top: str = "skills-main", change: Change = lambda _: None) -> bytes:
    """A repository as GitHub packs it: one directory after a comment. `change` can add members to the archive."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "0" * 40}) as tar:
        folder = tarfile.TarInfo(top)
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for path, content in files.items():
            add(tar, f"{top}/{path}", content)
        change(tar)
    return gzip.compress(plain.getvalue(), mtime=0)


def add(tar: tarfile.TarFile, path: str, content: bytes = b"", **fields: object) -> None:
    member = tarfile.TarInfo(path)
    member.size = len(content)
    for name, value in fields.items():
        setattr(member, name, value)
    tar.addfile(member, io.BytesIO(content))


@dataclass
class GitHub:
    """`archives` maps "owner/repository/ref" to a tarball, or to a URL it redirects to, or a status."""

    url: str = ""
    archives: dict[str, bytes | str | int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def offer(self, ref: str, files: Mapping[str, bytes], change: Change = lambda _: None) -> None:
        self.archives[f"acme/skills/{ref}"] = tarball(files, change=change)


@contextmanager
def running_github(*, host: str = "127.0.0.1") -> Iterator[GitHub]:
    github = GitHub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            owner, repository, kind, *ref = self.path.strip("/").split("/")
            name = f"{owner}/{repository}/{'/'.join(ref)}"
            github.asked.append(name)
            found = github.archives.get(name, 404) if kind == "tar.gz" else 404
            if isinstance(found, bytes):
                self.send_response(200)
                self.send_header("Content-Type", "application/x-gzip")
                self.send_header("Content-Length", str(len(found)))
                self.end_headers()
                self.wfile.write(found)
            elif isinstance(found, str):
                self.send_response(302)
                self.send_header("Location", found)
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self.send_error(found)

        def log_message(self, *_: object) -> None:
            """Print no log."""

    server = ThreadingHTTPServer((host, 0), Handler)
    github.url = f"http://{host}:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield github
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
