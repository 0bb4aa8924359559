"""A sandbox reaches public addresses, but neither this machine nor private networks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil
import pytest

from moorage_sandbox.host.network.routes import find_own_ranges, route_commands
from support.reach import GREETER, listener_everywhere, own_addresses, reach, run_here
from support.sandbox_host import ACCOUNTS, Inside, SandboxHost, sandbox_host
from support.waiting import block_until
from support.worker import WORKER

SLIRP_ADDRESSES = [f"10.0.2.{last}" for last in (0, 1, 2, 3, 4, 15, 254, 255)]
"""slirp's own network: its gateway, its resolver, and other addresses that could lead to the host."""


def test_a_sandbox_reaches_nothing_of_its_machine(inside: Inside) -> None:
    with listener_everywhere() as port:
        own = [(address, port) for address in own_addresses()]
        assert set(reach(own, run_here).values()) == {"reached"}
        disguises = ["127.0.0.1", "::1", "0.0.0.0", "localhost", "::ffff:127.0.0.1", "127.0.1.1", *SLIRP_ADDRESSES]
        answers = reach([*own, *((address, port) for address in disguises)], inside.python)
    assert "reached" not in answers.values(), answers


@pytest.mark.parametrize("address", ["169.254.169.254", "100.100.100.200", "192.168.0.1", "172.17.0.1", "10.1.2.3"])
def test_private_and_metadata_addresses_are_closed(inside: Inside, address: str) -> None:
    assert "prohibit" in inside.run(f"ip route get {address} 2>&1 || echo prohibit")
    assert reach([(address, 80)], inside.python) == {address: "PermissionError"}


def test_a_sandbox_reaches_itself(inside: Inside) -> None:
    inside.run(f"python3 -c '{GREETER.replace('socket.socket(fileno=int(sys.argv[1]))', SERVER)}' &")
    block_until(lambda: reach([("127.0.0.1", 4321)], inside.python)["127.0.0.1"] == "reached", "its own server answers")


def test_commands_cannot_change_the_network(inside: Inside) -> None:
    before = inside.run("ip route")
    for command in (
        "ip route flush table main",
        "ip route del prohibit 10.0.0.0/8",
        "ip link set tap0 down",
        "ip address add 192.168.9.9/24 dev tap0",
        "unshare --user --map-root-user ip route del prohibit 10.0.0.0/8",
        "nsenter --net=/proc/1/ns/net ip route flush table main",
    ):
        inside.run(f"{command} 2>/dev/null")
    assert inside.run("ip route") == before


def test_two_sandboxes_cannot_reach_each_other(inside: Inside, neighbour: Inside) -> None:
    neighbour.run(f"python3 -c '{GREETER.replace('socket.socket(fileno=int(sys.argv[1]))', SERVER)}' &")
    block_until(
        lambda: reach([("127.0.0.1", 4321)], neighbour.python)["127.0.0.1"] == "reached", "its own server answers"
    )
    assert "reached" not in reach([("10.0.2.100", 4321)], inside.python).values()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a tap that is root's alone")
def test_a_sandbox_has_a_network_also_if_only_root_may_open_the_tap() -> None:
    with sandbox_host("root") as host:
        host.root_tun = True
        host.start()
        assert "default via" in host.put().run("ip route")


def test_a_killed_slirp_is_replaced(shared_host: SandboxHost) -> None:
    inside = shared_host.put()
    assert "default via" in inside.run("ip route")
    for process in shared_host.descendants():
        with suppress(psutil.NoSuchProcess):
            if process.name() == "slirp4netns":
                process.kill()
    block_until(lambda: "default via" in inside.run("ip route"), "the network is back")
    assert "prohibit 10.0.0.0/8" in inside.run("ip route")
    assert shared_host.put(inside.session_id).boot_id == inside.boot_id


def test_without_network_a_sandbox_has_only_loopback() -> None:
    with sandbox_host(ACCOUNTS[0], "--no-network") as host:
        host.start()
        inside = host.put()
        assert inside.run("ip -brief link | cut -d' ' -f1").split() == ["lo"]
        assert host.read_sandbox(inside.session_id)["reason"] == ""


def test_without_slirp_a_sandbox_runs_and_says_that_it_has_no_network() -> None:
    with sandbox_host(ACCOUNTS[0], environment={"PATH": "/nonexistent"}) as host:
        host.start()
        inside = host.put()
        assert inside.run("ip -brief link | cut -d' ' -f1").split() == ["lo"]
        shown = host.read_sandbox(inside.session_id)
        assert (shown["phase"], "apt-get install slirp4netns" in shown["reason"]) == ("ready", True)


@dataclass(frozen=True)
class Public:
    """Two addresses that are treated as public: one of this machine and one of another."""

    own: str
    other: str
    port: int


@contextmanager
def public_network() -> Iterator[Public]:
    """Simulates another machine: a network namespace behind a virtual cable, with a server in it."""
    number = WORKER
    name, cable = f"moorage-{os.getpid()}", f"mo{number}x{os.getpid() % 10000}"
    own, other = f"198.51.100.{4 * number + 1}", f"198.51.100.{4 * number + 2}"
    commands = [
        f"ip netns add {name}",
        f"ip link add {cable} type veth peer name inner netns {name}",
        f"ip address add {own}/30 dev {cable}",
        f"ip link set {cable} up",
        f"ip -netns {name} address add {other}/30 dev inner",
        f"ip -netns {name} link set inner up",
    ]
    greeter = None
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        code = GREETER.replace("socket.socket(fileno=int(sys.argv[1]))", f'socket.create_server(("{other}", 4321))')
        greeter = subprocess.Popen(["ip", "netns", "exec", name, sys.executable, "-c", code])
        yield Public(own, other, 4321)
    finally:
        if greeter is not None:
            greeter.kill()
            greeter.wait()
        subprocess.run(["ip", "netns", "delete", name], check=True)


SERVER = 'socket.create_server(("127.0.0.1", 4321))'

if os.geteuid() == 0:  # only root can make a virtual cable

    def test_public_addresses_are_open_except_the_machines_own(shared_host: SandboxHost) -> None:
        with public_network() as public, listener_everywhere() as port:
            block_until(lambda: reach([(public.other, public.port)], run_here)[public.other] == "reached", "it answers")
            inside = shared_host.put()
            answers = reach([(public.other, public.port), (public.own, port)], inside.python)
            assert reach([(public.own, port)], run_here) == {public.own: "reached"}
        assert answers == {public.other: "reached", public.own: "PermissionError"}


TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     |-- 8.8.4.4
        /32 host LOCAL
     |-- 8.8.4.255
        /32 link BROADCAST
Local:
     |-- 8.8.4.4
        /32 host LOCAL
     |-- 127.0.0.0
        /8 host LOCAL
"""


def test_every_address_of_the_machine_gets_a_route() -> None:
    own = find_own_ranges(TRIE)
    assert own == ["127.0.0.0/8", "8.8.4.4/32"]
    assert "route replace prohibit 8.8.4.4/32\n" in route_commands(own)


def test_the_machines_addresses_are_found() -> None:
    own = find_own_ranges()
    assert {f"{address}/32" for address in own_addresses() if ":" not in address} <= set(own)
