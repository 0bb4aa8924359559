"""The platform runs from every place that the user who starts it can read, and gives sandboxes there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from moorage_local.data.credentials import RUNNER_KEY_ID, SigningKeys
from moorage_sandbox.client import GateClient, TokenSigner
from support.machine import Machine
from support.place import HAS_MOUNTS, Kind, Place
from support.services import Services

KINDS = {
    "below a folder that only its owner can enter": Kind(),
    "a path with spaces and other than ASCII": Kind(checkout="Mein Café: 泊地, 'new'"),
    "a read-only checkout": Kind(is_read_only=True),
}
KINDS_WITH_MOUNTS = {
    "a small /tmp": Kind(tmp_options="size=128k"),
    "a /tmp that allows no programs": Kind(tmp_options="noexec"),
}
KINDS_OF_ROOT = {"installed with a umask of 077": Kind(has_closed_files=True)}

CASES = [
    *(("ordinary", kind) for kind in (KINDS | KINDS_WITH_MOUNTS if HAS_MOUNTS else KINDS).items()),
    *(("root", kind) for kind in (KINDS | KINDS_WITH_MOUNTS | KINDS_OF_ROOT if HAS_MOUNTS else {}).items()),
]

UNREADABLE = "uvicorn/loops/uvloop.py"
CASES_THAT_CANNOT_WORK = [("root", ("one closed file", Kind(closed_file=UNREADABLE)))] if HAS_MOUNTS else []


@pytest.fixture(params=CASES, ids=[f"{account}: {name}" for account, (name, _) in CASES])
async def machine(request: pytest.FixtureRequest, services: Services) -> AsyncIterator[Machine]:
    account, (_, kind) = request.param
    directory = Path(tempfile.mkdtemp(prefix="mo-", dir="/var/tmp"))
    place = Place(directory, kind, account)
    within = place.prepare()
    url = await services.create_database()
    changes = {**services.up_environment(url), "HOME": str(directory)}
    started = Machine(place.data, changes, within=within, python=str(place.python))
    try:
        yield started
    finally:
        await started.discard()
        await services.drop_database(url)
        if kind.is_read_only:
            place.checkout.chmod(0o700)
            place.python.parent.parent.chmod(0o700)
        shutil.rmtree(directory)


async def run_in_sandbox(data: Path, command: str) -> str:
    """What a command printed in a new sandbox of the machine with this data directory."""
    session_id = str(uuid4())
    transport = httpx.AsyncHTTPTransport(uds=str(data / "host.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://host", timeout=60) as client:
        answer = await client.put(f"/v1/sandboxes/{session_id}")
    assert answer.status_code == 200, answer.text
    sandbox = answer.json()
    signer = TokenSigner.from_file(SigningKeys(data / "keys").runner, key_id=RUNNER_KEY_ID, issuer="runner")
    async with GateClient(
        sandbox["url"], signer=signer, sandbox_uid=sandbox["uid"], session_id=session_id, epoch=1
    ) as gate:
        await gate.bind()
        arguments = {"session_id": "main", "exec_dir": "/home/ubuntu", "command": command}
        done = await gate.call("1", "shell_execute", arguments, timeout_seconds=30)
    assert done.outcome == "succeeded", done
    return str(done.result["output"])


async def test_a_sandbox_runs_a_command(machine: Machine) -> None:
    await machine.start()
    assert (await run_in_sandbox(machine.data, "echo $((6 * 7))")).strip() == "42", machine.logs()


@pytest.mark.parametrize("machine", CASES_THAT_CANNOT_WORK, ids=lambda case: case[1][0], indirect=True)
async def test_a_place_that_cannot_work_is_refused_with_the_file_and_the_command_that_helps(machine: Machine) -> None:
    machine.launch()
    assert await machine.up.wait() == 1
    assert f"{UNREADABLE} is not readable" in machine.output()
    assert "fix: chmod --recursive o+rX" in machine.output()
