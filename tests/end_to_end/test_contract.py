"""Runs the contract suite against this platform as `make contract` does: in a process that knows only a URL."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from moorage_api.database import create_database, create_engine
from moorage_api.settings import Settings
from moorage_api.users.admin import create_admin
from moorage_local.data.ports import free_ports
from support.accounts import PASSWORD
from support.processes import Platform
from support.remote_tools import mcp_servers

ROOT = Path(__file__).parent.parent.parent
NOT_SERVED_YET = Path(__file__).parent / "not_served_yet.txt"
SUITE_SECONDS = 1800.0
ROOMY_LIMITS = {
    "limit_reads": 100_000,
    "limit_writes": 100_000,
    "limit_chats": 100_000,
    "limit_pictures": 100_000,
    "limit_streams": 1000,
    "limit_screens": 1000,
}


REPORTS: list[dict[str, str]] = []
"""The reports of the completed runs."""


MCP_STDIO = {
    "command": "mcp-server-time",
    "args": ["--local-timezone", "UTC"],
    "tool": "get_current_time",
    "arguments": {"timezone": "Asia/Shanghai"},
    "answer": "Asia/Shanghai",
}


def commands() -> list[Path]:
    """The directory of the third-party MCP servers. Without it the suite skips the checks that need them."""
    try:
        return [mcp_servers() / "python"]
    except pytest.skip.Exception as reason:
        sys.stdout.write(f"without MCP over stdio: {reason}\n")
        return []


async def run_suite(
    platform: Platform, *arguments: str, command_paths: Sequence[Path] = (), **environment: str
) -> None:
    """Start the platform and run the suite against it. The output of the suite is the report of a failure."""
    api = await platform.start_api()
    await asyncio.gather(platform.start_runner(), platform.start_host(command_paths=command_paths))
    engine = create_engine(platform.database_url)
    for name in ("root-of-contract", "second-root"):
        await create_admin(create_database(engine), username=name, password=PASSWORD)
    await engine.dispose()
    report = platform.directory / "report.json"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-c", "tests/contract/pytest.ini", "tests/contract", *arguments),
        cwd=ROOT,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(("MOORAGE_", "PYTEST_"))},
            "CONTRACT_URL": api.url,
            "CONTRACT_ADMIN_USERNAME": "root-of-contract",
            "CONTRACT_ADMIN_PASSWORD": PASSWORD,
            "CONTRACT_NOT_SERVED_YET": str(NOT_SERVED_YET),
            "CONTRACT_REPORT": str(report),
            **environment,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), SUITE_SECONDS)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    sys.stdout.write(output.decode())
    assert process.returncode == 0, output.decode()[-20_000:]
    REPORTS.append(json.loads(report.read_text()))


@pytest.mark.timeout(SUITE_SECONDS + 60)
@pytest.mark.parametrize("profile", ["safe", "letter"])
async def test_the_contract_holds(platform: Platform, profile: str, short_directory: Path) -> None:
    """One profile has WeChat, the other has a stdio command, because the contract describes both cases."""
    skills = short_directory / "skills"
    skills.mkdir()
    platform.changes.update(skills_root_dir=short_directory / "skills-cache")
    platform.changes.update(ROOMY_LIMITS, open_config=profile == "letter", skills_local_roots=str(skills))
    (port,) = free_ports(1)
    peers = f"http://127.0.0.1:{port}"
    platform.changes.update(skills_github_archive_url=peers, outbound_private="llm,mcp,a2a,skills")
    environment = {
        "CONTRACT_PROFILE": profile,
        "CONTRACT_SKILLS_DIR": str(skills),
        "CONTRACT_PEERS_PORT": str(port),
        "CONTRACT_GITHUB": "1",
    }
    command_paths: list[Path] = []
    if profile == "safe" and (command_paths := commands()):
        environment["CONTRACT_MCP_STDIO"] = json.dumps(MCP_STDIO)
    if profile == "letter":
        platform.changes.update(
            wechat_app_id="wx-of-contract",
            wechat_app_secret="a secret of WeChat",
            wechat_callback_url="http://127.0.0.1/api/auth/wechat/callback",
            wechat_frontend_url="http://127.0.0.1/front",
            wechat_api_url=peers,
        )
        environment["CONTRACT_WECHAT"] = "1"
    await run_suite(platform, command_paths=command_paths, **environment)


@pytest.mark.timeout(SUITE_SECONDS + 60)
async def test_the_limits_hold_at_their_defaults(platform: Platform) -> None:
    """The platforms of other tests have higher limits, so the defaults are set here explicitly."""
    fields = Settings.model_fields.items()
    platform.changes.update({name: field.default for name, field in fields if name.startswith("limit_")})
    await run_suite(platform, CONTRACT_LIMITS="default")


def test_the_runs_together_prove_every_line_of_the_contract() -> None:
    """Each line of the contract is proved by at least one of the runs."""
    if len(REPORTS) < 3:
        pytest.skip("the three runs before this did not all pass, or were not asked for")
    names = {name for report in REPORTS for name in report}
    proved = {name for report in REPORTS for name, shown in report.items() if shown in ("ok", "not served yet")}
    assert names - proved == set()
