"""Skills from GitHub tree URLs: the server fetches its tarballs from the suite's peers, CONTRACT_GITHUB=1."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from contract.bundles import SKILLS, list_skills, skill_md
from contract.peers import Peers
from contract.server import Caller, name
from contract.spec import proves

TREE = "https://github.com/contract/skills/tree"
Change = Callable[[tarfile.TarFile, str], None]
MIB = 1024 * 1024


def contents(slug: str) -> dict[str, bytes]:
    return {
        "SKILL.md": skill_md(slug).encode(),
        "references/how.md": b"Split at spaces.\n",
        "assets/logo.bin": bytes(range(256)),
    }


def add(tar: tarfile.TarFile, path: str, content: bytes = b"", **fields: object) -> None:
    member = tarfile.TarInfo(path)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


def tarball(files: dict[str, bytes], change: Change = lambda tar, top: None) -> bytes:
    """A repository in one top directory, after the comment that git writes."""
    packed = io.BytesIO()
    top = "skills-0000000"
    headers = {"comment": "0" * 40}
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT, pax_headers=headers) as tar,
    ):
        add(tar, top, type=tarfile.DIRTYPE)
        for path, content in files.items():
            add(tar, f"{top}/{path}", content)
        change(tar, top)
    return packed.getvalue()


def below(directory: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{directory}/{path}": content for path, content in files.items()}


@pytest.fixture
def github(admin: Caller, peers: Peers) -> Iterator[dict[str, bytes]]:
    """What GitHub has of contract/skills, by ref. At the end that, and what was installed from it, is gone."""
    if os.environ.get("CONTRACT_GITHUB") != "1":
        pytest.skip("CONTRACT_GITHUB is not set: the server asks the real GitHub")
    yield peers.archives
    peers.archives.clear()
    for skill in list_skills(admin):
        if skill["source_type"] == "github" and skill["source_ref"].startswith(TREE):
            admin.ask("DELETE", f"{SKILLS}/{skill['id']}")


def install(admin: Caller, ref_and_path: str, **more: object) -> dict[str, Any]:
    body = {"source_type": "github", "source_ref": f"{TREE}/{ref_and_path}", **more}
    item: dict[str, Any] = admin.post(f"{SKILLS}/install", json=body)
    return item


def check_refused(admin: Caller, ref_and_path: str, slug: str, *statuses: int) -> None:
    body = {"source_type": "github", "source_ref": f"{TREE}/{ref_and_path}"}
    answer = admin.send("POST", f"{SKILLS}/install", json=body)
    assert answer.status_code in statuses, answer.text
    assert answer.json()["code"] == answer.status_code
    assert len(answer.json()["msg"]) > 10
    assert slug not in str([skill["slug"] for skill in list_skills(admin)])


@proves("skills.github", f"POST {SKILLS}/install: success", "skills.id")
@pytest.mark.parametrize("ref", ["main", "feature/new-look", "release/2026/rc.1"])
def test_a_tree_url_with_any_ref_is_installed(admin: Caller, github: dict[str, bytes], ref: str) -> None:
    slug = name("skill")
    repository = {**below(f"some/skills/{slug}", contents(slug)), **below(f"some/skills/{slug}-2", contents("other"))}
    github[f"contract/skills/{ref}"] = tarball({**repository, "README.md": b"of the repository"})
    item = install(admin, f"{ref}/some/skills/{slug}")
    assert (item["slug"], item["source_type"], item["enabled"]) == (slug, "github", True)
    assert item["source_ref"] == f"{TREE}/{ref}/some/skills/{slug}"
    assert item["bundle_file_count"] == 3
    assert item["id"].startswith(f"{slug}--")
    assert [skill for skill in list_skills(admin) if skill["slug"] == slug] == [item]


@proves("skills.github", "skills.same-slug")
def test_another_branch_updates_the_skill(admin: Caller, github: dict[str, bytes]) -> None:
    slug = name("skill")
    github["contract/skills/main"] = tarball(below(slug, contents(slug)))
    changed = {**contents(slug), "SKILL.md": skill_md(slug, "Counts letters, too.").encode()}
    github["contract/skills/next/one"] = tarball(below(slug, changed))
    first = install(admin, f"main/{slug}")
    admin.post(f"{SKILLS}/{slug}/enabled", json={"enabled": False})
    second = install(admin, f"next/one/{slug}")
    assert (second["id"], second["enabled"], second["description"]) == (first["id"], False, "Counts letters, too.")
    assert second["source_ref"].endswith(f"next/one/{slug}")


@proves("skills.github-missing", f"POST {SKILLS}/install: 400")
def test_a_missing_repository_or_path_is_refused(admin: Caller, github: dict[str, bytes]) -> None:
    slug = name("skill")
    github["contract/skills/main"] = tarball({**below(slug, contents(slug)), f"empty-{slug}/notes.md": b"x"})
    for ref_and_path in (f"none/{slug}", f"no/such/ref/{slug}", f"main/elsewhere/{slug}", f"main/empty-{slug}"):
        check_refused(admin, ref_and_path, slug, 400, 404)


def many(tar: tarfile.TarFile, top: str) -> None:
    for number in range(201):
        add(tar, f"{top}/{number}.txt", b"x")


def big(tar: tarfile.TarFile, top: str) -> None:
    add(tar, f"{top}/big.txt", b"x" * (256 * 1024 + 1))


def big_in_all(tar: tarfile.TarFile, top: str) -> None:
    for number in range(41):
        add(tar, f"{top}/{number}.txt", os.urandom(128 * 1024) * 2)


def bomb(tar: tarfile.TarFile, top: str) -> None:
    """Beside the skill, so that no limit of bundles is what stops it. It packs to a thousandth."""
    for number in range(5):
        add(tar, f"{top.partition('/')[0]}/zeros-{number}", bytes(64 * MIB))


@proves("skills.github-size", f"POST {SKILLS}/install: 413")
@pytest.mark.parametrize("change", [many, big, big_in_all, bomb])
def test_an_archive_that_is_too_big_is_refused(admin: Caller, github: dict[str, bytes], change: Change) -> None:
    slug = name("skill")
    files = below(slug, contents(slug))
    github["contract/skills/main"] = tarball(files, lambda tar, top: change(tar, f"{top}/{slug}"))
    check_refused(admin, f"main/{slug}", slug, 413)
    github["contract/skills/main"] = tarball(files)
    assert install(admin, f"main/{slug}")["slug"] == slug, "a refused archive does not prevent a later installation"


def link(tar: tarfile.TarFile, top: str) -> None:
    add(tar, f"{top}/link.md", type=tarfile.SYMTYPE, linkname="/etc/passwd")


def hard_link(tar: tarfile.TarFile, top: str) -> None:
    add(tar, f"{top}/link.md", type=tarfile.LNKTYPE, linkname="/etc/passwd")


def parent(tar: tarfile.TarFile, top: str) -> None:
    add(tar, f"{top}/../../../escaped.txt", b"x")


def absolute(tar: tarfile.TarFile, top: str) -> None:
    add(tar, "/etc/escaped.txt", b"x")


def device(tar: tarfile.TarFile, top: str) -> None:
    add(tar, f"{top}/device", type=tarfile.CHRTYPE)


def executable(tar: tarfile.TarFile, top: str) -> None:
    add(tar, f"{top}/run", b"\x7fELF" + bytes(200))


@proves("skills.github-members", f"POST {SKILLS}/install: 400")
@pytest.mark.parametrize("change", [link, hard_link, parent, absolute, device, executable])
def test_an_archive_with_forbidden_members_is_refused(admin: Caller, github: dict[str, bytes], change: Change) -> None:
    slug = name("skill")
    github["contract/skills/main"] = tarball(below(slug, contents(slug)), lambda tar, top: change(tar, f"{top}/{slug}"))
    check_refused(admin, f"main/{slug}", slug, 400)


@proves("skills.github-members", f"POST {SKILLS}/install: 400")
@pytest.mark.parametrize("damage", ["cut", "no archive"])
def test_a_damaged_archive_is_refused(admin: Caller, github: dict[str, bytes], damage: str) -> None:
    slug = name("skill")
    good = tarball(below(slug, contents(slug)))
    github["contract/skills/main"] = good[: len(good) // 2] if damage == "cut" else b"<html>nothing here</html>"
    check_refused(admin, f"main/{slug}", slug, 400)


@proves("skills.github-missing", f"POST {SKILLS}/install: 400")
@pytest.mark.parametrize(
    "url",
    [
        "https://github.example.com/contract/skills/tree/main/a",
        "https://github.com/contract/skills",
        "https://github.com/contract/skills/tree/main/../../../a",
        "https://github.com@127.0.0.1/contract/skills/tree/main/a",
        "file:///etc/passwd",
        "main",
    ],
)
def test_a_url_that_is_not_a_tree_url_is_refused(admin: Caller, url: str) -> None:
    body = {"source_type": "github", "source_ref": url}
    answer = admin.send("POST", f"{SKILLS}/install", json=body)
    assert answer.status_code in (400, 422), answer.text
