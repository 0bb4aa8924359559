"""Requests a second of the api that `moorage up` starts, on one core, over kept-alive connections.

Method: `wrk` with 32 connections, and with one, for 5 s after 2 s of warming, three times, on the second core; the api
is pinned to the first, PostgreSQL and Valkey share the second with wrk. The listing user has 100 sessions of 200 events
each.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from sqlalchemy import text

from benchmarks.rows import Row
from support.accounts import Person

CONNECTIONS = 32
SESSIONS = 100
EVENTS = 200

NO_LIMITS = {f"MOORAGE_LIMIT_{name}": "1000000" for name in ("READS", "WRITES")}


def pin(pid: int, core: int) -> None:
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def wrk(url: str, token: str, *, connections: int, method: str = "GET", seconds: int) -> float:
    """Answers a second."""
    program = shutil.which("wrk")
    if program is None:
        raise SystemExit("wrk is missing: apt install wrk")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f'wrk.method = "{method}"\nwrk.headers["Authorization"] = "Bearer {token}"\n')
        script.flush()
        command = [program, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script.name, url]
        if (os.cpu_count() or 1) > 1:
            command = ["taskset", "-c", "1", *command]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in printed, printed
    found = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    assert found is not None, printed
    return float(found[1])


FILL = text(
    f"""
WITH one AS (SELECT id, owner_id FROM sessions WHERE owner_id = :owner),
    filled AS (UPDATE session_heads SET last_seq = {EVENTS} WHERE session_id IN (SELECT id FROM one))
INSERT INTO events (session_id, seq, type, data)
SELECT one.id, seq, 'message', jsonb_build_object('role', 'assistant', 'message', repeat('x', 200))
FROM one, generate_series(1, {EVENTS}) AS seq
"""
)


async def fill(alice: Person) -> None:
    for _ in range(SESSIONS):
        await alice.create_session()


def measure(url: str, lister: Person, creator: Person) -> list[Row]:
    rows = []
    for name, person, method, path, aim in (
        ("GET /api/auth/me", lister, "GET", "/api/auth/me", ">= 1,300"),
        (f"GET /api/sessions, {SESSIONS} of {EVENTS} events", lister, "GET", "/api/sessions", ">= 400"),
        ("POST /api/sessions", creator, "POST", "/api/sessions", ">= 500"),
    ):
        samples = sample(url + path, person, connections=CONNECTIONS, method=method)
        rows.append(Row(name, "req/s", samples, aim, f"one worker, one core, {CONNECTIONS} connections"))
    alone = sample(url + "/api/auth/me", lister, connections=1)
    rows.append(Row("GET /api/auth/me, one connection", "req/s", alone, note="one worker, one core"))
    times = [1000 / requests for requests in alone]
    rows.append(Row("GET /api/auth/me, one connection", "ms", times, "<= 5", "one request after the other"))
    return rows


def sample(url: str, person: Person, *, connections: int, method: str = "GET") -> list[float]:
    wrk(url, person.token, connections=connections, method=method, seconds=2)
    return [wrk(url, person.token, connections=connections, method=method, seconds=5) for _ in range(3)]
