"""The host makes one sandbox for each session, keeps it running, and ends it completely."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import uuid4

import psutil
import pytest
from websockets.exceptions import WebSocketException

from support.sandbox_host import ACCOUNTS, Inside, SandboxHost, sandbox_host, still_running
from support.waiting import HANG_SECONDS, block_until


def test_a_sandbox_runs_commands_as_its_own_user(inside: Inside) -> None:
    assert inside.run("id -un; hostname; pwd").split() == ["ubuntu", "sandbox", "/home/ubuntu"]


def test_a_sandbox_has_a_screen(inside: Inside) -> None:
    block_until(lambda: has_screen(inside), "the screen answers")


def test_a_second_put_finds_the_first_ones_sandbox(shared_host: SandboxHost, inside: Inside) -> None:
    again = shared_host.put(inside.session_id)
    assert (again.uid, again.url, again.boot_id) == (inside.uid, inside.url, inside.boot_id)


def test_puts_at_the_same_time_make_one_sandbox(shared_host: SandboxHost) -> None:
    session_id = str(uuid4())
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: shared_host.put(session_id), range(8)))
    assert len({(one.uid, one.url, one.boot_id) for one in made}) == 1
    assert shared_host.gate_of(made[0]).is_running()
    assert shared_host.request("DELETE", f"/v1/sandboxes/{session_id}").status_code == 204


def test_all_sandboxes_are_listed(shared_host: SandboxHost, inside: Inside, neighbour: Inside) -> None:
    shown = {one["session_id"]: one for one in shared_host.request("GET", "/v1/sandboxes").json()["sandboxes"]}
    for one in (inside, neighbour):
        assert shown[one.session_id] == shared_host.read_sandbox(one.session_id)
        assert (shown[one.session_id]["uid"], shown[one.session_id]["phase"]) == (one.uid, "ready")


@pytest.mark.parametrize(
    "text",
    ["x", "..", "%2e%2e", "A9B6A6A5-6F9C-4F55-8C51-0F7C9F6C1B11", "{a9b6a6a5-6f9c-4f55-8c51-0f7c9f6c1b11}"],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_an_invalid_session_id_is_refused(shared_host: SandboxHost, method: str, text: str) -> None:
    assert shared_host.request(method, f"/v1/sandboxes/{text}").status_code in (400, 404, 405)
    assert text not in os.listdir(shared_host.data / "sandboxes")


def test_an_unknown_session_has_no_sandbox(shared_host: SandboxHost) -> None:
    for method in ("GET", "DELETE"):
        response = shared_host.request(method, f"/v1/sandboxes/{uuid4()}")
        assert (response.status_code, response.json()["error"]) == (404, "not_found")


def test_only_the_hosts_user_can_open_the_socket(shared_host: SandboxHost) -> None:
    assert stat.S_IMODE(shared_host.socket.stat().st_mode) == 0o600


def test_a_second_host_with_the_same_data_refuses_to_start(shared_host: SandboxHost) -> None:
    assert shared_host.spawn().wait(timeout=HANG_SECONDS) == 1
    assert "Another sandbox host" in shared_host.log.read_text()


def test_a_killed_gate_comes_back_on_its_port_with_its_ledger(shared_host: SandboxHost) -> None:
    inside = shared_host.put()
    first = inside.run("echo once >> count; wc -l < count", key="1")
    shared_host.gate_of(inside).kill()
    assert inside.run("echo once >> count; wc -l < count", key="1") == first
    assert inside.run("wc -l < count").strip() == "1"
    listed = shared_host.read_sandbox(inside.session_id)
    assert (listed["url"], listed["uid"]) == (inside.url, inside.uid)


def test_lines_about_a_sandbox_and_of_its_processes_name_the_session(own_host: SandboxHost) -> None:
    inside = own_host.put()
    own_host.gate_of(inside).kill()
    block_until(lambda: "the gate was killed" in own_host.log.read_text(), "the host logs the end of the gate")
    lines = [line for line in own_host.log.read_text().splitlines() if "the gate was killed" in line]
    assert all(line.endswith(f"(session_id={inside.session_id})") for line in lines)


def test_a_killed_box_comes_back_with_its_home(shared_host: SandboxHost) -> None:
    inside = shared_host.put()
    inside.run("echo kept > file")
    boot_id = inside.boot_id
    shared_host.box_of(inside).kill()
    again = block_until(lambda: try_put(shared_host, inside.session_id), "the sandbox answers again")
    assert again.boot_id != boot_id
    assert (again.url, again.uid) == (inside.url, inside.uid)
    assert again.run("cat file").strip() == "kept"


@pytest.mark.parametrize("account", ACCOUNTS)
def test_a_box_that_does_not_answer_is_restarted(account: str) -> None:
    with sandbox_host(account, "--unresponsive-seconds=1") as host:
        host.start()
        inside = host.put()
        box = host.box_of(inside)
        box.suspend()
        assert psutil.wait_procs([box], timeout=HANG_SECONDS)[1] == []
        again = block_until(lambda: try_put(host, inside.session_id), "the sandbox answers again")
        assert (again.uid, again.boot_id != inside.boot_id) == (inside.uid, True)


def test_a_killed_screen_comes_back(shared_host: SandboxHost) -> None:
    inside = shared_host.put()
    block_until(lambda: has_screen(inside), "the screen answers")
    [screen] = shared_host.processes_of(inside, "Xtigervnc")
    screen.kill()
    psutil.wait_procs([screen], timeout=HANG_SECONDS)
    block_until(lambda: has_screen(inside), "the screen answers again")
    assert inside.boot_id == shared_host.put(inside.session_id).boot_id


def test_sandboxes_come_back_after_the_fork_server_was_killed(own_host: SandboxHost) -> None:
    inside = own_host.put()
    inside.run("echo kept > file")
    launcher = psutil.Process(own_host.pid).children()[0]
    launcher.kill()
    again = block_until(lambda: try_put(own_host, inside.session_id), "the sandbox answers again")
    assert (again.uid, again.url) == (inside.uid, inside.url)
    assert again.run("cat file").strip() == "kept"


def test_nothing_outlives_a_killed_host(host: SandboxHost) -> None:
    inside = host.put()
    inside.run("sleep 1000 & setsid sleep 1000 &")
    block_until(lambda: host.processes_of(inside, "Xtigervnc"), "the screen runs")
    processes = host.descendants()
    assert {"bwrap", "slirp4netns", "sleep", host.gate_of(inside).name()} <= still_running(processes).keys()
    host.kill()
    _, left = psutil.wait_procs(processes, timeout=HANG_SECONDS)
    assert left == []


@pytest.mark.parametrize("delay_seconds", [0.02, 0.06, 0.1, 0.2])
def test_nothing_outlives_a_host_that_is_killed_while_it_makes_a_sandbox(
    host: SandboxHost, delay_seconds: float
) -> None:
    before = set(processes_of_users(host.uids())) - set(host.descendants())
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(host.socket))
        client.sendall(f"PUT /v1/sandboxes/{uuid4()} HTTP/1.1\r\nHost: host\r\n\r\n".encode())
        client.settimeout(delay_seconds)  # some moment while the sandbox is made; no event marks it
        with suppress(TimeoutError):
            client.recv(1)
        host.kill()
    block_until(lambda: set(processes_of_users(host.uids())) <= before, "nothing is left")


def test_a_new_host_finds_the_home_and_the_ledger_of_a_killed_one(host: SandboxHost) -> None:
    inside = host.put()
    first = inside.run("echo kept > file; date +%s%N", key="7")
    host.kill()
    host.start()
    assert host.request("GET", f"/v1/sandboxes/{inside.session_id}").status_code == 404
    again = host.put(inside.session_id)
    assert again.uid == inside.uid
    assert again.run("cat file").strip() == "kept"
    assert again.run("echo kept > file; date +%s%N", key="7") == first


def test_a_terminated_host_ends_everything(host: SandboxHost) -> None:
    host.put()
    host.put()
    processes = host.descendants()
    assert host.stop() == 0
    assert still_running(processes) == {}
    assert not host.socket.exists()
    assert not host.runtime.exists()
    assert host.groups() == []


def test_a_deleted_sandbox_leaves_nothing(shared_host: SandboxHost) -> None:
    before = set(shared_host.descendants())
    inside = shared_host.put()
    inside.run("mkdir -p closed/deep; echo x > closed/deep/file; chmod 0 closed/deep closed; ln -s /etc link")
    processes = set(shared_host.descendants()) - before
    assert shared_host.request("DELETE", f"/v1/sandboxes/{inside.session_id}").status_code == 204
    assert still_running(processes) == {}
    assert not (shared_host.data / "sandboxes" / inside.session_id).exists()
    block_until(lambda: os.listdir(shared_host.data / "sandboxes.deleted") == [], "the files are deleted")


def test_a_deleted_sandbox_is_made_again(shared_host: SandboxHost) -> None:
    inside = shared_host.put()
    inside.run("echo old > file")
    assert shared_host.request("DELETE", f"/v1/sandboxes/{inside.session_id}").status_code == 204
    again = shared_host.put(inside.session_id)
    assert again.uid != inside.uid
    assert "No such file" in again.run("cat file")


def test_a_sandbox_can_be_deleted_while_it_starts(shared_host: SandboxHost) -> None:
    session_id = str(uuid4())
    before = set(shared_host.descendants())
    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(shared_host.request, "PUT", f"/v1/sandboxes/{session_id}")
        block_until(
            lambda: shared_host.request("GET", f"/v1/sandboxes/{session_id}").status_code == 200, "it is being made"
        )
        assert shared_host.request("DELETE", f"/v1/sandboxes/{session_id}").status_code == 204
        assert making.result().status_code in (200, 503)
    assert shared_host.request("GET", f"/v1/sandboxes/{session_id}").status_code == 404
    assert still_running(set(shared_host.descendants()) - before) == {}


def test_a_sandbox_over_the_limit_is_refused() -> None:
    with sandbox_host(ACCOUNTS[0], "--max-sandboxes=1") as host:
        host.start()
        first = host.put()
        refused = host.request("PUT", f"/v1/sandboxes/{uuid4()}")
        assert (refused.status_code, refused.json()["error"]) == (503, "limit")
        assert "at most 1" in refused.json()["message"]
        assert host.request("DELETE", f"/v1/sandboxes/{first.session_id}").status_code == 204
        assert host.put().run("echo fine").strip() == "fine"


def test_a_sandbox_that_cannot_run_reports_the_reason() -> None:
    with sandbox_host(ACCOUNTS[0], "--memory-mib=1") as host:
        host.start()
        session_id = str(uuid4())
        refused = host.request("PUT", f"/v1/sandboxes/{session_id}")
        assert (refused.status_code, refused.json()["error"]) == (503, "failed")
        shown = host.read_sandbox(session_id)
        assert (shown["phase"], shown["reason"]) == ("failed", refused.json()["message"])
        assert shown["reason"]


def test_a_changed_trust_file_reaches_the_gates(own_host: SandboxHost) -> None:
    inside = own_host.put()
    own_host.keys.distrust("runner")
    block_until(lambda: status_of_run(inside) == 401, "the key is refused")


def has_screen(inside: Inside) -> bool:
    try:
        return inside.rfb_greeting() == b"RFB 003.008\n"
    except (OSError, TimeoutError, WebSocketException):
        return False


def try_put(host: SandboxHost, session_id: str) -> Inside | None:
    try:
        return host.put(session_id)
    except AssertionError:
        return None


def status_of_run(inside: Inside) -> int:
    try:
        inside.run("true")
    except AssertionError as error:
        return 401 if "unauthorized" in str(error) else 0
    return 200


def processes_of_users(uids: set[int]) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):
            if process.uids().real in uids and process.status() != psutil.STATUS_ZOMBIE:
                yield process
