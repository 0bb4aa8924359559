"""Skills are installed in the box completely or not at all, and never outside of their folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from typing import Any

import pytest

from moorage_api.skills.bundles.archive import pack
from moorage_api.skills.bundles.bundle import Bundle
from moorage_sandbox.box import fetch_skills
from sandbox.box.running import Refused, RunningBox
from support.skills import Change, add, brand_report

SKILL = "brand-report--0a1b2c3d"


def archive_of(files: dict[str, bytes]) -> bytes:
    return pack(Bundle("brand-report", files)).data


def put(box: RunningBox, archive: bytes, *, skill_id: str = SKILL, digest: str = "") -> None:
    digest = digest or hashlib.sha256(archive).hexdigest()
    box.ask(archive, op="skill_write", id=skill_id, digest=digest, size=len(archive))


def digests(box: RunningBox) -> Any:
    return box.ask(op="skill_list")[0]["digests"]


def test_an_installed_skill_has_the_files_that_were_packed(box: RunningBox) -> None:
    archive = archive_of(brand_report())
    assert digests(box) == {}
    put(box, archive)
    assert digests(box) == {SKILL: hashlib.sha256(archive).hexdigest()}
    root = box.workspace / ".skills" / SKILL
    assert {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()} == (
        brand_report()
    )
    assert "== Q3 ==" in box.output("scripts/report.py Q3", directory=str(root))
    assert not os.access(root / "SKILL.md", os.X_OK)


def test_the_box_and_the_init_container_see_each_others_skills(box: RunningBox) -> None:
    archive = archive_of(brand_report())
    digest = hashlib.sha256(archive).hexdigest()
    put(box, archive)
    root = box.workspace / ".skills"
    assert fetch_skills.fetch_missing([(SKILL, digest)], url="http://127.0.0.1:1", directory=root) == []
    (root / "fetched").mkdir()
    (root / ".digests" / "fetched").write_text(f"sha256:{digest}")
    assert digests(box) == {SKILL: digest, "fetched": digest}


def test_an_update_leaves_nothing_of_the_older_version(box: RunningBox) -> None:
    put(box, archive_of(brand_report()))
    root = box.workspace / ".skills"
    (root / SKILL / "made-by-the-agent").write_text("x")
    newer = archive_of({"SKILL.md": b"new"})
    put(box, newer)
    assert [path.name for path in (root / SKILL).iterdir()] == ["SKILL.md"]
    assert sorted(path.name for path in root.iterdir()) == [".digests", SKILL]
    assert digests(box) == {SKILL: hashlib.sha256(newer).hexdigest()}


def test_changes_that_the_agent_made_to_a_skill_are_detected_or_repaired(box: RunningBox) -> None:
    archive = archive_of(brand_report())
    put(box, archive)
    box.output(f"rm -r .skills/{SKILL}; ln -s /etc .skills/{SKILL}; mkdir -p other", directory="")
    put(box, archive)
    assert (box.workspace / ".skills" / SKILL / "SKILL.md").is_file()
    assert not (box.workspace / ".skills" / SKILL).is_symlink()
    box.output(f"rm -r .skills/{SKILL}")
    assert digests(box) == {}
    box.output("rm -r .skills; mkfifo fifo; mkdir -p .skills/.digests .skills/x; mv fifo .skills/.digests/x")
    assert digests(box) == {}
    put(box, archive)
    assert list(digests(box)) == [SKILL]


def member(path: str, content: bytes = b"", **fields: object) -> Change:
    return lambda tar: add(tar, path, content, **fields)


def below_a_link(tar: tarfile.TarFile) -> None:
    add(tar, "a", type=tarfile.SYMTYPE, linkname="/tmp")
    add(tar, "a/outside")


def many(tar: tarfile.TarFile) -> None:
    for number in range(201):
        add(tar, f"{number}")


MEMBERS: dict[str, Change] = {
    "parent": member("../outside", b"x"),
    "deep_parent": member("a/../../outside", b"x"),
    "absolute": member("/tmp/outside", b"x"),
    "symbolic_link": member("a", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard_link": member("a", type=tarfile.LNKTYPE, linkname="SKILL.md"),
    "device": member("a", type=tarfile.CHRTYPE),
    "pipe": member("a", type=tarfile.FIFOTYPE),
    "below_a_link": below_a_link,
    "twice": member("SKILL.md", b"y"),
    "many": many,
}


@pytest.mark.parametrize("change", MEMBERS.values(), ids=MEMBERS)
def test_an_archive_with_paths_outside_of_it_leaves_the_older_version(shared_box: RunningBox, change: Change) -> None:
    good = archive_of(brand_report())
    put(shared_box, good)
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        add(tar, "SKILL.md", b"x")
        change(tar)
    with pytest.raises(Refused) as refused:
        put(shared_box, gzip.compress(plain.getvalue()))
    assert refused.value.code in ("invalid", "too_large")
    assert digests(shared_box) == {SKILL: hashlib.sha256(good).hexdigest()}
    assert (shared_box.workspace / ".skills" / SKILL / "SKILL.md").read_bytes() == brand_report()["SKILL.md"]
    assert not (shared_box.workspace / "outside").exists()
    assert sorted(path.name for path in (shared_box.workspace / ".skills").iterdir()) == [".digests", SKILL]


GOOD = archive_of(brand_report())


@pytest.mark.parametrize(
    ("archive", "skill_id", "digest"),
    [
        (GOOD, SKILL, "0" * 64),
        (GOOD, "../x", ""),
        (GOOD, ".digests", ""),
        (GOOD[:-4], SKILL, ""),
        (GOOD + b"more", SKILL, ""),
        (gzip.compress(bytes(13 * 2**20)), SKILL, ""),
        (b"no archive", SKILL, ""),
        (archive_of({"README.md": b"x"}), SKILL, ""),
    ],
    ids=["digest", "id", "marks", "cut", "longer", "bomb", "no_archive", "no_skill"],
)
def test_an_invalid_skill_is_refused(shared_box: RunningBox, archive: bytes, skill_id: str, digest: str) -> None:
    before = sorted(path.name for path in shared_box.workspace.rglob("*"))
    with pytest.raises(Refused):
        put(shared_box, archive, skill_id=skill_id, digest=digest)
    assert sorted(path.name for path in shared_box.workspace.rglob("*")) == before
