"""Skills, from a directory that the suite and the server share: CONTRACT_SKILLS_DIR, below an allowed root."""

from __future__ import annotations

import re

import pytest

from contract.bundles import SKILLS, Bundle, install, list_skills, skill_md
from contract.server import Caller, name
from contract.spec import proves

ITEM = {
    "id",
    "slug",
    "name",
    "description",
    "version",
    "source_type",
    "source_ref",
    "runtime_type",
    "enabled",
    "installed_by",
    "created_at",
    "updated_at",
    "bundle_file_count",
    "context_ref_count",
    "last_sync_at",
}


@proves(f"POST {SKILLS}/install: success", f"GET {SKILLS}: success", "skills.id")
def test_a_skill_is_installed_and_listed(admin: Caller, bundle: Bundle) -> None:
    slug = name("skill")
    directory = bundle(slug)
    item = install(admin, directory)
    assert set(item) >= ITEM
    assert re.fullmatch(rf"{slug}--[0-9a-f]{{8}}", item["id"])
    assert (item["slug"], item["source_type"], item["runtime_type"]) == (slug, "local", "native")
    assert item["source_ref"] == str(directory)
    assert item["enabled"] is True
    assert item["bundle_file_count"] == 2
    assert item["description"].startswith("Counts words")
    assert [skill["id"] for skill in list_skills(admin) if skill["slug"] == slug] == [item["id"]]


@proves(f"POST {SKILLS}/install: success", "skills.same-slug")
def test_the_same_slug_is_updated_in_place(admin: Caller, bundle: Bundle) -> None:
    slug = name("skill")
    first = install(admin, bundle(slug))
    admin.post(f"{SKILLS}/{first['id']}/enabled", json={"enabled": False})
    again = install(admin, bundle(slug, skill_md(slug, "Counts letters, too.")))
    assert (again["id"], again["enabled"]) == (first["id"], False)
    assert again["description"] == "Counts letters, too."
    assert len([skill for skill in list_skills(admin) if skill["slug"] == slug]) == 1


@proves("skills.override")
def test_an_override_becomes_the_skill(admin: Caller, bundle: Bundle) -> None:
    slug = name("skill")
    item = install(admin, bundle(slug), skill_md=skill_md(slug, "Said by the override."))
    assert item["description"] == "Said by the override."


@proves(f"POST {SKILLS}/install: 400", "skills.refused")
@pytest.mark.parametrize("kind", ["outside", "relative", "none", "no SKILL.md", "link", "executable", "big", "front"])
def test_a_refused_skill_reports_the_reason(admin: Caller, bundle: Bundle, kind: str) -> None:
    slug = name("skill")
    directory = bundle(slug)
    source = str(directory)
    match kind:
        case "outside":
            source = "/etc"
        case "relative":
            source = "relative/path"
        case "none":
            source = f"{directory}-none"
        case "no SKILL.md":
            (directory / "SKILL.md").unlink()
        case "link":
            (directory / "link.md").symlink_to("/etc/passwd")
        case "executable":
            (directory / "run").write_bytes(b"\x7fELF" + bytes(200))
        case "big":
            (directory / "big.txt").write_bytes(b"x" * (256 * 1024 + 1))
        case "front":
            (directory / "SKILL.md").write_text("# No front matter\n")
    response = admin.send("POST", f"{SKILLS}/install", json={"source_type": "local", "source_ref": source})
    assert response.status_code in (400, 413, 422), response.text
    assert len(response.json()["msg"]) > 10
    assert slug not in str(list_skills(admin))


@proves("skills.reserved", f"POST {SKILLS}/install: 400")
@pytest.mark.parametrize("slug", ["policy", "install"])
def test_reserved_slugs_are_refused(admin: Caller, bundle: Bundle, slug: str) -> None:
    body = {"source_type": "local", "source_ref": str(bundle(slug))}
    response = admin.send("POST", f"{SKILLS}/install", json=body)
    assert response.status_code in (400, 422)


@proves(f"POST {SKILLS}/install: 422")
def test_an_unknown_kind_of_source_is_refused(admin: Caller) -> None:
    for body in ({}, {"source_type": "ftp", "source_ref": "/x"}, {"source_type": "local"}):
        admin.ask("POST", f"{SKILLS}/install", json=body, expect=422)


@proves(f"POST {SKILLS}/{{skill_key}}/enabled: success", f"POST {SKILLS}/{{skill_key}}/enabled: 422")
def test_a_skill_is_switched_by_id_and_by_slug(admin: Caller, bundle: Bundle) -> None:
    item = install(admin, bundle(name("skill")))
    for key, enabled in ((item["id"], False), (item["slug"], True)):
        assert admin.post(f"{SKILLS}/{key}/enabled", json={"enabled": enabled}) is None
        (now,) = [skill for skill in list_skills(admin) if skill["id"] == item["id"]]
        assert now["enabled"] is enabled
    admin.ask("POST", f"{SKILLS}/{item['id']}/enabled", json={}, expect=422)


@proves(f"DELETE {SKILLS}/{{skill_key}}: success")
@pytest.mark.parametrize("by", ["id", "slug"])
def test_a_deleted_skill_is_gone(admin: Caller, bundle: Bundle, by: str) -> None:
    item = install(admin, bundle(name("skill")))
    assert admin.delete(f"{SKILLS}/{item[by]}") is None
    assert item["id"] not in str(list_skills(admin))
    admin.ask("DELETE", f"{SKILLS}/{item[by]}", expect=404)


@proves(f"GET {SKILLS}/policy: success", f"POST {SKILLS}/policy: success")
def test_the_policy_is_set(admin: Caller) -> None:
    before = admin.get(f"{SKILLS}/policy")
    for mode in ("enforce_confirmation", "off"):
        assert admin.post(f"{SKILLS}/policy", json={"mode": mode}) is None
        assert admin.get(f"{SKILLS}/policy") == {"mode": mode}
    admin.post(f"{SKILLS}/policy", json=before)


@proves(f"POST {SKILLS}/policy: 422")
def test_an_unknown_policy_is_refused(admin: Caller) -> None:
    for body in ({}, {"mode": "lenient"}):
        admin.ask("POST", f"{SKILLS}/policy", json=body, expect=422)
