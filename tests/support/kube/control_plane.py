"""A real Kubernetes control plane for tests: etcd, kube-apiserver, kube-controller-manager. `node` adds a kubelet.

    with ControlPlane.boot() as control_plane:
        control_plane.apply([manifest])

Everything runs in separate Linux namespaces (`supervisor`), so its ports, mounts, links and packet filter rules do not
affect the host. One link connects it to the host.
"""

import json
import os
import queue
import random
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from moorage_kube.client import Manifest
from support.kube.binaries import prepared_binaries
from support.kube.credentials import Authority
from support.kube.errors import NodeError
from support.kube.privileges import SEARCH_PATH, as_root
from support.kube.progress import Progress, Stopwatch
from support.waiting import HANG_SECONDS

NODE_NAME = "node"
PREFIX = "moorage-node-"
SERVICES = IPv4Network("10.96.0.0/24")
"""This address exists only inside the namespaces."""
TESTS = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Network:
    """The addresses of one node: 10.88.<number>.0/24 has the link to the host and the pods."""

    number: int

    @property
    def host_address(self) -> IPv4Address:
        return IPv4Address(f"10.88.{self.number}.1")

    @property
    def node_address(self) -> IPv4Address:
        return IPv4Address(f"10.88.{self.number}.2")

    @property
    def pods(self) -> IPv4Network:
        return IPv4Network(f"10.88.{self.number}.128/25")

    @classmethod
    def find_unused(cls) -> "Network":
        """Find a network that no link or route of this host uses."""
        routes = json.loads(subprocess.run(["ip", "-json", "-4", "route"], check=True, capture_output=True).stdout)
        taken = {route["dst"].rpartition(".")[0] for route in routes}
        free = [n for n in range(1, 255) if f"10.88.{n}" not in taken]
        return cls(random.choice(free))


