"""What SKILL.md says about a skill: the Agent Skills specification's part, checked strictly, and ours.

The standard fields are `name`, `description`, `license`, `compatibility`, `allowed-tools` and `metadata`. Ours stand in
`metadata`, where the specification lets everyone add keys: `version`, `runtime_type` (native, mcp, a2a), `server` (an
MCP server's name, a remote agent's id or address), `tools` (of that server, all if left out), and `entry` with
`command` and `exec_dir`, also written `entry.command`. Older bundles have them at the top level.
Source: agentskills.io, "Specification".
"""

from __future__ import annotations

import hashlib
import re
import shlex
import unicodedata
from collections.abc import Mapping
from typing import Any, Literal

import yaml
from pydantic import BaseModel

from moorage_api.errors import SkillRefusedError
from moorage_api.text import check_storable
from moorage_sandbox.protocol import SKILLS

RuntimeType = Literal["native", "mcp", "a2a"]

MAX_NAME_CHARS = 64
MAX_DESCRIPTION_CHARS = 1024
MAX_COMPATIBILITY_CHARS = 500
MAX_FRONTMATTER_CHARS = 16 * 1024
MAX_NESTING = 16
MAX_OWN_CHARS = 2000
MAX_TOOLS = 100

STANDARD = frozenset({"name", "description", "license", "compatibility", "allowed-tools", "metadata"})
OWN = ("version", "runtime_type", "server", "tools", "entry")
RESERVED_SLUGS = frozenset({"policy", "install"})
"""They are endpoints beside `/{skill_key}`."""
RUNTIME_TYPES: tuple[RuntimeType, ...] = ("native", "mcp", "a2a")


class Entry(BaseModel):
    """The command a native skill is run by, and where. Without `exec_dir` it is the skill's own directory."""

    command: str = ""
    exec_dir: str = ""


class Manifest(BaseModel):
    """Stored with each version of a skill; all that a session needs to know of it besides its files."""

    name: str
    slug: str
    description: str
    license: str = ""
    compatibility: str = ""
    allowed_tools: str = ""
    version: str = "0.1.0"
    runtime_type: RuntimeType = "native"
    server: str = ""
    tools: list[str] = []
    entry: Entry = Entry()

    def exec_dir(self, skill_id: str) -> str:
        return self.entry.exec_dir or f"{SKILLS}/{skill_id}"


def parsed_manifest(skill_md: str, *, folder: str, overrides: Mapping[str, Any]) -> Manifest:
    """Read SKILL.md of the directory `folder`; `overrides` are own keys that an installer gives.

    Raises SkillRefusedError.
    """
    fields = frontmatter(skill_md)
    metadata = fields.get("metadata", {})
    if not isinstance(metadata, dict):
        raise SkillRefusedError("bad_frontmatter", "`metadata` must map keys to texts")
    if unknown := sorted(set(fields) - STANDARD - set(OWN)):
        raise SkillRefusedError(
            "unknown_field", f"SKILL.md has fields that the specification does not know: {', '.join(unknown)[:200]}"
        )
    name = checked_name(fields.get("name"), folder=folder)
    given = {key: value for source in (fields, metadata, overrides) for key, value in source.items() if key in OWN}
    entry = given.get("entry", {})
    entry = dict(entry) if isinstance(entry, dict) else {"command": entry}
    for key in ("command", "exec_dir"):
        if f"entry.{key}" in metadata:
            entry.setdefault(key, metadata[f"entry.{key}"])
    return Manifest(
        name=name,
        slug=slug_of(name),
        description=_text(fields, "description", MAX_DESCRIPTION_CHARS, is_needed=True),
        license=_text(fields, "license", MAX_OWN_CHARS),
        compatibility=_text(fields, "compatibility", MAX_COMPATIBILITY_CHARS),
        allowed_tools=_allowed_tools(fields.get("allowed-tools", "")),
        version=_text(given, "version", 50) or "0.1.0",
        entry=_entry(entry),
        **_runtime(given),
    )


