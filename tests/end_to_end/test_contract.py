"""The contract suite against this platform, as `make contract` runs it against any: a process that knows only a URL."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from moorage_api.database import create_database, create_engine
from moorage_api.users.admin import create_admin
from support.accounts import PASSWORD
from support.processes import Platform

ROOT = Path(__file__).parent.parent.parent
NOT_SERVED_YET = Path(__file__).parent / "not_served_yet.txt"
SUITE_SECONDS = 400.0


async def run_suite(platform: Platform, *arguments: str, **environment: str) -> None:
    """Start the whole platform and the suite beside it; its output is the report of a failure."""
    api = await platform.start_api()
    await asyncio.gather(platform.start_runner(), platform.start_host())
    engine = create_engine(platform.database_url)
    for name in ("root-of-contract", "second-root"):
        await create_admin(create_database(engine), username=name, password=PASSWORD)
    await engine.dispose()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-c", "tests/contract/pytest.ini", "tests/contract", *arguments),
        cwd=ROOT,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(("MOORAGE_", "PYTEST_"))},
            "CONTRACT_URL": api.url,
            "CONTRACT_ADMIN_USERNAME": "root-of-contract",
            "CONTRACT_ADMIN_PASSWORD": PASSWORD,
            "CONTRACT_NOT_SERVED_YET": str(NOT_SERVED_YET),
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


@pytest.mark.timeout(SUITE_SECONDS + 60)
@pytest.mark.parametrize("profile", ["safe", "letter"])
async def test_the_contract_holds(platform: Platform, profile: str, short_directory: Path) -> None:
    skills = short_directory / "skills"
    skills.mkdir()
    platform.changes.update(open_config=profile == "letter")
    await run_suite(platform, CONTRACT_PROFILE=profile, CONTRACT_SKILLS_DIR=str(skills))


@pytest.mark.timeout(SUITE_SECONDS + 60)
async def test_the_limits_hold_at_their_defaults(platform: Platform) -> None:
    await run_suite(platform, CONTRACT_LIMITS="default")