class Supervisor:
    """The processes of the node. The module `supervisor` runs them and receives commands through a pipe."""

    def __init__(self, directory: Path, network: Network) -> None:
        plan = {
            "network": {
                "number": network.number,
                "host_address": str(network.host_address),
                "node_address": str(network.node_address),
                "pods": str(network.pods),
            }
        }
        (directory / "plan.json").write_text(json.dumps(plan))
        self._directory = directory
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._ended: dict[str, str] = {}
        self._log = (directory / "logs" / "supervisor.log").open("wb")
        self._process = subprocess.Popen(
            as_root(sys.executable, "-m", "support.kube.supervisor", "outer", str(directory)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": str(TESTS), "PATH": SEARCH_PATH},
            start_new_session=True,
        )
        threading.Thread(target=self._listen, name="node-events", daemon=True).start()
        self._wait_up()

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._events.put(json.loads(line))
        self._events.put(None)

    def _wait_up(self) -> None:
        try:
            event = self._events.get(timeout=HANG_SECONDS)
        except queue.Empty:
            event = None
        if event is None or event["event"] != "up":
            log = (self._directory / "logs" / "supervisor.log").read_text(errors="replace")
            raise NodeError(f"the node's namespaces did not come up: {event}\n{log}")

    def start(self, name: str, *argv: str, environment: dict[str, str] | None = None) -> None:
        self._ended.pop(name, None)
        self._order({"do": "start", "name": name, "argv": list(argv), "environment": environment or {}})

    def signal(self, name: str, number: int) -> None:
        """Send a signal to the process group of a component."""
        self._order({"do": "signal", "name": name, "signal": number})

    def _order(self, order: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def read_ended(self) -> dict[str, str]:
        """The processes that have ended, with how each ended."""
        with suppress(queue.Empty):
            while event := self._events.get_nowait():
                if event["event"] in ("exited", "failed"):
                    self._ended[event["name"]] = str(event.get("status", event.get("message")))
        return self._ended

    def close(self) -> None:
        """End all processes and wait until everything is removed. Raises NodeError."""
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=HANG_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise NodeError(f"the node did not end in {HANG_SECONDS:g} s (process {self._process.pid})") from error
        finally:
            assert self._process.stdout
            self._process.stdout.close()
            self._log.close()


class ControlPlane:
    """Use `ControlPlane.boot()` to create one."""

    def __init__(self, directory: Path, *, binaries: dict[str, Path], say: Progress) -> None:
        self.directory = directory
        self.logs = directory / "logs"
        self.logs.mkdir()
        self.network = Network.find_unused()
        self.server = f"https://{self.network.node_address}:6443"
        self._binaries = binaries
        self._say = say
        self._write_credentials()
        self._supervisor = Supervisor(directory, self.network)

    @classmethod
    @contextmanager
    def boot(cls, *, say: Progress | None = None) -> Iterator["ControlPlane"]:
        """Boot a control plane without a controller manager; see `start_controller_manager`.

        Raises UnavailableError if this machine cannot run one, and NodeError with the end of every log if it fails.
        """
        say = say or Stopwatch()
        with cls._in(Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp")), prepared_binaries(say=say), say) as booted:
            yield booted

    @classmethod
    @contextmanager
    def _in(cls, directory: Path, binaries: dict[str, Path], say: Progress) -> Iterator[Any]:
        booted: Any = None
        try:
            booted = cls(directory, binaries=binaries, say=say)
            booted._boot()
            yield booted
        except NodeError as error:
            raise NodeError(f"{error}\n\n{last_log_lines(directory / 'logs')}") from error
        finally:
            if booted:
                booted._supervisor.close()
                say("all of it is gone")
            shutil.rmtree(directory, ignore_errors=True)

    def _boot(self) -> None:
        self._start_etcd()
        self._start_api_server()
        self._await_api_server()

    def _await_api_server(self) -> None:
        self.wait("the API server to be ready", lambda: self.get("/readyz") == "ok", seconds=HANG_SECONDS)
        self._say("API server ready")

    def _write_credentials(self) -> None:
        address = str(self.network.node_address)
        authority = Authority(self.directory / "pki")
        hosts = [address, "127.0.0.1", str(SERVICES[1]), "localhost", "kubernetes", "kubernetes.default.svc"]
        self._server_pair = authority.issue("apiserver", user="kube-apiserver", hosts=hosts)
        self._kubelet_client = authority.issue(
            "apiserver-to-kubelet", user="kube-apiserver-kubelet-client", groups=["system:masters"]
        )
        self._kubelet_pair = authority.issue("kubelet", user="kubelet", hosts=[address, NODE_NAME])
        self._token_key = authority.signing_key("service-accounts")
        self._ca = authority.pair
        users = {
            "admin": ("admin", ["system:masters"]),
            "kube-controller-manager": ("system:kube-controller-manager", []),
            "kube-scheduler": ("system:kube-scheduler", []),
            "kubelet": (f"system:node:{NODE_NAME}", ["system:nodes"]),
        }
        self._kubeconfigs = {
            name: authority.kubeconfig(
                self.directory / f"{name}.kubeconfig",
                server=self.server,
                client=authority.issue(f"{name}-client", user=user, groups=groups),
            )
            for name, (user, groups) in users.items()
        }
        admin = self.directory / "pki" / "admin-client"
        self._tls = ssl.create_default_context(cafile=self._ca.certificate)
        self._tls.load_cert_chain(admin.with_suffix(".crt"), admin.with_suffix(".key"))

    @property
    def tls(self) -> ssl.SSLContext:
        """An administrator's."""
        return self._tls

    @property
    def authority(self) -> Path:
        """The certificate of the authority that signed the server's certificate."""
        return self._ca.certificate

    @property
    def kubeconfig(self) -> Path:
        """An administrator's."""
        return self._kubeconfigs["admin"]

    def _start(self, name: str, *flags: str) -> None:
        self._supervisor.start(name, str(self._binaries[name]), *flags)

    def _start_etcd(self) -> None:
        client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"  # the loopback interface of the namespace
        self._start(
            "etcd",
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )

    def _start_api_server(self) -> None:
        self._start(
            "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            f"--advertise-address={self.network.node_address}",
            "--secure-port=6443",
            f"--client-ca-file={self._ca.certificate}",
            f"--tls-cert-file={self._server_pair.certificate}",
            f"--tls-private-key-file={self._server_pair.key}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--service-cluster-ip-range={SERVICES}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={self._token_key}",
            f"--service-account-signing-key-file={self._token_key}",
            f"--kubelet-certificate-authority={self._ca.certificate}",
            f"--kubelet-client-certificate={self._kubelet_client.certificate}",
            f"--kubelet-client-key={self._kubelet_client.key}",
            "--kubelet-preferred-address-types=InternalIP",  # otherwise exec and logs would resolve the node's name
            f"--audit-policy-file={self._audit_policy()}",
            f"--audit-log-path={self.audit_log}",
        )

    @property
    def audit_log(self) -> Path:
        """The audit log: one line of JSON for every write, after its response."""
        return self.directory / "audit.log"

    def _audit_policy(self) -> Path:
        policy = self.directory / "audit-policy.json"
        writes = ["create", "update", "patch", "delete", "deletecollection"]
        policy.write_text(
            json.dumps(
                {
                    "apiVersion": "audit.k8s.io/v1",
                    "kind": "Policy",
                    "omitStages": ["RequestReceived", "ResponseStarted"],
                    "rules": [{"level": "Metadata", "verbs": writes}, {"level": "None"}],
                }
            )
        )
        return policy

    def start_controller_manager(self, *, without: Sequence[str] = ()) -> None:
        """Create resource definitions first: its garbage collector looks for new ones only every 30 s."""
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={self._kubeconfigs['kube-controller-manager']}",
            f"--service-account-private-key-file={self._token_key}",
            f"--root-ca-file={self._ca.certificate}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            f"--controllers={','.join(['*', *(f'-{name}' for name in without)])}",
            "--bind-address=127.0.0.1",
        )

    def get(self, path: str) -> str:
        """Send a GET to the API server as the administrator. Raises OSError."""
        with urllib.request.urlopen(self.server + path, context=self._tls, timeout=HANG_SECONDS) as answer:
            content: bytes = answer.read()
            return content.decode()

    def wait(self, what: str, is_so: Callable[[], bool], *, seconds: float) -> None:
        """Wait until `is_so` returns true. Raises NodeError after `seconds`, or as soon as a component has ended."""
        deadline = time.monotonic() + seconds
        reason = ""
        while True:
            if ended := self._supervisor.read_ended():
                raise NodeError(f"waiting for {what}: a component ended: {ended}")
            try:
                if is_so():
                    return
            except (OSError, subprocess.CalledProcessError) as error:
                reason = f": {error}"
            if time.monotonic() > deadline:
                raise NodeError(f"waited {seconds:.0f} s for {what}{reason}")
            time.sleep(0.1)

    def wait_until_established(self, name: str) -> None:
        """Wait until the API serves a resource definition. `kubectl wait` fails while it has no conditions yet."""
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"

        def is_established() -> bool:
            conditions = json.loads(self.get(path)).get("status", {}).get("conditions") or []
            return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)

        self.wait(f"the resource definition {name} to be established", is_established, seconds=HANG_SECONDS)

    def kubectl(self, *arguments: str, stdin: str | None = None, seconds: float = 60) -> str:
        """Run kubectl as the administrator. Raises NodeError with its error output."""
        done = self.kubectl_result(*arguments, stdin=stdin, seconds=seconds)
        if done.returncode:
            raise NodeError(f"kubectl {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def kubectl_result(
        self, *arguments: str, stdin: str | None = None, seconds: float = 60
    ) -> "subprocess.CompletedProcess[str]":
        """Like `kubectl`, but it returns the result even if kubectl fails."""
        command = [str(self._binaries["kubectl"]), f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(command, input=stdin or "", capture_output=True, text=True, timeout=seconds)

    def apply(self, manifests: Sequence[Manifest]) -> None:
        """Create or change the objects. Waits for the default service account of a new namespace: pods need it."""
        for manifest in manifests:
            self.kubectl("apply", "--filename=-", stdin=json.dumps(manifest))
            if manifest["kind"] == "Namespace":
                account = f"/api/v1/namespaces/{manifest['metadata']['name']}/serviceaccounts/default"
                self.wait("the default service account", partial(self._is_there, account), seconds=HANG_SECONDS)

    def _is_there(self, path: str) -> bool:
        return bool(self.get(path))


def last_log_lines(logs: Path, *, lines: int = 25) -> str:
    """The end of every component's log."""
    parts = []
    for log in sorted(logs.glob("*.log")):
        text = log.read_text(errors="replace").splitlines()
        parts.append("\n".join([f"--- {log.name} ({len(text)} lines)", *text[-lines:]]))
    return "\n".join(parts)
