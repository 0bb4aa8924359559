"""Skills as the agent sees them: a list of names, the text and files of a skill on request, and its tools.

`skill_read` reads the pinned archive and not the sandbox, because the agent can change the files there.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from moorage_api.agent.ports import Attachments, Function, Gate, Switches, ToolCall, ToolResult
from moorage_api.agent.toolsets.function_schema import function, number, text, texts
from moorage_api.agent.toolsets.sandbox import SandboxToolset
from moorage_api.errors import DomainError, FencedError
from moorage_api.skill_runs.ports import DelegatedTool, SkillDelegate, SkillFiles
from moorage_api.skills.pins import SessionSkill
from moorage_api.tools.mcp.toolset import function_name
from moorage_sandbox.protocol import SKILLS

RUN = "run"
RUN_SECONDS = 60.0
SYNC_SECONDS = 60.0
READ_SYNC_SECONDS = 10.0
MAX_FUNCTIONS = 24
"""Most functions of all skills together, the most relevant first. Some model servers accept 128 functions at most."""
MAX_READ_CHARS = 11_000
MAX_LISTED_CHARS = 12_000
MAX_DESCRIPTION_CHARS = 300

READ = function(
    "skill_read",
    "Read a skill: its instructions for a kind of task, or one of its files. Read it before you do such a task. The "
    "instructions name the skill's files and tools.",
    {"skill": text("The skill's name, as in the list of skills")},
    {
        "path": text("One of its files, as the skill names it; the instructions if left out"),
        "start_line": number("First line to show, counted from 0"),
    },
    read_only=True,
    is_remembered=True,
)


class SkillToolset(SandboxToolset):
    """The tools of the session's skills. `confirms`: ask the user before each call of a high-risk skill."""

    default_timeout = RUN_SECONDS

    def __init__(
        self,
        skills: Sequence[SessionSkill],
        *,
        files: SkillFiles,
        gate: Gate,
        attachments: Attachments,
        delegates: Sequence[SkillDelegate],
        switches: Switches,
        confirms: bool,
    ) -> None:
        self._pinned = {skill.manifest.slug: skill for skill in skills}
        self._switches = switches
        self._files = files
        self._delegates = {delegate.runtime_type: delegate for delegate in delegates}
        self._confirms = confirms
        self._targets: dict[str, tuple[SessionSkill, str]] = {}
        found = [READ] if skills else []
        for skill in skills:
            for tool in self._tools_of(skill):
                if len(found) < MAX_FUNCTIONS:
                    found.append(self._function(skill, tool))
        super().__init__(gate, attachments, found)

    def functions(self) -> Sequence[Function]:
        skills = self._skills
        on = {(skill.id, tool.name) for skill in skills.values() for tool in self._tools_of(skill)}
        names = [name for name, (skill, tool) in self._targets.items() if (skill.id, tool) in on]
        return [READ, *(self._functions[name] for name in names)] if skills else []

    @property
    def _skills(self) -> dict[str, SessionSkill]:
        """The skills that are on, by slug."""
        return {slug: skill for slug, skill in self._pinned.items() if self._switches.is_on("skill", skill.id)}

    @property
    def name(self) -> Literal["skill"]:
        return "skill"

    def _tools_of(self, skill: SessionSkill) -> Sequence[DelegatedTool]:
        if skill.manifest.runtime_type != "native":
            delegate = self._delegates.get(skill.manifest.runtime_type)
            return delegate.tools(skill.manifest) if delegate is not None else []
        if not skill.manifest.entry.command:
            return []
        args = texts("The arguments of the program, one item each; the skill's instructions describe them")
        schema = {"type": "object", "properties": {"args": args}, "required": [], "additionalProperties": False}
        return [DelegatedTool(RUN, f"Run this skill's program: {skill.manifest.description[:200]}", schema)]

    def _function(self, skill: SessionSkill, tool: DelegatedTool) -> Function:
        slug = skill.manifest.slug
        name = function_name("skill", slug, tool.name, taken=self._targets)
        self._targets[name] = (skill, tool.name)
        is_native = skill.manifest.runtime_type == "native"
        return Function(
            name=name,
            description=f"[skill {slug}] {tool.description}",
            parameters=tool.parameters,
            read_only=tool.read_only,
            is_remembered=is_native,
            confirm=risk_question(skill) if self._confirms and skill.risk.level == "high" else "",
        )

    async def call(self, call: ToolCall) -> ToolResult:
        if call.function == READ.name:
            return await self._read(call.args)
        skill, tool = self._targets[call.function]
        if skill.manifest.runtime_type != "native":
            return await self._delegates[skill.manifest.runtime_type].call(skill.manifest, tool, call)
        problem = await self._files.problem_with(skill.id, seconds=SYNC_SECONDS, needs_sandbox=True)
        if problem:
            return failed_result(problem)
        args = [shlex.quote(str(arg)) for arg in call.args.get("args", ())]
        answer = await self._gate.call(
            call.key,
            "shell_execute",
            {
                "session_id": f"skill-{skill.manifest.slug}",
                "exec_dir": skill.manifest.exec_dir(skill.id),
                "command": " ".join([skill.manifest.entry.command, *args]),
            },
            timeout_seconds=RUN_SECONDS,
        )
        output = self._result_text(call, answer)
        excerpt, key = await self._store_if_long(output)
        content = {"skill_result": excerpt} | ({"output_key": key} if key is not None else {})
        exit_code = answer.result.get("exit_code")
        outcome = "failed" if answer.outcome == "succeeded" and exit_code not in (0, None) else answer.outcome
        return ToolResult(outcome, output, content)

    def _render_for_model(self, call: ToolCall, result: Mapping[str, Any]) -> str:
        output = str(result.get("output", ""))
        if result.get("status") == "running":
            shell = f"skill-{self._targets[call.function][0].manifest.slug}"
            return f"{output}\n[still running in the shell {shell}]"
        return f"{output}\n[exit code {result.get('exit_code')}]"

    async def _read(self, args: Mapping[str, Any]) -> ToolResult:
        slug = str(args["skill"]).strip()
        skill = self._skills.get(slug) or next((one for one in self._skills.values() if one.id == slug), None)
        if skill is None:
            return failed_result(f"There is no skill {slug[:80]!r}. Use one of: {', '.join(self._skills)[:2000]}")
        path = str(args.get("path") or "").strip().removeprefix(f"{SKILLS}/{skill.id}/").removeprefix("./")
        if not path:
            problem = await self._files.problem_with(skill.id, seconds=READ_SYNC_SECONDS)
            instructions = "\n\n".join([self._introduction(skill, problem), skill.context])
            return ToolResult("succeeded", instructions, {"skill_result": instructions})
        try:
            files = await self._files.read(skill.digest)
        except FencedError:
            raise
        except DomainError as error:
            return failed_result(f"The skill's files cannot be read now: {error}")
        if path not in files:
            return failed_result(f"The skill has no file {path[:200]!r}. Its files: {', '.join(files)[:4000]}")
        excerpt = file_excerpt(path, files[path], skill.id, int(args.get("start_line") or 0))
        return ToolResult("succeeded", excerpt, {"skill_result": excerpt})

    def _introduction(self, skill: SessionSkill, problem: str) -> str:
        lines = [f"Skill {skill.manifest.name}, version {skill.manifest.version}."]
        if problem:
            lines.append(f"{problem}; read its files with {READ.name}.")
        else:
            lines.append(f"Its files are in {SKILLS}/{skill.id}; paths in the text below start there.")
        names = [one.name for one in self.functions() if one is not READ and self._targets[one.name][0].id == skill.id]
        if names:
            lines.append(f"Its tools: {', '.join(names)}.")
        elif self._tools_of(skill):
            lines.append("Its tools are not offered, because the tools of more relevant skills reach the limit.")
        elif skill.manifest.runtime_type != "native":
            lines.append(f"Its tools are not available now: {skill.manifest.server} is off or does not answer.")
        return " ".join(lines)


