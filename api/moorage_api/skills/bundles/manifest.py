"""Reads and checks the frontmatter of SKILL.md: the fields of the Agent Skills specification and our own fields.

The standard fields are `name`, `description`, `license`, `compatibility`, `allowed-tools` and `metadata`. Our own
fields are keys of `metadata`, where the specification allows additional keys: `version`, `runtime_type` (native, mcp,
a2a), `server` (the name of an MCP server, or the id or URL of a remote agent), `tools` (names of that server's tools;
all if left out), and `entry` with `command` and `exec_dir`, also written as `entry.command` and `entry.exec_dir`.
Older bundles have our fields at the top level.
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
from moorage_sandbox.protocol import HOME, SKILLS

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
"""These slugs would conflict with the endpoints `/policy` and `/install`."""
RUNTIME_TYPES: tuple[RuntimeType, ...] = ("native", "mcp", "a2a")


class SkillEntry(BaseModel):
    """The command of a native skill and its working directory; without `exec_dir` it is the skill's directory."""

    command: str = ""
    exec_dir: str = ""


class Manifest(BaseModel):
    """The checked fields of SKILL.md. Stored with each version of a skill."""

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
    entry: SkillEntry = SkillEntry()

    def exec_dir(self, skill_id: str) -> str:
        return self.entry.exec_dir or f"{SKILLS}/{skill_id}"


def parse_manifest(skill_md: str, *, folder: str, overrides: Mapping[str, Any]) -> Manifest:
    """Parse SKILL.md of the directory `folder`. `overrides` replace our own fields. Raises SkillRefusedError."""
    fields = frontmatter(skill_md)
    metadata = fields.get("metadata", {})
    if not isinstance(metadata, dict):
        raise SkillRefusedError("bad_frontmatter", "`metadata` must be a mapping of keys to texts")
    if unknown := sorted(set(fields) - STANDARD - set(OWN)):
        raise SkillRefusedError(
            "unknown_field", f"SKILL.md has fields that are not in the specification: {', '.join(unknown)[:200]}"
        )
    name = check_name(fields.get("name"), folder=folder)
    given = {key: value for source in (fields, metadata, overrides) for key, value in source.items() if key in OWN}
    entry = given.get("entry", {})
    entry = dict(entry) if isinstance(entry, dict) else {"command": entry}
    for key in ("command", "exec_dir"):
        if f"entry.{key}" in metadata:
            entry.setdefault(key, metadata[f"entry.{key}"])
    return Manifest(
        name=name,
        slug=slug_of(name),
        description=_read_text(fields, "description", MAX_DESCRIPTION_CHARS, is_needed=True),
        license=_read_text(fields, "license", MAX_OWN_CHARS),
        compatibility=_read_text(fields, "compatibility", MAX_COMPATIBILITY_CHARS),
        allowed_tools=_read_allowed_tools(fields.get("allowed-tools", "")),
        version=_read_text(given, "version", 50) or "0.1.0",
        entry=_read_entry(entry),
        **_read_runtime(given),
    )