def split_frontmatter(skill_md: str) -> tuple[str, str]:
    """The YAML between the two `---` and the body after it. Raises SkillRefusedError."""
    match = re.match(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", skill_md, re.DOTALL | re.MULTILINE)
    if match is None:
        raise SkillRefusedError("bad_frontmatter", "SKILL.md must start with YAML between two lines of `---`")
    if len(match[1]) > MAX_FRONTMATTER_CHARS:
        raise SkillRefusedError("bad_frontmatter", f"The frontmatter has more than {MAX_FRONTMATTER_CHARS} characters")
    return match[1], skill_md[match.end() :].strip()


def frontmatter(skill_md: str) -> dict[str, Any]:
    """The fields of SKILL.md, every scalar as its text, so that a version 1.10 stays one. Raises SkillRefusedError."""
    source, _ = split_frontmatter(skill_md)
    try:
        depth = 0
        for event in yaml.parse(source, Loader=yaml.BaseLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_NESTING:  # with each level PyYAML takes longer for every token
                raise SkillRefusedError(
                    "bad_frontmatter", f"The frontmatter is nested deeper than {MAX_NESTING} levels"
                )
            if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
                raise SkillRefusedError("bad_frontmatter", "The frontmatter must not use anchors, aliases and tags")
        fields = yaml.load(source, Loader=_UniqueKeys)  # noqa: S506 - texts, lists and mappings only, as BaseLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        place = getattr(error, "problem_mark", None)
        where = f" in line {place.line + 2}" if place is not None else ""
        problem = getattr(error, "problem", None) or "it is not valid"
        raise SkillRefusedError("bad_frontmatter", f"The frontmatter cannot be read{where}: {problem}") from None
    if not isinstance(fields, dict) or not all(isinstance(key, str) for key in fields):
        raise SkillRefusedError("bad_frontmatter", "The frontmatter must map names to values")
    return fields


class _UniqueKeys(yaml.BaseLoader):
    """Two values for one key: nobody could say which one holds."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if any(not isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
            raise yaml.constructor.ConstructorError(None, None, "a key is there twice, or is no text", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def checked_name(value: Any, *, folder: str) -> str:
    """Source: agentskills.io, "name field". Raises SkillRefusedError."""
    if not isinstance(value, str) or not value.strip():
        raise SkillRefusedError("bad_name", "SKILL.md must have a `name`")
    name = unicodedata.normalize("NFKC", value.strip())
    if len(name) > MAX_NAME_CHARS:
        raise SkillRefusedError("bad_name", f"`name` has more than {MAX_NAME_CHARS} characters")
    is_wellformed = not name.startswith("-") and not name.endswith("-") and "--" not in name
    if name != name.lower() or not is_wellformed or not all(char.isalnum() or char == "-" for char in name):
        raise SkillRefusedError("bad_name", "`name` must be lower-case letters and digits, with single hyphens between")
    if unicodedata.normalize("NFKC", folder) != name:
        raise SkillRefusedError("bad_name", f"`name` is {name!r}, but the skill's directory is {folder[:100]!r}")
    return name


def slug_of(name: str) -> str:
    """The name as ids, paths and URLs can have it; one with other letters gets a hash, so that two stay two."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"-+", "-", re.sub(r"[^a-z0-9]+", "-", plain)).strip("-")
    if slug != name:
        slug = f"{slug[:50].rstrip('-') or 'skill'}-{sha1_start(name)}"
    if slug in RESERVED_SLUGS:
        raise SkillRefusedError("reserved_name", f"{slug!r} is a name that no skill can have here")
    return slug


def skill_id_of(slug: str, source_ref: str) -> str:
    """Source: the wire document, "Skills"."""
    return f"{slug}--{sha1_start(source_ref)}"


def sha1_start(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:8]


def _text(fields: Mapping[str, Any], key: str, limit: int, *, is_needed: bool = False) -> str:
    value = fields.get(key, "")
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or (is_needed and not value.strip()):
        raise SkillRefusedError("bad_field", f"`{key}` must be a text{' that is not empty' if is_needed else ''}")
    if len(value) > limit:
        raise SkillRefusedError("bad_field", f"`{key}` has more than {limit} characters")
    try:
        return check_storable(value.strip())
    except ValueError as error:
        raise SkillRefusedError("bad_field", f"`{key}` {error}") from None


def _allowed_tools(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = " ".join(value)
    return _text({"allowed-tools": value}, "allowed-tools", MAX_OWN_CHARS)


def _runtime(given: Mapping[str, Any]) -> dict[str, Any]:
    kind = _text(given, "runtime_type", 20) or "native"
    if kind not in RUNTIME_TYPES:
        raise SkillRefusedError("bad_runtime", f"`runtime_type` must be one of {', '.join(RUNTIME_TYPES)}")
    server = _text(given, "server", MAX_OWN_CHARS)
    if kind != "native" and not server:
        raise SkillRefusedError("bad_runtime", f"A skill of the kind {kind} names its `server`")
    tools = given.get("tools", [])
    if isinstance(tools, str):
        tools = re.split(r"[\s,]+", tools.strip()) if tools.strip() else []
    if not isinstance(tools, list) or len(tools) > MAX_TOOLS:
        raise SkillRefusedError("bad_field", f"`tools` must be a list of at most {MAX_TOOLS} names")
    names = [_text({"tools": tool}, "tools", 200, is_needed=True) for tool in tools]
    return {"runtime_type": kind, "server": server, "tools": names}


def _entry(given: Mapping[str, Any]) -> Entry:
    command = _text(given, "command", MAX_OWN_CHARS)
    exec_dir = _text(given, "exec_dir", 500)
    if "\n" in command or "\r" in command:
        raise SkillRefusedError("bad_entry", "`entry.command` must be one line")
    try:
        shlex.split(command)
    except ValueError:
        raise SkillRefusedError("bad_entry", "`entry.command` has a quote that is not closed") from None
    if exec_dir and (not f"{exec_dir}/".startswith("/home/ubuntu/") or ".." in exec_dir.split("/")):
        raise SkillRefusedError("bad_entry", "`entry.exec_dir` must be an absolute path below /home/ubuntu")
    return Entry(command=command, exec_dir=exec_dir)
