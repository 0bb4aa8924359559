"""Commands in a sandbox cannot see or change anything outside of it. Tested as the commands' own user."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
from pathlib import Path

import pytest

from moorage_sandbox.host.confinement import seccomp
from support.sandbox_host import Inside, SandboxHost
from support.waiting import block_until

LOOK = """
import json, os
def look(path):
    try:
        if os.path.isdir(path):
            return os.listdir(path)
        with open(path, "rb") as file:
            return file.read(20).decode("latin-1")
    except OSError as error:
        return type(error).__name__
print(json.dumps({path: look(path) for path in PATHS}))
"""
CLOSED = {"FileNotFoundError", "PermissionError"}


def look(inside: Inside, paths: list[Path]) -> dict[str, object]:
    answers: dict[str, object] = json.loads(inside.python(f"PATHS = {[str(path) for path in paths]!r}\n{LOOK}"))
    return answers


def test_no_file_of_the_machine_or_of_the_platform_is_seen(
    shared_host: SandboxHost, inside: Inside, neighbour: Inside
) -> None:
    other = shared_host.data / "sandboxes" / neighbour.session_id
    paths = [
        Path("/etc/shadow"),
        Path("/etc/machine-id"),
        Path("/root"),
        Path("/work"),
        Path("/sys"),
        Path("/boot"),
        Path("/var/log"),
        Path("/proc/1/root/etc/shadow"),
        Path("/run/moorage/vnc"),
        Path(os.getcwd()),
        shared_host.directory,
        shared_host.socket,
        shared_host.data,
        shared_host.keys.trust_file,
        shared_host.data / "sandboxes" / inside.session_id / "gate" / "ledger.db",
        other / "home",
        other / "gate" / "ledger.db",
        Path(f"/proc/{shared_host.pid}/environ"),
        Path(f"/proc/{shared_host.gate_of(inside).pid}/mem"),
    ]
    answers = look(inside, paths)
    assert {path: answer for path, answer in answers.items() if answer not in CLOSED} == {}


def test_the_root_holds_software_and_nothing_else(inside: Inside) -> None:
    directories = set(inside.run("ls /").split())
    system = {"bin", "etc", "lib", "lib32", "lib64", "libx32", "sbin", "usr"}
    assert directories - system == {"dev", "home", "opt", "proc", "run", "tmp", "var"}
    assert inside.run("ls /home /usr/local /opt").split() == ["/home:", "ubuntu", "/opt:", "moorage", "/usr/local:"]
    assert inside.run("find / -xdev -type b -o -xdev -type c -not -path '/dev/*' 2>/dev/null") == ""
    devices = inside.run("find /dev -type c -printf '%f '").split()
    assert set(devices) <= {"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "0", "1", "2", "3"}


@pytest.mark.parametrize("path", ["/", "/usr", "/usr/local", "/etc", "/dev", "/run", "/opt/moorage", "/tmp/.X11-unix"])
def test_nothing_outside_home_and_tmp_can_be_written(inside: Inside, path: str) -> None:
    assert "ok" not in inside.run(f"touch {path}/written 2>/dev/null && echo ok")


def test_home_tmp_and_shared_memory_can_be_written(inside: Inside) -> None:
    assert (
        inside.run("for d in ~ ~/workspace /tmp /dev/shm; do touch $d/written && echo ok; done").split() == ["ok"] * 4
    )


def test_the_environment_is_the_sandboxs_own(inside: Inside) -> None:
    names = set(inside.python("import os; print(*os.environ)").split())
    assert names.isdisjoint({name for name in os.environ if "MOORAGE" in name or "TOKEN" in name or "KEY" in name})
    assert inside.run("echo $HOME $USER $DISPLAY").split() == ["/home/ubuntu", "ubuntu", ":1"]


def test_only_the_sandboxs_own_processes_are_seen(shared_host: SandboxHost, inside: Inside) -> None:
    commands = inside.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "moorage_sandbox.box" in commands
    for foreign in ("moorage_sandbox.host", "slirp4netns", "Xtigervnc", "pytest"):
        assert foreign not in commands


def test_commands_have_no_privilege(inside: Inside) -> None:
    status = inside.run("grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status").split()
    assert set(status[1::2]) == {"0000000000000000", "1"}
    assert inside.run("cat /proc/self/uid_map").split()[::2] == ["1000", "1"]
    assert inside.run("su -c id 2>&1; sudo id 2>&1; mount -t tmpfs x /tmp 2>&1; chroot / id 2>&1").count("uid=0") == 0


@pytest.mark.parametrize("name", seccomp.REFUSED)
def test_system_calls_that_nothing_needs_do_not_exist(inside: Inside, name: str) -> None:
    number = seccomp.REFUSED[name][list(seccomp.ARCHITECTURES).index(platform.machine())]
    code = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall({number}, 0, 0, 0, 0, 0), ctypes.get_errno())
"""
    assert inside.python(code).split() == ["-1", str(errno.ENOSYS)]


def test_a_filter_is_made_only_for_machines_whose_calls_are_known() -> None:
    assert seccomp.build_program("riscv64") is None
    for machine in seccomp.ARCHITECTURES:
        program = seccomp.build_program(machine)
        assert program is not None
        assert len(program) % 8 == 0


