"""Sends generated requests to every operation in /openapi.json, as a user and as an admin.

No response may have a 5xx, an undocumented status, or a body that does not match its schema.
`make fuzz` runs longer, with a new seed each time.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from support.accounts import Person, admin, register
from support.processes import Platform

SEED = os.environ.get("FUZZ_SEED", "20260101")
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "8"))
SECONDS = 1200.0 if EXAMPLES <= 8 else 3600.0

FIRST_CHECKS = ["not_a_server_error"]
CHECKS = [
    *FIRST_CHECKS,
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]
ROOMY = {f"limit_{name}": 10**7 for name in ("reads", "writes", "chats", "pictures", "streams", "screens")}
SHORT_STREAMS = {"stream_max_seconds": 1, "stream_heartbeat_seconds": 0.2, "stream_poll_seconds": 0.2}
"""No runner works, so a chat stream lasts for its maximum lifetime."""

NOT_SERVED_YET = Path(__file__).parent / "not_served_yet.txt"


def checks() -> list[str]:
    """The checks that do not need a complete description, until the description is complete."""
    return FIRST_CHECKS if "openapi" in NOT_SERVED_YET.read_text().splitlines() else CHECKS


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("platform", [ROOMY | SHORT_STREAMS], indirect=True)
@pytest.mark.parametrize("who", ["user", "admin"])
async def test_every_response_matches_the_openapi_document(platform: Platform, who: str, tmp_path: Path) -> None:
    api, _ = await asyncio.gather(platform.start_api(), platform.start_host())
    async with await (register(api.url) if who == "user" else admin(api.url, platform.database_url)) as person:
        status, output = await fuzz(f"{api.url}/openapi.json", person, tmp_path)
    assert status == 0, output[-30_000:]


async def fuzz(document: str, person: Person, directory: Path) -> tuple[int | None, str]:
    """Run schemathesis and return its exit status and its output.

    One worker: with more, Python 3.11 now and then miscounts the depth of what its threads compile, and a run is void.
    """
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).parent / "schemathesis"), "run", document),
        *("--header", f"Authorization: Bearer {person.token}", "--checks", ",".join(checks())),
        *("--phases", "examples,coverage,fuzzing", "--request-timeout", "120"),
        *("--seed", SEED, "--max-examples", str(EXAMPLES), "--generation-database", "none"),
        *("--suppress-health-check", "all", "--warnings", "off", "--no-color", "--continue-on-failure"),
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    return process.returncode, output.decode()
