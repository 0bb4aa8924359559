"""Skills over HTTP: sources, refused files, updates, switches, deletion and permissions."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from skills_ref.validator import validate

from moorage_api.database import create_database, create_engine
from moorage_api.errors import NotFoundError, UnavailableError
from moorage_api.objects.keys import skill_archive_key
from moorage_api.skills.bundles.archive import Archive, digest_of
from moorage_api.skills.store import SkillArchives
from moorage_api.wiring.resources import blobs_of
from support.accounts import data, register
from support.skills import FONT, PDF, Change, add, brand_report, skill_md, tarball, write_skill

from .conftest import Admin, SkillApi

MIB = 1024 * 1024
TREE = "https://github.com/acme/skills/tree"


@pytest.fixture
def source(skill_api: SkillApi, tmp_path: Path) -> Path:
    """A skill that can be installed, in a directory of this test."""
    return write_skill(skill_api.roots / tmp_path.name / "brand-report", brand_report())


async def stored_members(skill_api: SkillApi, digest: str) -> dict[str, tarfile.TarInfo]:
    """The members of an archive in the object store. Checks its digest."""
    store = blobs_of(skill_api.platform.settings())
    found = await store.get(skill_archive_key(digest))
    archive = b"".join([chunk async for chunk in found.chunks])
    await store.close()
    assert hashlib.sha256(archive).hexdigest() == digest
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {member.name: member for member in tar}


async def test_a_local_skill_is_stored_as_one_archive(boss: Admin, skill_api: SkillApi, source: Path) -> None:
    assert validate(source) == [], "the validator of the specification accepts it"
    item = await boss.install_skill("local", source)
    assert item["id"] == f"brand-report--{hashlib.sha1(str(source).encode()).hexdigest()[:8]}"
    fields = {name: item[name] for name in ("slug", "version", "runtime_type", "enabled", "bundle_file_count")}
    assert fields == {
        "slug": "brand-report",
        "version": "1.10",
        "runtime_type": "native",
        "enabled": True,
        "bundle_file_count": 5,
    }
    assert (item["context_ref_count"], item["installed_by"], item["last_sync_at"]) == (2, boss.person.id, None)
    assert await boss.skills() == {"brand-report": item}
    members = await stored_members(skill_api, item["digest"])
    assert sorted(members) == sorted(brand_report())
    assert {(member.uid, member.mtime, member.uname) for member in members.values()} == {(0, 0, "")}
    assert [name for name, member in members.items() if member.mode & 0o111] == ["scripts/report.py"]
    assert (skill_api.cache / f"{item['digest']}.tar.gz").exists()


async def test_the_same_files_have_the_same_digest(boss: Admin, source: Path) -> None:
    first = await boss.install_skill("local", source)
    for path in source.rglob("*"):
        os.utime(path, (1, 1))
    (source / ".git").mkdir()
    (source / ".git" / "HEAD").write_text("a file that does not belong to the skill")
    assert (await boss.install_skill("local", source))["digest"] == first["digest"]


async def test_an_update_keeps_the_id_and_the_switch(boss: Admin, source: Path, skill_api: SkillApi) -> None:
    first = await boss.install_skill("local", source)
    data(await boss.person.client.post("/api/v2/skills/brand-report/enabled", json={"enabled": False}))
    (source / "SKILL.md").write_text(skill_md(description="Another one."))
    again = await boss.install_skill("local", source)
    assert (again["id"], again["enabled"], again["description"]) == (first["id"], False, "Another one.")
    assert (again["created_at"], again["digest"] != first["digest"]) == (first["created_at"], True)
    skill_api.github.offer("main", {f"x/brand-report/{path}": content for path, content in brand_report().items()})
    elsewhere = await boss.install_skill("github", f"{TREE}/main/x/brand-report")
    assert (elsewhere["id"], elsewhere["source_type"], elsewhere["enabled"]) == (first["id"], "github", False)
    assert len(await boss.skills()) == 1


async def test_concurrent_installations_of_a_skill_create_one_skill(boss: Admin, source: Path) -> None:
    items = await asyncio.gather(*(boss.install_skill("local", source) for _ in range(8)))
    assert len({item["id"] for item in items}) == 1
    assert list(await boss.skills()) == ["brand-report"]


async def test_a_skill_is_switched_by_id_or_slug_and_deleted_with_users_preferences(
    boss: Admin, source: Path, skill_api: SkillApi
) -> None:
    item = await boss.install_skill("local", source)
    client = boss.person.client
    engine = create_engine(skill_api.platform.database_url)
    db = create_database(engine)
    await db.fetch(
        "INSERT INTO tool_preferences (user_id, kind, tool_id, enabled) VALUES ($1, 'skill', $2, false)",
        boss.person.id,
        item["id"],
    )
    data(await client.post(f"/api/v2/skills/{item['id']}/enabled", json={"enabled": False}))
    assert (await boss.skills())["brand-report"]["enabled"] is False
    data(await client.delete(f"/api/v2/skills/{item['id']}"))
    assert await boss.skills() == {}
    assert await db.fetch("SELECT 1 FROM tool_preferences WHERE kind = 'skill'") == []
    await db.close()
    await engine.dispose()
    for response in (
        await client.delete("/api/v2/skills/brand-report"),
        await client.post("/api/v2/skills/brand-report/enabled", json={"enabled": True}),
        await client.delete("/api/v2/skills/..%2f..%2fetc"),
        await client.delete("/api/v2/skills/a%00b"),
        await client.delete(f"/api/v2/skills/{'x' * 200}"),
    ):
        assert response.status_code == 404


async def test_a_skill_md_in_the_request_replaces_the_one_of_the_source(
    boss: Admin, source: Path, skill_api: SkillApi
) -> None:
    override = skill_md(description="Said by the installer.")
    item = await boss.install_skill("local", source, skill_md=override, manifest={"version": "9", "unknown": [1]})
    assert (item["description"], item["version"]) == ("Said by the installer.", "9")
    members = await stored_members(skill_api, item["digest"])
    assert members["SKILL.md"].size == len(override.encode())
    assert (await boss.install_skill("local", source, skill_md=None, manifest=None))["version"] != "9"
    assert await boss.refusal("local", source, skill_md="no frontmatter") == (400, "bad_frontmatter")
    assert await boss.refusal("local", source, skill_md=skill_md("another-name")) == (400, "bad_name")
    assert await boss.refusal("local", source, manifest={"runtime_type": "jvm"}) == (400, "bad_runtime")
    odd: list[dict[str, Any]] = [{"tools": ["a\0"]}, {"tools": [1, {}]}, {"tools": {}}, {"version": []}]
    for manifest in (*odd, {"entry": {"command": "a\0"}}):
        assert await boss.refusal("local", source, manifest=manifest) == (400, "bad_field")


async def test_the_policy_can_be_set_and_read(boss: Admin) -> None:
    client = boss.person.client
    assert data(await client.get("/api/v2/skills/policy"))["mode"] in ("off", "enforce_confirmation")
    for mode in ("enforce_confirmation", "off"):
        assert data(await client.post("/api/v2/skills/policy", json={"mode": mode})) is None
        assert data(await client.get("/api/v2/skills/policy")) == {"mode": mode}
    assert (await client.post("/api/v2/skills/policy", json={"mode": "maybe"})).status_code == 422


def test_the_cache_directory_is_set_by_skills_root_dir(skill_api: SkillApi, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = skill_api.platform
    monkeypatch.setenv("SKILLS_ROOT_DIR", "/srv/skills")
    settings = platform.services.settings(database_url=platform.database_url, directory=platform.directory)
    assert settings.skills_root_dir == Path("/srv/skills")


ENDPOINTS: list[tuple[str, str, Any]] = [
    ("GET", "", None),
    ("POST", "/install", {"source_type": "local", "source_ref": "/x"}),
    ("POST", "/x/enabled", {"enabled": True}),
    ("DELETE", "/x", None),
    ("GET", "/policy", None),
    ("POST", "/policy", {"mode": "off"}),
]


@pytest.mark.parametrize(
    ("method", "path", "body"), ENDPOINTS, ids=[f"{method}{path}" for method, path, _ in ENDPOINTS]
)
async def test_only_admins_may_use_the_skill_endpoints(skill_api: SkillApi, method: str, path: str, body: Any) -> None:
    async with await register(skill_api.url) as alice:
        answer = await alice.client.request(method, f"/api/v2/skills{path}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, 403)
        anonymous = await alice.client.request(
            method, f"/api/v2/skills{path}", json=body, headers={"Authorization": ""}
        )
        assert anonymous.status_code == 401


def link(source: Path) -> None:
    (source / "notes.md").symlink_to("/etc/passwd")


def linked_directory(source: Path) -> None:
    (source / "more").symlink_to("/etc")


def hard_link(source: Path) -> None:
    (source / "outside").write_text("secret")
    os.link(source / "outside", source / "notes.md")


def many_files(source: Path) -> None:
    for number in range(200):
        (source / f"{number}.txt").touch()


def much_in_all(source: Path) -> None:
    for number in range(41):
        (source / f"{number}.bin").write_bytes(os.urandom(256 * 1024))


def add_file(name: str, content: bytes) -> Any:
    return lambda source: write_skill(source, {name: content})


PE = b"MZ" + bytes(58) + (64).to_bytes(4, "little") + b"PE\0\0"

REFUSED_LOCAL: dict[str, tuple[Any, int, str]] = {
    "link": (link, 400, "link"),
    "linked_directory": (linked_directory, 400, "link"),
    "hard_link": (hard_link, 400, "link"),
    "fifo": (lambda source: os.mkfifo(source / "pipe"), 400, "special_file"),
    "linux_program": (add_file("run", b"\x7fELF" + bytes(60)), 400, "executable"),
    "windows_program": (add_file("notes.txt", PE), 400, "executable"),
    "mac_program": (add_file("tool", b"\xcf\xfa\xed\xfe"), 400, "executable"),
    "library": (add_file("lib/a.so.1", b"text"), 400, "executable"),
    "bytecode": (add_file("a.pyc", b"text"), 400, "executable"),
    "wasm": (add_file("a", b"\0asm"), 400, "executable"),
    "big_file": (add_file("a.txt", bytes(256 * 1024 + 1)), 413, "file_too_large"),
    "many_files": (many_files, 413, "too_many_files"),
    "much_in_all": (much_in_all, 413, "bundle_too_large"),
    "newline_in_name": (add_file("a\nb", b""), 400, "bad_path"),
    "deep": (add_file("a/" * 12 + "b", b""), 400, "bad_path"),
    "long_name": (add_file("a" * 241, b""), 400, "bad_path"),
    "no_skill_md": (lambda source: (source / "SKILL.md").unlink(), 400, "no_skill_md"),
    "nul": (add_file("SKILL.md", skill_md().encode() + b"\0"), 400, "not_utf8"),
    "not_utf8": (add_file("SKILL.md", b"\xff\xfe"), 400, "not_utf8"),
    "other_name": (add_file("SKILL.md", skill_md("other").encode()), 400, "bad_name"),
    "unknown_field": (add_file("SKILL.md", skill_md(more="author: me\n").encode()), 400, "unknown_field"),
}


@pytest.mark.parametrize(("change", "status", "reason"), REFUSED_LOCAL.values(), ids=REFUSED_LOCAL)
async def test_a_directory_with_a_forbidden_file_is_refused_with_the_reason(
    boss: Admin, source: Path, change: Any, status: int, reason: str
) -> None:
    change(source)
    assert await boss.refusal("local", source) == (status, reason)
    assert await boss.skills() == {}


async def test_a_directory_outside_the_roots_is_refused(boss: Admin, skill_api: SkillApi, source: Path) -> None:
    outside = write_skill(skill_api.roots.parent / "outside" / "brand-report", brand_report())
    (source.parent / "way-out").symlink_to(outside.parent)
    for path in (outside, source.parent / "way-out" / "brand-report", "/etc", skill_api.roots):
        assert await boss.refusal("local", path) == (400, "outside_root")
    for path in ("brand-report", f"{source}/../brand-report", "~/brand-report"):
        assert await boss.refusal("local", path) == (400, "not_absolute")
    assert await boss.refusal("local", source / "missing") == (400, "not_found")
    assert await boss.refusal("local", source / "SKILL.md") == (400, "not_found")


@pytest.mark.parametrize("ref", ["main", "feature/new-look", "v1.0/rc/2"])
async def test_a_tree_url_may_have_a_ref_with_slashes(boss: Admin, skill_api: SkillApi, ref: str) -> None:
    files = {f"skills/brand-report/{path}": content for path, content in brand_report().items()}
    skill_api.github.archives.clear()
    skill_api.github.offer(ref, {**files, "README.md": b"of the repository", "skills/brand-report-2/SKILL.md": b""})
    item = await boss.install_skill("github", f"{TREE}/{ref}/skills/brand-report/")
    members = await stored_members(skill_api, item["digest"])
    assert sorted(members) == sorted(brand_report())
    assert (members["assets/House.ttf"].size, members["references/guide.pdf"].size) == (len(FONT), len(PDF))


async def test_a_whole_repository_can_be_a_skill(boss: Admin, skill_api: SkillApi) -> None:
    skill_api.github.archives = {"acme/brand-report/main": tarball(brand_report(), top="brand-report-main")}
    item = await boss.install_skill("github", "https://github.com/acme/brand-report/tree/main")
    assert item["bundle_file_count"] == 5


async def test_a_redirect_on_the_same_server_is_followed(boss: Admin, skill_api: SkillApi) -> None:
    github = skill_api.github
    files = {f"brand-report/{path}": content for path, content in brand_report().items()}
    github.archives = {"acme/renamed/main": tarball(files)}
    github.archives["acme/skills/main"] = f"{github.url}/acme/renamed/tar.gz/main"
    assert (await boss.install_skill("github", f"{TREE}/main/brand-report"))["slug"] == "brand-report"


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest", "http://127.0.0.1:1/x", "file:///etc/passwd"])
async def test_a_redirect_to_a_forbidden_address_is_refused(boss: Admin, skill_api: SkillApi, target: str) -> None:
    skill_api.github.archives = {"acme/skills/main": target}
    status, _ = await boss.refusal("github", f"{TREE}/main/brand-report")
    assert status == 400


@pytest.mark.parametrize(
    "url",
    [
        "https://gitlab.com/acme/skills/tree/main/a",
        "http://github.com/acme/skills/tree/main/a",
        "https://github.com/acme/skills/blob/main/a",
        "https://github.com/acme/skills",
        "https://github.com/acme/skills/tree/main/../../other",
        "https://github.com/acme/skills/tree/main/%2e%2e/a",
        "https://github.com/acme/skills/tree/main/a?x=1",
        "https://user@github.com/acme/skills/tree/main/a",
        "https://github.com:8080/acme/skills/tree/main/a",
        "https://[/tree",
        "https://github.com/-/skills/tree/main/a",
    ],
)
async def test_a_url_that_is_not_a_github_tree_is_refused(boss: Admin, skill_api: SkillApi, url: str) -> None:
    skill_api.github.asked.clear()
    assert await boss.refusal("github", url) == (400, "bad_url")
    assert skill_api.github.asked == []


async def test_a_missing_repository_ref_or_directory_is_an_error_that_says_so(boss: Admin, skill_api: SkillApi) -> None:
    skill_api.github.archives = {"acme/skills/main": tarball({"a/SKILL.md": b""}), "acme/broken/main": 500}
    assert await boss.refusal("github", f"{TREE}/dev/a") == (400, "ref_not_found")
    assert await boss.refusal("github", f"{TREE}/main/b") == (400, "not_found")
    assert await boss.refusal("github", "https://github.com/acme/broken/tree/main/a") == (400, "unreachable")


def member(path: str, content: bytes = b"", **fields: object) -> Change:
    return lambda tar: add(tar, f"skills-main/brand-report/{path}", content, **fields)


def at(path: str) -> Change:
    return lambda tar: add(tar, path, b"x")


def long_header(tar: tarfile.TarFile) -> None:
    add(tar, "skills-main/x", b"", pax_headers={"comment": "a" * 200_000})


REFUSED_MEMBERS: dict[str, tuple[Change, int, str]] = {
    "parent": (at("skills-main/brand-report/../../../etc/cron.d/x"), 400, "traversal"),
    "parent_elsewhere": (at("../x"), 400, "traversal"),
    "absolute": (at("/etc/cron.d/x"), 400, "traversal"),
    "backslash": (at("skills-main\\..\\x"), 400, "traversal"),
    "symbolic_link": (member("a", type=tarfile.SYMTYPE, linkname="/etc/passwd"), 400, "link"),
    "link_within": (member("a", type=tarfile.SYMTYPE, linkname="SKILL.md"), 400, "link"),
    "hard_link": (member("a", type=tarfile.LNKTYPE, linkname="/etc/passwd"), 400, "link"),
    "character_device": (member("a", type=tarfile.CHRTYPE), 400, "special_file"),
    "block_device": (member("a", type=tarfile.BLKTYPE), 400, "special_file"),
    "pipe": (member("a", type=tarfile.FIFOTYPE), 400, "special_file"),
    "twice": (member("SKILL.md", b"---\nname: other\n"), 400, "duplicate_path"),
    "file_and_directory": (member("scripts", b"x"), 400, "duplicate_path"),
    "setuid_program": (member("su", b"\x7fELF", mode=0o4755), 400, "executable"),
    "big_file": (member("a", bytes(300 * 1024)), 413, "file_too_large"),
    "odd_name": (member("a\udcff", type=tarfile.SYMTYPE, linkname="x"), 400, "link"),
    "control_in_name": (member("a\x07"), 400, "bad_path"),
    "long_header": (long_header, 413, "bad_archive"),
}


@pytest.mark.parametrize(("change", "status", "reason"), REFUSED_MEMBERS.values(), ids=REFUSED_MEMBERS)
async def test_an_archive_with_a_forbidden_member_is_refused(
    boss: Admin, skill_api: SkillApi, change: Change, status: int, reason: str
) -> None:
    files = {f"brand-report/{path}": content for path, content in brand_report().items()}
    skill_api.github.offer("main", files, change)
    assert await boss.refusal("github", f"{TREE}/main/brand-report") == (status, reason)
    assert await boss.skills() == {}


async def test_an_archive_that_decompresses_to_too_many_bytes_is_refused(boss: Admin, skill_api: SkillApi) -> None:
    files = {f"brand-report/{path}": content for path, content in brand_report().items()}
    skill_api.github.offer("main", files, lambda tar: add(tar, "skills-main/zeros", bytes(300 * MIB)))
    assert len(skill_api.github.archives["acme/skills/main"]) < MIB  # type: ignore[arg-type]
    assert await boss.refusal("github", f"{TREE}/main/brand-report") == (413, "bomb")


@pytest.mark.parametrize("damage", ["cut", "flipped", "no_gzip"])
async def test_a_damaged_archive_is_refused(boss: Admin, skill_api: SkillApi, damage: str) -> None:
    good = tarball({f"brand-report/{path}": content for path, content in brand_report().items()})
    bad = {"cut": good[:-9], "flipped": good[:-6] + b"\0\0\0\0\0\0", "no_gzip": b"hello" * 100}[damage]
    skill_api.github.archives = {"acme/skills/main": bad}
    assert await boss.refusal("github", f"{TREE}/main/brand-report") == (400, "bad_archive")


async def test_an_archive_with_another_digest_is_not_used(boss: Admin, skill_api: SkillApi, source: Path) -> None:
    digest = (await boss.install_skill("local", source))["digest"]
    store = blobs_of(skill_api.platform.settings())
    archives = SkillArchives(store, source.parent / "cache")
    good = await archives.get(digest)
    cached = source.parent / "cache" / "archives" / f"{digest}.tar.gz"
    cached.write_bytes(b"damaged")
    assert await archives.get(digest) == good, "a damaged copy is fetched again"
    assert cached.read_bytes() == good
    cached.unlink()
    await store.put(skill_archive_key(digest), b"another skill", content_type="application/gzip")
    with pytest.raises(UnavailableError):
        await archives.get(digest)
    assert not cached.exists()
    with pytest.raises(NotFoundError):
        await archives.get("0" * 64)
    await store.close()


async def test_a_full_cache_evicts_the_least_recently_used_archive(skill_api: SkillApi, source: Path) -> None:
    store = blobs_of(skill_api.platform.settings())
    archives = SkillArchives(store, source.parent / "small", limit_bytes=250)
    made = [Archive(digest_of(data), data) for data in (b"a" * 100, b"b" * 100, b"c" * 100)]
    for archive in made[:2]:
        await archives.put(archive)
    folder = source.parent / "small" / "archives"
    for age, archive in enumerate(made[:2]):
        os.utime(folder / f"{archive.digest}.tar.gz", (age, age))
    assert await archives.get(made[0].digest) == made[0].data, "this makes the oldest archive the most recently used"
    await archives.put(made[2])
    assert {path.name for path in folder.iterdir()} == {f"{made[index].digest}.tar.gz" for index in (0, 2)}
    assert await archives.get(made[1].digest) == made[1].data, "the object store has it"
    await store.close()