def test_no_descriptor_of_the_machine_is_inherited(inside: Inside) -> None:
    code = "import os; print(*(os.readlink(f'/proc/1/fd/{fd}') for fd in os.listdir('/proc/1/fd')), sep='\\n')"
    for target in inside.python(code).splitlines():
        assert target == "/dev/null" or target.startswith(("pipe:", "anon_inode:", "socket:"))


def test_processes_outside_cannot_be_signalled_or_traced(shared_host: SandboxHost, inside: Inside) -> None:
    targets = [os.getpid(), shared_host.pid, shared_host.gate_of(inside).pid]
    code = f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for pid in {targets}:
    try:
        os.kill(pid, 9)
        print("killed")
    except OSError as error:
        print(type(error).__name__)
    print(libc.ptrace(16, pid, 0, 0))
"""
    assert set(inside.python(code).split()) <= {"ProcessLookupError", "-1"}
    assert shared_host.gate_of(inside).is_running()


def test_shared_memory_and_queues_are_not_shared(inside: Inside, neighbour: Inside) -> None:
    assert "0x" in neighbour.run("ipcmk --shmem 4096 >/dev/null; ipcs --shmems")
    assert "0x" not in inside.run("ipcs --shmems")


def test_a_sandbox_cannot_reach_the_home_of_another(inside: Inside, neighbour: Inside) -> None:
    neighbour.run("echo secret > /tmp/secret; echo secret > ~/secret; echo secret > /dev/shm/secret")
    assert "secret" not in inside.run("cat /tmp/secret ~/secret /dev/shm/secret 2>/dev/null")


def test_a_link_in_place_of_a_boxs_socket_does_not_lead_to_another_box(
    shared_host: SandboxHost, neighbour: Inside
) -> None:
    """The gate runs outside of the sandbox, where a link made by a sandbox could lead to another box's socket."""
    inside = shared_host.put()
    link, target = (shared_host.runtime_directory(one) / "box" / "box.sock" for one in (inside, neighbour))
    assert target.is_socket()
    inside.run(f"(sleep 0.2; ln -sf {target} /run/moorage/box/box.sock) > /dev/null 2>&1 &")
    block_until(link.is_symlink, "the link is there")
    with pytest.raises(AssertionError, match="box_unavailable"):
        inside.bind()


def test_a_browser_shows_a_page(inside: Inside) -> None:
    """A browser works within the limits of memory and processes, and with the filter of system calls."""
    response = inside.call("browser_navigate", {"url": "data:text/html,<title>seen</title><h1>A page</h1>"})
    assert response.outcome == "succeeded", response
    assert response.result["title"] == "seen"


def test_x_programs_find_their_screen(shared_host: SandboxHost, inside: Inside) -> None:
    block_until((shared_host.runtime_directory(inside) / "x11" / "X1").is_socket, "the screen is up")
    assert "seen" in inside.run("echo seen | xclip -selection clipboard; xclip -selection clipboard -out")


LET_LOOSE = """
import json, os, socket
def attempt(name, action):
    try:
        action()
        return "done"
    except OSError as error:
        return type(error).__name__
def connect(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
answers = {f"see {path}": attempt(path, lambda: os.listdir(path)) for path in DIRECTORIES}
answers |= {f"read {path}": attempt(path, lambda: open(path).read(1)) for path in FILES}
answers |= {f"connect {path}": attempt(path, lambda: connect(path)) for path in SOCKETS}
answers |= {f"kill {pid}": attempt(pid, lambda: os.kill(pid, 0)) for pid in PIDS}
print(json.dumps(answers))
"""


def as_code(values: list[object]) -> str:
    return repr([value if isinstance(value, int) else str(value) for value in values])


if os.geteuid() == 0:  # only root can become another user

    def test_even_outside_of_a_sandbox_its_user_can_open_no_private_file(inside: Inside, neighbour: Inside) -> None:
        """What directories and users keep closed should the namespaces ever fail."""
        host = inside.host
        if host.account == "ordinary":
            return  # one user owns everything there, and only namespaces separate sandboxes
        box = host.box_of(inside)
        gate, other_gate = host.gate_of(inside).pid, host.gate_of(neighbour).pid
        kept, theirs = host.stored_directory(inside), host.stored_directory(neighbour)
        places: dict[str, list[object]] = {
            "DIRECTORIES": [host.data, kept / "gate", theirs / "home", "/root"],
            "FILES": ["/etc/shadow", kept / "gate" / "ledger.db", theirs / "gate" / "ledger.db"],
            "SOCKETS": [
                host.socket,
                *(host.runtime_directory(neighbour) / name for name in ("box/box.sock", "x11/X1")),
            ],
            "PIDS": [gate, other_gate, host.pid, host.box_of(neighbour).pid],
        }
        for pid in (gate, other_gate, host.pid):
            places["FILES"] += [f"/proc/{pid}/mem", f"/proc/{pid}/environ"]
        code = "".join(f"{name} = {as_code(values)}\n" for name, values in places.items())
        user = [f"--reuid={box.uids().real}", f"--regid={box.gids().real}", "--clear-groups"]
        command = ["setpriv", *user, "/usr/bin/python3", "-I", "-c", code + LET_LOOSE]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
        answers = json.loads(done.stdout)
        assert len(answers) == sum(map(len, places.values()))
        assert {what: answer for what, answer in answers.items() if answer not in CLOSED} == {}
