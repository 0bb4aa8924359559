"""Skills to install from the directory that the suite and the server share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from contract.server import Caller, name

SKILLS = "/api/v2/skills"
Bundle = Callable[..., Path]
"""`bundle(slug, text=None, **files)` writes a bundle with this SKILL.md and these files; returns its directory."""


def skill_md(
    slug: str, description: str = "Counts words in a text. Use it when words are to be counted.", more: str = ""
) -> str:
    return f"---\nname: {slug}\ndescription: {description}\n{more}---\n# Count\n\nSee `references/how.md`.\n"


def write_bundle(root: Path, slug: str, text: str | None, files: dict[str, bytes]) -> Path:
    directory = root / name() / slug
    (directory / "references").mkdir(parents=True)
    (directory / "references" / "how.md").write_text("Split at spaces.\n")
    (directory / "SKILL.md").write_text(skill_md(slug) if text is None else text)
    for filename, content in files.items():
        (directory / filename).write_bytes(content)
    return directory


def list_skills(admin: Caller) -> list[dict[str, Any]]:
    skills: list[dict[str, Any]] = admin.get(SKILLS)["skills"]
    return skills


def install(admin: Caller, directory: Path, **more: object) -> dict[str, Any]:
    body = {"source_type": "local", "source_ref": str(directory), **more}
    item: dict[str, Any] = admin.post(f"{SKILLS}/install", json=body)
    return item
