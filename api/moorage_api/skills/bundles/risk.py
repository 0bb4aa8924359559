"""What an admin should know about a skill before its tools run: a report from its files, by plain rules.

It is no proof of anything: a skill that hides what it does is not found out here. The sandbox is what protects; this
says where to look, and which tools ask first where the policy wants that.
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
        "runs what it downloads",
        r"\b(curl|wget)\b[^\n|]{0,200}\|\s*(sudo\s+)?(ba|z|da)?sh\b",
    ),
    (
        "credentials",
        "high",
        "names files that hold credentials",
        r"(\.ssh/|id_rsa|\.aws/credentials|\.netrc|/etc/shadow|\.kube/config|169\.254\.169\.254)",
    ),
    (
        "removes_everything",
        "high",
        "removes whole trees",
        r"\brm\s+-\w{0,20}[rf]\w{0,20}\s+(-\S{1,50}\s+){0,10}(/|~|\$HOME)(\s|$|\*)",
    ),
    (
        "hidden_code",
        "high",
        "runs code that is encoded",
        r"(base64\s+(-d|--decode)[^\n]{0,80}\|\s*(ba)?sh|\b(exec|eval)\s*\(\s*(base64|zlib|codecs|bytes\.fromhex|atob))",
    ),
    ("reverse_shell", "high", "opens a shell for others", r"(/dev/tcp/|\bnc\b[^\n]{0,40}\s-e\b|pty\.spawn)"),
    (
        "overrides_instructions",
        "high",
        "tells the agent to disregard its instructions or the user",
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
        "talks to the network",
        r"(\b(curl|wget)\s|\brequests\.(get|post|put)|\burllib\.request|\bfetch\(|\bhttpx\.|\bsocket\.(socket|create))",
    ),
    ("runs_commands", "medium", "runs other programs", r"(\bsubprocess\.|\bos\.system|child_process|shell=True)"),
    ("evaluates_code", "medium", "makes code at run time", r"\b(eval|exec)\s*\("),
    ("sudo", "medium", "asks for more rights", r"\bsudo\s"),
)
RULES = tuple((rule, level, message, re.compile(pattern, re.IGNORECASE)) for rule, level, message, pattern in PATTERNS)


class Finding(BaseModel):
    rule: str
    level: Level
    path: str
    message: str


class RiskReport(BaseModel):
    """`level` is the greatest of its findings."""

    level: Level = "low"
    findings: list[Finding] = []


def risk_report(manifest: Manifest, bundle: Bundle) -> RiskReport:
    findings = sorted(_findings(manifest, bundle), key=lambda finding: -LEVELS.index(finding.level))
    level = findings[0].level if findings else "low"
    return RiskReport(level=level, findings=findings[:MAX_FINDINGS])


def _findings(manifest: Manifest, bundle: Bundle) -> Iterator[Finding]:
    if manifest.runtime_type != "native":
        yield Finding(
            rule="remote", level="medium", path=SKILL_MD, message=f"hands what it is given to {manifest.server[:100]}"
        )
    for path, content in bundle.files.items():
        if path.lower().endswith(ARCHIVE_SUFFIXES):
            yield Finding(rule="archive", level="low", path=path, message="is an archive that was not looked into")
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
