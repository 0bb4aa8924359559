"""A real Kubernetes with one node for tests. One `with` boots it, and nothing remains after its end.

    with Node.boot() as node:
        node.apply([manifest])

It is a control plane (`control_plane`) with a scheduler, containerd and a kubelet. The test can connect to the
addresses of the pods.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from moorage_kube.client import Manifest
from support.kube.archives import PAUSE, import_into, pause_image
from support.kube.binaries import prepared_binaries
from support.kube.control_plane import NODE_NAME, PREFIX, ControlPlane, last_log_lines
from support.kube.errors import NodeError
from support.kube.images import ImageSet, SandboxImages, prepared_images
from support.kube.privileges import as_root, install_packages
from support.kube.progress import Progress, Stopwatch
from support.kube.store import link
from support.waiting import HANG_SECONDS

__all__ = ["Manifest", "Node", "last_log_lines"]


class Node(ControlPlane):
    """A booted node. Use `Node.boot()` to create one."""

    cluster_dns: Sequence[str] = ()
    """Addresses of name servers for pods."""

    @classmethod
    @contextmanager
    def boot(cls, *, images: Sequence[ImageSet] = (SandboxImages(),), say: Progress | None = None) -> Iterator["Node"]:
        """Boot a node with these images and wait until it is Ready.

        Raises UnavailableError if this machine cannot run one, and NodeError with the end of every log if it fails.
        """
        say = say or Stopwatch()
        install_packages(say=say)
        binaries = prepared_binaries(say=say)
        with prepared_images(sets=images, say=say) if images else nullcontext() as store:
            directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
            try:
                if store:
                    link(store, own=directory / "var-lib" / "containerd")
                with cls._in(directory, binaries, say) as node:
                    yield node
            finally:
                shutil.rmtree(directory, ignore_errors=True)

    def _boot(self) -> None:
        self._start_etcd()
        self._start_containerd()
        self._start_api_server()
        self._import_pause()
        self._await_api_server()
        self.start_controller_manager()
        self._start_scheduler()
        self._start_kubelet()
        self.wait("the node to be Ready", self._is_ready, seconds=HANG_SECONDS)
        self._say("node Ready")

    def _start_scheduler(self) -> None:
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
        # Without CAP_SYS_RESOURCE nothing can lower an oom_score_adj. cgroupfs, because there is no systemd.
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
        self.wait("containerd to listen", self._containerd_socket.exists, seconds=HANG_SECONDS)
        with (self.logs / "import-pause.log").open("wb") as log:
            try:
                import_into(self._containerd_socket, [pause_image(self._binaries["pause"])], log=log)
            except (OSError, subprocess.SubprocessError) as error:
                raise NodeError(f"containerd did not take the image {PAUSE}: {error}") from error

    def _start_kubelet(self) -> None:
        resolv = self.directory / "resolv.conf"
        resolv.write_text("nameserver 127.0.0.1\n")  # names outside the cluster do not resolve
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
                    "clusterDNS": list(self.cluster_dns),
                    "clusterDomain": "cluster.local",
                    "resolvConf": str(resolv),
                    "cgroupDriver": "cgroupfs",
                    "cgroupRoot": f"/{self.directory.name}",
                    "enforceNodeAllocatable": [],
                    "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
                    "failCgroupV1": False,
                    "failSwapOn": False,
                    "featureGates": {"KubeletInUserNamespace": True},  # ignore kernel settings that are refused
                    "imageGCHighThresholdPercent": 100,
                    "localStorageCapacityIsolation": False,
                    "maxPods": 60,
                    "serializeImagePulls": False,
                    "syncFrequency": "5s",  # after this time a changed ConfigMap reaches a running pod
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

    def pod(self, namespace: str, name: str) -> Manifest:
        manifest: Manifest = json.loads(self.get(f"/api/v1/namespaces/{namespace}/pods/{name}"))
        return manifest

    def wait_pod_ready(self, namespace: str, name: str, *, seconds: float = 60) -> Manifest:
        """Wait until the pod is Ready. Raises NodeError with its events and the output of its containers."""

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
        """Send SIGKILL to the first process of a container; the id is that of a pod's status (`containerd://...`).

        It comes from outside, because the first process of a namespace ignores SIGKILL from within.
        """
        ctr = as_root("ctr", "-a", str(self._containerd_socket), "-n", "k8s.io")
        task = container_id.removeprefix("containerd://")
        subprocess.run([*ctr, "task", "kill", "--signal", "SIGKILL", task], check=True, timeout=30)

    def signal(self, component: str, number: int) -> None:
        """Send a signal to a component, such as the kubelet."""
        self._supervisor.signal(component, number)