def split_frontmatter(skill_md: str) -> tuple[str, str]:
    """Split the file into the YAML between the two `---` lines and the body. Raises SkillRefusedError."""
    match = re.match(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", skill_md, re.DOTALL | re.MULTILINE)
    if match is None:
        raise SkillRefusedError("bad_frontmatter", "SKILL.md must start with YAML between two lines of `---`")
    if len(match[1]) > MAX_FRONTMATTER_CHARS:
        raise SkillRefusedError("bad_frontmatter", f"The frontmatter is longer than {MAX_FRONTMATTER_CHARS} characters")
    return match[1], skill_md[match.end() :].strip()


def frontmatter(skill_md: str) -> dict[str, Any]:
    """Parse the fields. All scalars stay texts, so that version 1.10 does not become 1.1. Raises SkillRefusedError."""
    source, _ = split_frontmatter(skill_md)
    try:
        depth = 0
        for event in yaml.parse(source, Loader=yaml.BaseLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_NESTING:  # deep nesting makes PyYAML slow, because each token costs time for every level
                raise SkillRefusedError(
                    "bad_frontmatter", f"The frontmatter is nested deeper than {MAX_NESTING} levels"
                )
            if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
                raise SkillRefusedError("bad_frontmatter", "The frontmatter must not use YAML anchors, aliases or tags")
        fields = yaml.load(source, Loader=_UniqueKeys)  # noqa: S506 - a BaseLoader, which creates only texts, lists and mappings
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        place = getattr(error, "problem_mark", None)
        where = f" in line {place.line + 2}" if place is not None else ""
        problem = getattr(error, "problem", None) or "it is not valid YAML"
        raise SkillRefusedError("bad_frontmatter", f"The frontmatter cannot be parsed{where}: {problem}") from None
    if not isinstance(fields, dict) or not all(isinstance(key, str) for key in fields):
        raise SkillRefusedError("bad_frontmatter", "The frontmatter must be a mapping of names to values")
    return fields


class _UniqueKeys(yaml.BaseLoader):
    """Refuses mappings with duplicate keys, because it would be unclear which value is meant."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if any(not isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
            raise yaml.constructor.ConstructorError(None, None, "a key occurs twice or is not a text", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def check_name(value: Any, *, folder: str) -> str:
    """Return the normalised name. Source: agentskills.io, "name field". Raises SkillRefusedError."""
    if not isinstance(value, str) or not value.strip():
        raise SkillRefusedError("bad_name", "SKILL.md must have a `name`")
    name = unicodedata.normalize("NFKC", value.strip())
    if len(name) > MAX_NAME_CHARS:
        raise SkillRefusedError("bad_name", f"`name` is longer than {MAX_NAME_CHARS} characters")
    is_wellformed = not name.startswith("-") and not name.endswith("-") and "--" not in name
    if name != name.lower() or not is_wellformed or not all(char.isalnum() or char == "-" for char in name):
        raise SkillRefusedError(
            "bad_name", "`name` must consist of lower-case letters and digits with single hyphens between them"
        )
    if unicodedata.normalize("NFKC", folder) != name:
        raise SkillRefusedError(
            "bad_name",
            f"`name` is {name!r}, but the skill's directory is {folder[:100]!r}; they must be equal",
        )
    return name


def slug_of(name: str) -> str:
    """The name in ASCII, for ids, paths and URLs. A changed name gets a hash, so that slugs stay unique."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"-+", "-", re.sub(r"[^a-z0-9]+", "-", plain)).strip("-")
    if slug != name:
        slug = f"{slug[:50].rstrip('-') or 'skill'}-{sha1_start(name)}"
    if slug in RESERVED_SLUGS:
        raise SkillRefusedError("reserved_name", f"{slug!r} is a reserved name; choose another one")
    return slug


def skill_id_of(slug: str, source_ref: str) -> str:
    """Source: the wire document, "Skills"."""
    return f"{slug}--{sha1_start(source_ref)}"


def sha1_start(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:8]


def _read_text(fields: Mapping[str, Any], key: str, limit: int, *, is_needed: bool = False) -> str:
    value = fields.get(key, "")
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or (is_needed and not value.strip()):
        raise SkillRefusedError("bad_field", f"`{key}` must be a {'non-empty ' if is_needed else ''}text")
    if len(value) > limit:
        raise SkillRefusedError("bad_field", f"`{key}` is longer than {limit} characters")
    try:
        return check_storable(value.strip())
    except ValueError as error:
        raise SkillRefusedError("bad_field", f"`{key}` {error}") from None


def _read_allowed_tools(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = " ".join(value)
    return _read_text({"allowed-tools": value}, "allowed-tools", MAX_OWN_CHARS)


def _read_runtime(given: Mapping[str, Any]) -> dict[str, Any]:
    kind = _read_text(given, "runtime_type", 20) or "native"
    if kind not in RUNTIME_TYPES:
        raise SkillRefusedError("bad_runtime", f"`runtime_type` must be one of {', '.join(RUNTIME_TYPES)}")
    server = _read_text(given, "server", MAX_OWN_CHARS)
    if kind != "native" and not server:
        raise SkillRefusedError("bad_runtime", f"A skill with the `runtime_type` {kind} must have a `server`")
    tools = given.get("tools", [])
    if isinstance(tools, str):
        tools = re.split(r"[\s,]+", tools.strip()) if tools.strip() else []
    if not isinstance(tools, list) or len(tools) > MAX_TOOLS:
        raise SkillRefusedError("bad_field", f"`tools` must be a list of at most {MAX_TOOLS} names")
    names = [_read_text({"tools": tool}, "tools", 200, is_needed=True) for tool in tools]
    return {"runtime_type": kind, "server": server, "tools": names}


def _read_entry(given: Mapping[str, Any]) -> SkillEntry:
    command = _read_text(given, "command", MAX_OWN_CHARS)
    exec_dir = _read_text(given, "exec_dir", 500)
    if "\n" in command or "\r" in command:
        raise SkillRefusedError("bad_entry", "`entry.command` must be a single line")
    try:
        shlex.split(command)
    except ValueError:
        raise SkillRefusedError("bad_entry", "`entry.command` has an opening quote without a closing quote") from None
    if exec_dir and (not f"{exec_dir}/".startswith(f"{HOME}/") or ".." in exec_dir.split("/")):
        raise SkillRefusedError("bad_entry", f"`entry.exec_dir` must be an absolute path below {HOME}")
    return SkillEntry(command=command, exec_dir=exec_dir)
