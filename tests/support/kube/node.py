"""A real one-node Kubernetes for tests: one `with` boots it, its end leaves nothing.

    with Node.booted() as node:
        node.apply(manifest)

Everything runs in namespaces of its own (`supervisor`): ports, mounts, links and packet filter rules are the node's,
not the host's. The host reaches it by one link: the API server and the pods' addresses answer from the test.
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
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from support.kube.archives import PAUSE, import_into, pause_image
from support.kube.binaries import prepared_binaries
from support.kube.credentials import Authority
from support.kube.errors import NodeError
from support.kube.images import prepared_images
from support.kube.privileges import SEARCH_PATH, as_root, install_packages
from support.kube.progress import Progress, Stopwatch
from support.kube.store import link

Manifest = dict[str, Any]

NODE_NAME = "node"
PREFIX = "moorage-node-"
SERVICES = IPv4Network("10.96.0.0/24")
"""Inside the node's own network namespace only."""
TESTS = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Network:
    """Addresses of one node: 10.88.<number>.0/24 holds the link to the host and the pods."""

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
    def unused(cls) -> "Network":
        """One that no link or route of this host has."""
        routes = json.loads(subprocess.run(["ip", "-json", "-4", "route"], check=True, capture_output=True).stdout)
        taken = {route["dst"].rpartition(".")[0] for route in routes}
        free = [n for n in range(1, 255) if f"10.88.{n}" not in taken]
        return cls(random.choice(free))


class Supervisor:
    """The node's processes, kept by `supervisor` and told what to do through a pipe."""

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
            event = self._events.get(timeout=30)
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

    def ended(self) -> dict[str, str]:
        """Which processes are over, and how."""
        with suppress(queue.Empty):
            while event := self._events.get_nowait():
                if event["event"] in ("exited", "failed"):
                    self._ended[event["name"]] = str(event.get("status", event.get("message")))
        return self._ended

    def close(self) -> None:
        """End everything. Returns when nothing is left, or raises NodeError."""
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired as error:
            raise NodeError(f"the node did not end in 30 s (process {self._process.pid})") from error
        finally:
            assert self._process.stdout
            self._process.stdout.close()
            self._log.close()