def file_excerpt(path: str, content: bytes, skill_id: str, start_line: int) -> str:
    if b"\0" in content[:8192]:
        return f"{path} is a binary file of {len(content)} bytes. In the sandbox it is {SKILLS}/{skill_id}/{path}."
    lines = content.decode(errors="replace").splitlines(keepends=True)
    rest = "".join(lines[max(0, start_line) :])
    if len(rest) <= MAX_READ_CHARS:
        return rest or "[no more lines]"
    excerpt = rest[:MAX_READ_CHARS]
    next_line = max(0, start_line) + excerpt.count("\n")
    return f"{excerpt}\n[cut: {len(lines)} lines in all; continue with start_line {next_line}]"


def risk_question(skill: SessionSkill) -> str:
    """The question to the user before a tool of a high-risk skill runs."""
    reasons = "; ".join(
        f"{finding.path} {finding.message}" for finding in skill.risk.findings if finding.level == "high"
    )
    return f"The skill **{skill.manifest.name}** has a high risk ({reasons[:500]}). May it run this call?"


def guidance(skills: Sequence[SessionSkill]) -> str:
    """The list of skills for the system prompt, in order of relevance. Beyond MAX_LISTED_CHARS it has only names."""
    if not skills:
        return ""
    lines = [
        "Skills",
        f"- Skills are instructions and files for certain kinds of tasks. If a skill fits the task, read it with "
        f"`{READ.name}` before you start, and follow it as far as it serves the user's task.",
    ]
    size = 0
    rest = []
    for skill in skills:
        about = " ".join(skill.manifest.description.split())[:MAX_DESCRIPTION_CHARS]
        line = f"- {skill.manifest.slug}: {about}"
        size += len(line)
        if size <= MAX_LISTED_CHARS:
            lines.append(line)
        else:
            rest.append(skill.manifest.slug)
    if rest:
        lines.append(f"- and, without description: {', '.join(rest)[: MAX_LISTED_CHARS // 2]}")
    return "\n".join(lines) + "\n"


def failed_result(message: str) -> ToolResult:
    return ToolResult("failed", message, {"skill_result": message})
