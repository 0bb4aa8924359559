"""A risk report about a skill for admins: simple rules that search its files for patterns.

The report proves nothing, because a skill can hide what it does; the sandbox is the protection. The report shows admins
where to look. With the policy `enforce_confirmation`, the user is asked before each call of a high-risk skill.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel

from moorage_api.skills.bundles.bundle import SKILL_MD, Bundle, is_script
from moorage_api.skills.bundles.manifest import Manifest

Level = Literal["low", "medium", "high"]
LEVELS: tuple[Level, ...] = ("low", "medium", "high")
MAX_FINDINGS = 100

SCRIPT_SUFFIXES = (".sh", ".bash", ".py", ".js", ".mjs", ".cjs", ".ts", ".rb", ".pl", ".ps1", ".bat", ".php")
ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".jar", ".whl", ".zst")

PATTERNS: tuple[tuple[str, Level, str, str], ...] = (
    (
        "pipe_to_shell",
        "high",
        "runs a script that it downloads",
        r"\b(curl|wget)\b[^\n|]{0,200}\|\s*(sudo\s+)?(ba|z|da)?sh\b",
    ),
    (
        "credentials",
        "high",
        "mentions files that contain credentials",
        r"(\.ssh/|id_rsa|\.aws/credentials|\.netrc|/etc/shadow|\.kube/config|169\.254\.169\.254)",
    ),
    (
        "removes_everything",
        "high",
        "deletes whole directory trees",
        r"\brm\s+-\w{0,20}[rf]\w{0,20}\s+(-\S{1,50}\s+){0,10}(/|~|\$HOME)(\s|$|\*)",
    ),
    (
        "hidden_code",
        "high",
        "runs encoded code",
        r"(base64\s+(-d|--decode)[^\n]{0,80}\|\s*(ba)?sh|\b(exec|eval)\s*\(\s*(base64|zlib|codecs|bytes\.fromhex|atob))",
    ),
    (
        "reverse_shell",
        "high",
        "gives another machine access to a shell",
        r"(/dev/tcp/|\bnc\b[^\n]{0,40}\s-e\b|pty\.spawn)",
    ),
    (
        "overrides_instructions",
        "high",
        "tells the agent to ignore its instructions or to hide something from the user",
        r"(ignore|disregard|forget)\s+(all\s+|any\s+)?(of\s+)?(the\s+|your\s+)?(previous|prior|above|earlier|system)"
        r"|(do\s+not|don't|never)\s+(tell|inform|mention\s+(it|this)\s+to)\s+the\s+user",
    ),
    (
        "installs_packages",
        "medium",
        "installs packages",
        r"\b(pip3?|npm|yarn|apt(-get)?|gem|cargo)\s+(install|add)\b",
    ),
    (
        "network",
        "medium",
        "uses the network",
        r"(\b(curl|wget)\s|\brequests\.(get|post|put)|\burllib\.request|\bfetch\(|\bhttpx\.|\bsocket\.(socket|create))",
    ),
    ("runs_commands", "medium", "runs other programs", r"(\bsubprocess\.|\bos\.system|child_process|shell=True)"),
    ("evaluates_code", "medium", "creates and runs code at run time", r"\b(eval|exec)\s*\("),
    ("sudo", "medium", "asks for root permissions", r"\bsudo\s"),
)
RULES = tuple((rule, level, message, re.compile(pattern, re.IGNORECASE)) for rule, level, message, pattern in PATTERNS)


class Finding(BaseModel):
    rule: str
    level: Level
    path: str
    message: str


class RiskReport(BaseModel):
    """`level` is the highest level of its findings."""

    level: Level = "low"
    findings: list[Finding] = []


def risk_report(manifest: Manifest, bundle: Bundle) -> RiskReport:
    findings = sorted(_findings(manifest, bundle), key=lambda finding: -LEVELS.index(finding.level))
    level = findings[0].level if findings else "low"
    return RiskReport(level=level, findings=findings[:MAX_FINDINGS])


def _findings(manifest: Manifest, bundle: Bundle) -> Iterator[Finding]:
    if manifest.runtime_type != "native":
        yield Finding(
            rule="remote", level="medium", path=SKILL_MD, message=f"sends its input to {manifest.server[:100]}"
        )
    for path, content in bundle.files.items():
        if path.lower().endswith(ARCHIVE_SUFFIXES):
            yield Finding(rule="archive", level="low", path=path, message="is an archive whose content was not checked")
        if b"\0" in content[:8192]:
            continue
        if path != SKILL_MD and (is_script(content) or path.lower().endswith(SCRIPT_SUFFIXES)):
            yield Finding(rule="script", level="low", path=path, message="is a script")
        text = content.decode(errors="replace")
        for rule, level, message, pattern in RULES:
            if pattern.search(text):
                yield Finding(rule=rule, level=level, path=path, message=message)
    for rule, level, message, pattern in RULES:
        if pattern.search(manifest.entry.command):
            yield Finding(rule=rule, level=level, path="entry.command", message=message)
