"""A node on which charts can be installed: DNS, Services, volumes, all our images, and an ingress proxy.

kube-proxy and kube-router, which enforces NetworkPolicies, are processes of the node. Volumes are directories of the
node that the test creates, because there is no provisioner.
"""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from moorage_kube.client import Manifest
from support.helm import Helm
from support.kube.control_plane import SERVICES
from support.kube.images import ImageSet, PlatformImages, SandboxImages, ServerImages
from support.kube.node import Node
from support.kube.progress import Progress
from support.kube.tools import go_program, helm

DNS = Path(__file__).resolve().parents[2] / "cluster" / "dns.yaml"
STORAGE_CLASS = "directories"
EDGE_PORT = 8088
ANNOTATION = "nginx.ingress.kubernetes.io/"


class Cluster(Node):
    """Use `Cluster.boot()` to create one."""

    @classmethod
    @contextmanager
    def boot(
        cls,
        *,
        images: Sequence[ImageSet] = (SandboxImages(), PlatformImages(), ServerImages()),
        say: Progress | None = None,
    ) -> Iterator["Cluster"]:
        """Raises UnavailableError and NodeError as `Node.boot` does."""
        with super().boot(images=images, say=say) as booted:
            assert isinstance(booted, Cluster)
            yield booted

    def _boot(self) -> None:
        self.cluster_dns = [str(SERVICES[10])]
        super()._boot()
        self._start_proxy()
        self._start_firewall()
        self._start_dns()

    @property
    def helm(self) -> Helm:
        return Helm(helm(4), self.kubeconfig)

    @property
    def edge(self) -> str:
        """The URL of the ingress proxy."""
        return f"http://{self.network.node_address}:{EDGE_PORT}"

    def _start_dns(self) -> None:
        self.apply(list(yaml.safe_load_all(DNS.read_text())))
        self.wait_pod_ready("kube-system", "coredns")

    def _start_proxy(self) -> None:
        # Packets from the node to a Service need a route before the rules of kube-proxy apply to them.
        to_services = f"ip route add {SERVICES} dev node0"
        self._supervisor.start(
            "kube-proxy",
            *("sh", "-ec", f'{to_services}; exec "$@"', "sh", str(self._binaries["kube-proxy"])),
            f"--kubeconfig={self.kubeconfig}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={self.network.pods}",
            "--hostname-override=node",
            "--conntrack-max-per-core=0",  # 0 leaves the kernel's settings alone
            "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s",
        )

    def _start_firewall(self) -> None:
        """Start kube-router, which enforces NetworkPolicies. The bridge must be set to pass its packets to iptables."""
        bridged = "echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables"
        self._supervisor.start(
            "kube-router",
            *("sh", "-ec", f'{bridged}; exec "$@"', "sh", str(go_program("kube-router"))),
            f"--kubeconfig={self.kubeconfig}",
            "--run-firewall=true",
            "--run-router=false",
            "--run-service-proxy=false",
            "--run-loadbalancer=false",
            "--hostname-override=node",
            f"--service-cluster-ip-range={SERVICES}",
            environment={"NODE_NAME": "node"},
        )

    def make_volume(self, claim: str, *, namespace: str, uid: int) -> None:
        """Create a volume from a directory of the node. hostPath ignores fsGroup, so the directory gets the uid."""
        place = self.directory / "volumes" / claim
        place.mkdir(parents=True)
        place.chmod(0o777)
        self.apply(
            [
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolume",
                    "metadata": {"name": claim},
                    "spec": {
                        "capacity": {"storage": "100Gi"},
                        "accessModes": ["ReadWriteOnce"],
                        "persistentVolumeReclaimPolicy": "Retain",
                        "storageClassName": STORAGE_CLASS,
                        "hostPath": {"path": str(place)},
                        "claimRef": {"namespace": namespace, "name": claim},
                    },
                }
            ]
        )
        subprocess.run(["chown", f"{uid}:{uid}", str(place)], check=True)

    def start_edge(self, *, namespace: str, ingress: str) -> None:
        """Start nginx, configured from the Ingress and its annotations as an ingress controller would do it."""
        manifest: Manifest = json.loads(
            self.kubectl("get", "ingress", ingress, "--namespace", namespace, "--output=json")
        )
        (path,) = manifest["spec"]["rules"][0]["http"]["paths"]
        service = json.loads(
            self.kubectl("get", "service", path["backend"]["service"]["name"], "--namespace", namespace, "-o=json")
        )
        (port,) = [
            p["port"] for p in service["spec"]["ports"] if p["name"] == path["backend"]["service"]["port"]["name"]
        ]
        place = self.directory / "nginx"
        place.mkdir()
        config = place / "nginx.conf"
        config.write_text(
            nginx_config(
                listen=f"{self.network.node_address}:{EDGE_PORT}",
                upstream=f"{service['spec']['clusterIP']}:{port}",
                annotations=manifest["metadata"].get("annotations", {}),
                place=place,
            )
        )
        self._supervisor.start("nginx", "nginx", "-e", "stderr", "-c", str(config))

    def describe(self, namespace: str) -> str:
        """Pods, events and logs of a namespace, for an error message."""
        events = self.kubectl_result("get", "events", "--namespace", namespace, "--sort-by=.lastTimestamp").stdout
        pods = json.loads(self.kubectl("get", "pods", "--namespace", namespace, "--output=json"))["items"]
        return "\n".join([events, *(self.describe_pod(namespace, pod["metadata"]["name"]) for pod in pods)])


def nginx_config(*, listen: str, upstream: str, annotations: dict[str, Any], place: Path) -> str:
    """The nginx configuration that ingress-nginx would write for these annotations."""
    values = {name.removeprefix(ANNOTATION): v for name, v in annotations.items() if name.startswith(ANNOTATION)}
    directives = {
        "proxy-buffering": "proxy_buffering {};",
        "proxy-request-buffering": "proxy_request_buffering {};",
        "proxy-http-version": "proxy_http_version {};",
        "proxy-read-timeout": "proxy_read_timeout {}s;",
        "proxy-send-timeout": "proxy_send_timeout {}s;",
        "proxy-body-size": "client_max_body_size {};",
    }
    lines = "\n".join(directives[name].format(value) for name, value in values.items())
    return f"""
daemon off;
user root;
pid {place}/pid;
events {{}}
http {{
    access_log {place}/access.log;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        '' '';
    }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://{upstream};
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
{lines}
        }}
    }}
}}
"""
