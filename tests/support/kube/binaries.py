"""The programs of Kubernetes. They are built once from Go modules, or taken from KUBEBUILDER_ASSETS.

All components are one program (`tests/cluster/kube/main.go`) with a link for each name. The first build takes about ten
minutes on two cores. The cache keeps it under a digest of its sources, so later runs use it again.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from support import toolchains
from support.kube.errors import UnavailableError
from support.kube.progress import Progress

COMPONENTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubectl",
    "kubelet",
)
MODULE = Path(__file__).resolve().parents[2] / "cluster" / "kube"
BUILD_TIMEOUT_SECONDS = 60 * 60


def cache_directory() -> Path:
    return Path(os.environ.get("MOORAGE_CACHE_DIR") or Path.home() / ".cache" / "moorage")


def kubernetes_version() -> str:
    """The version in go.mod, for example "v1.36.3"."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)$", (MODULE / "go.mod").read_text(), re.MULTILINE)
    assert found, "go.mod must require k8s.io/kubernetes"
    return found[1]


def build_directory() -> Path:
    digest = hashlib.sha256()
    for source in sorted(p for p in MODULE.rglob("*") if p.suffix in {".go", ".mod", ".sum"}):
        digest.update(f"{source.relative_to(MODULE)}\0".encode() + source.read_bytes())
    return cache_directory() / "kube" / f"{kubernetes_version()}-{digest.hexdigest()[:12]}"


def prepared_binaries(*, say: Progress, build: bool = True) -> dict[str, Path]:
    """The paths of all components and of `pause`. Builds them if they do not exist.

    Raises UnavailableError without Go or without the modules.
    """
    directory = build_directory()
    if not (directory / "complete").exists():
        if not build:
            raise UnavailableError("Kubernetes has not been built yet: make test-pod builds it")
        directory.parent.mkdir(parents=True, exist_ok=True)
        with (directory.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another test process may be building them
            if not (directory / "complete").exists():
                build_into(directory, say=say)
    binaries = {name: directory / name for name in (*COMPONENTS, "pause")}
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        given = {name: Path(assets, name) for name in COMPONENTS if Path(assets, name).exists()}
        say(f"from KUBEBUILDER_ASSETS: {', '.join(given) or 'nothing'}")
        binaries |= given
    return binaries


def build_into(directory: Path, *, say: Progress) -> None:
    toolchains.put_on_path()
    if shutil.which("go") is None:
        raise UnavailableError("Go is not installed: it builds Kubernetes for the node tests")
    version = kubernetes_version()
    say(f"building Kubernetes {version} and etcd: about ten minutes on two cores, once")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix="building-") as place:
        go_build(Path(place, "kube"), package=".", stamps=version_stamps(version))
        go_build(Path(place, "pause"), package="./pause", stamps={})
        for name in COMPONENTS:
            Path(place, name).symlink_to("kube")
        Path(place, "complete").touch()
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(place, directory, symlinks=True)
    say(f"built {directory}")


def version_stamps(version: str) -> dict[str, str]:
    """Linker variables with the version. Without them kubectl cannot parse the version of the server."""
    major, minor, _ = version.removeprefix("v").split(".", 2)
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return {f"{package}.{name}": value for package in packages for name, value in values.items()}


def go_build(target: Path, *, package: str, stamps: dict[str, str]) -> None:
    flags = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in stamps.items())])
    command = ["go", "build", "-mod=readonly", "-trimpath", "-ldflags", flags, "-o", str(target), package]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false"}
    try:
        subprocess.run(
            ["nice", "-n", "10", *command],
            cwd=MODULE,
            env=environment,
            check=True,
            timeout=BUILD_TIMEOUT_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.CalledProcessError as error:
        raise UnavailableError(f"Kubernetes could not be built: {' '.join(command[:2])} {package} failed") from error
