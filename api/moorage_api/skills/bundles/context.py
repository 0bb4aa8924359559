"""The text that the agent gets when it reads a skill: the body of SKILL.md and a list of the other files."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass

from moorage_api.skills.bundles.bundle import SKILL_MD, Bundle
from moorage_api.skills.bundles.limits import MAX_CONTEXT_BYTES
from moorage_api.skills.bundles.manifest import split_frontmatter

MAX_LISTED = 40
CUT = "\n[cut here: read SKILL.md itself for the rest]"


@dataclass(frozen=True)
class Context:
    """`blob` is the text, at most 12 KiB. `references` are the files of the bundle that SKILL.md mentions."""

    blob: str
    references: Sequence[str]


def context_of(bundle: Bundle) -> Context:
    _, body = split_frontmatter(bundle.skill_md)
    references = find_references(body, [path for path in bundle.files if path != SKILL_MD])
    others = [path for path in bundle.files if path != SKILL_MD and path not in references]
    listed = [*references, *others][:MAX_LISTED]
    lines = [f"- {path} ({len(bundle.files[path])} bytes)" for path in listed]
    if len(bundle.files) - 1 > len(listed):
        lines.append(f"- and {len(bundle.files) - 1 - len(listed)} more")
    files = "\n\nFiles of this skill:\n" + "\n".join(lines) if lines else ""
    room = MAX_CONTEXT_BYTES - len(files.encode())
    return Context(truncate(body, room) + files, references)


def find_references(body: str, paths: Sequence[str]) -> list[str]:
    """The paths that a Markdown text mentions in links, code or plain text, in the order of the text."""
    words = re.findall(r"[\w./-]+", body)
    known = set(paths)
    named = (posixpath.normpath(word.strip(".") if word.startswith("...") else word.rstrip(".")) for word in words)
    return list(dict.fromkeys(path for path in named if path in known))


def truncate(text: str, limit_bytes: int) -> str:
    data = text.encode()
    if len(data) <= limit_bytes:
        return text
    return data[: limit_bytes - len(CUT)].decode(errors="ignore") + CUT