class Node:
    """A booted node. Made by `Node.booted()`."""

    def __init__(self, directory: Path, *, binaries: dict[str, Path], say: Progress) -> None:
        self.directory = directory
        self.logs = directory / "logs"
        self.logs.mkdir()
        self.network = Network.unused()
        self.server = f"https://{self.network.node_address}:6443"
        self._binaries = binaries
        self._say = say
        self._write_credentials()
        self._supervisor = Supervisor(directory, self.network)

    @classmethod
    @contextmanager
    def booted(cls, *, images: bool = True, say: Progress | None = None) -> Iterator["Node"]:
        """Boot a node that is Ready, with the sandbox's images when `images`.

        Raises UnavailableError where it cannot run at all, NodeError with every component's last words where it fails.
        """
        say = say or Stopwatch()
        install_packages(say=say)
        binaries = prepared_binaries(say=say)
        with prepared_images(say=say) if images else nullcontext() as store:
            with cls._in(Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp")), binaries, store, say) as node:
                yield node

    @classmethod
    @contextmanager
    def _in(cls, directory: Path, binaries: dict[str, Path], store: Path | None, say: Progress) -> Iterator["Node"]:
        node: Node | None = None
        try:
            if store:
                link(store, own=directory / "var-lib" / "containerd")
            node = cls(directory, binaries=binaries, say=say)
            node._boot()
            yield node
        except NodeError as error:
            raise NodeError(f"{error}\n\n{last_words(directory / 'logs')}") from error
        finally:
            if node:
                node._supervisor.close()
                say("the node is gone")
            shutil.rmtree(directory, ignore_errors=True)

    # --- boot

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
    def kubeconfig(self) -> Path:
        """An administrator's."""
        return self._kubeconfigs["admin"]

    def _start(self, name: str, *flags: str) -> None:
        self._supervisor.start(name, str(self._binaries[name]), *flags)

    def _boot(self) -> None:
        self._start_etcd()
        self._start_containerd()
        self._start_api_server()
        self._import_pause()
        self.wait("the API server to be ready", lambda: self.get("/readyz") == "ok", seconds=90)
        self._say("API server ready")
        self._start_controllers()
        self._start_kubelet()
        self.wait("the node to be Ready", self._is_ready, seconds=90)
        self._say("node Ready")

    def _start_etcd(self) -> None:
        client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"  # this namespace's loopback
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
            "--kubelet-preferred-address-types=InternalIP",  # or exec and logs try to resolve the node's name
        )

    def _start_controllers(self) -> None:
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={self._kubeconfigs['kube-controller-manager']}",
            f"--service-account-private-key-file={self._token_key}",
            f"--root-ca-file={self._ca.certificate}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        )
        self._start(
            "kube-scheduler",
            f"--kubeconfig={self._kubeconfigs['kube-scheduler']}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        )

    def _start_containerd(self) -> None:
        plugins = self.directory / "cni"
        plugins.mkdir()
        (plugins / "10-bridge.conflist").write_text(
            json.dumps(
                {
                    "cniVersion": "0.4.0",
                    "name": "pods",
                    "plugins": [
                        {
                            "type": "bridge",
                            "bridge": "pods0",
                            "isGateway": True,
                            "ipMasq": False,
                            "hairpinMode": True,
                            "ipam": {
                                "type": "host-local",
                                "ranges": [[{"subnet": str(self.network.pods)}]],
                                "routes": [{"dst": "0.0.0.0/0"}],
                            },
                        },
                        {"type": "portmap", "capabilities": {"portMappings": True}},
                    ],
                }
            )
        )
        config = self.directory / "containerd.toml"
        # No CAP_SYS_RESOURCE: nothing may lower its oom_score_adj. cgroupfs: there is no systemd.
        config.write_text(
            f"""
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{self._containerd_socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{plugins}"
"""
        )
        self._supervisor.start("containerd", "containerd", "--config", str(config))

    @property
    def _containerd_socket(self) -> Path:
        return self.directory / "containerd.sock"

    def _import_pause(self) -> None:
        self.wait("containerd to listen", self._containerd_socket.exists, seconds=30)
        with (self.logs / "import-pause.log").open("wb") as log:
            try:
                import_into(self._containerd_socket, [pause_image(self._binaries["pause"])], log=log)
            except (OSError, subprocess.SubprocessError) as error:
                raise NodeError(f"containerd did not take the image {PAUSE}: {error}") from error

    def _start_kubelet(self) -> None:
        resolv = self.directory / "resolv.conf"
        resolv.write_text("nameserver 127.0.0.1\n")  # no DNS in this tier
        config = self.directory / "kubelet.json"
        config.write_text(
            json.dumps(
                {
                    "apiVersion": "kubelet.config.k8s.io/v1beta1",
                    "kind": "KubeletConfiguration",
                    "authentication": {
                        "anonymous": {"enabled": False},
                        "webhook": {"enabled": True},
                        "x509": {"clientCAFile": str(self._ca.certificate)},
                    },
                    "authorization": {"mode": "Webhook"},
                    "tlsCertFile": str(self._kubelet_pair.certificate),
                    "tlsPrivateKeyFile": str(self._kubelet_pair.key),
                    "containerRuntimeEndpoint": f"unix://{self._containerd_socket}",
                    "clusterDomain": "cluster.local",
                    "resolvConf": str(resolv),
                    "cgroupDriver": "cgroupfs",
                    "cgroupRoot": f"/{self.directory.name}",
                    "enforceNodeAllocatable": [],
                    "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
                    "failCgroupV1": False,
                    "failSwapOn": False,
                    "featureGates": {"KubeletInUserNamespace": True},  # carry on where a kernel setting is refused
                    "imageGCHighThresholdPercent": 100,
                    "localStorageCapacityIsolation": False,
                    "maxPods": 60,
                    "serializeImagePulls": False,
                    "syncFrequency": "5s",  # how soon a changed ConfigMap reaches a running pod
                }
            )
        )
        self._start(
            "kubelet",
            f"--config={config}",
            f"--kubeconfig={self._kubeconfigs['kubelet']}",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={self.network.node_address}",
        )

    def _is_ready(self) -> bool:
        node = json.loads(self.get(f"/api/v1/nodes/{NODE_NAME}"))
        ready = [c for c in node["status"].get("conditions", []) if c["type"] == "Ready"]
        return bool(ready) and ready[0]["status"] == "True" and not node["spec"].get("taints")

    # --- use

    def get(self, path: str) -> str:
        """GET from the API server as the administrator. Raises OSError when that fails."""
        with urllib.request.urlopen(self.server + path, context=self._tls, timeout=10) as answer:
            content: bytes = answer.read()
            return content.decode()

    def wait(self, what: str, is_so: Callable[[], bool], *, seconds: float) -> None:
        """Ask until `is_so`. Raises NodeError after `seconds`, and at once when a component has ended."""
        deadline = time.monotonic() + seconds
        reason = ""
        while True:
            if ended := self._supervisor.ended():
                raise NodeError(f"waiting for {what}: a component ended: {ended}")
            try:
                if is_so():
                    return
            except (OSError, subprocess.CalledProcessError) as error:
                reason = f": {error}"
            if time.monotonic() > deadline:
                raise NodeError(f"waited {seconds:.0f} s for {what}{reason}")
            time.sleep(0.1)

    def kubectl(self, *arguments: str, stdin: str | None = None, seconds: float = 60) -> str:
        """Run kubectl as the administrator. Raises NodeError with what it said when it fails."""
        done = self.kubectl_result(*arguments, stdin=stdin, seconds=seconds)
        if done.returncode:
            raise NodeError(f"kubectl {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def kubectl_result(
        self, *arguments: str, stdin: str | None = None, seconds: float = 60
    ) -> "subprocess.CompletedProcess[str]":
        """Like `kubectl`, for those who expect a refusal."""
        command = [str(self._binaries["kubectl"]), f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(command, input=stdin or "", capture_output=True, text=True, timeout=seconds)

    def apply(self, manifests: Sequence[Manifest]) -> None:
        """Create or change the objects. Namespaces get their default service account first, as pods need it."""
        for manifest in manifests:
            self.kubectl("apply", "--filename=-", stdin=json.dumps(manifest))
            if manifest["kind"] == "Namespace":
                account = f"/api/v1/namespaces/{manifest['metadata']['name']}/serviceaccounts/default"
                self.wait("the default service account", partial(self._is_there, account), seconds=30)

    def _is_there(self, path: str) -> bool:
        return bool(self.get(path))

    def pod(self, namespace: str, name: str) -> Manifest:
        manifest: Manifest = json.loads(self.get(f"/api/v1/namespaces/{namespace}/pods/{name}"))
        return manifest

    def wait_pod_ready(self, namespace: str, name: str, *, seconds: float = 60) -> Manifest:
        """Wait until the pod is Ready. Raises NodeError with its events and its containers' output when it is not."""

        def is_ready() -> bool:
            conditions = self.pod(namespace, name).get("status", {}).get("conditions", [])
            return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

        try:
            self.wait(f"pod {namespace}/{name} to be Ready", is_ready, seconds=seconds)
        except NodeError as error:
            raise NodeError(f"{error}\n{self.describe_pod(namespace, name)}") from error
        return self.pod(namespace, name)

    def describe_pod(self, namespace: str, name: str) -> str:
        described = self.kubectl_result("describe", "pod", "--namespace", namespace, name).stdout
        logs = self.kubectl_result("logs", "--namespace", namespace, name, "--all-containers", "--prefix", "--tail=40")
        return f"{described}\n{logs.stdout}{logs.stderr}"

    def kill_container(self, container_id: str) -> None:
        """kill -9 the first process of a container, named as in a pod's status (`containerd://...`).

        From outside, since the first process of a namespace is deaf to what comes from within.
        """
        ctr = as_root("ctr", "-a", str(self._containerd_socket), "-n", "k8s.io")
        task = container_id.removeprefix("containerd://")
        subprocess.run([*ctr, "task", "kill", "--signal", "SIGKILL", task], check=True, timeout=30)

    def signal(self, component: str, number: int) -> None:
        """Send a signal to a component, such as the kubelet."""
        self._supervisor.signal(component, number)


def last_words(logs: Path, *, lines: int = 25) -> str:
    """The end of every component's log."""
    parts = []
    for log in sorted(logs.glob("*.log")):
        text = log.read_text(errors="replace").splitlines()
        parts.append("\n".join([f"--- {log.name} ({len(text)} lines)", *text[-lines:]]))
    return "\n".join(parts)
