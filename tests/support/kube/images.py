"""The sandbox's images, built by the project's own Dockerfile without a registry and without a daemon.

A Debian made by mmdebstrap stands in under the name that the Dockerfile starts from. Layers and the finished images are
kept outside the tree; what has not changed is not built again.
"""

import fcntl
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from support.kube.archives import saved_image
from support.kube.binaries import cache_directory
from support.kube.errors import UnavailableError
from support.kube.privileges import as_root
from support.kube.progress import Progress
from support.kube.store import PRIVATE_MOUNTS, unpack

SANDBOX = Path(__file__).resolve().parents[3] / "sandbox"
BASE = "docker.io/library/debian:bookworm-slim"
TARGETS = ("gate", "vnc", "box")
BUILD_TIMEOUT_SECONDS = 1800

LEFT_OUT = ("usr/share/man/*", "usr/share/info/*", "usr/share/locale/*", "usr/share/doc/*")
"""As in the image that this stands in for."""


def image_name(target: str) -> str:
    return f"localhost/moorage-{target}:test"


def sources_digest() -> str:
    """Changes with anything that goes into an image, which the sandbox host does not (.dockerignore)."""
    digest = hashlib.sha256()
    code = SANDBOX / "moorage_sandbox"
    files = [p for p in code.rglob("*") if p.is_file() and p.suffix != ".pyc" and code / "host" not in p.parents]
    top = [SANDBOX / name for name in ("images/Dockerfile", ".dockerignore", "software.txt", "requirements.lock")]
    for source in sorted([*files, *top]):
        digest.update(f"{source.relative_to(SANDBOX)}\0{source.stat().st_mode:o}\0".encode() + source.read_bytes())
    return digest.hexdigest()


class Buildah:
    """Buildah with a storage of its own, in the cache."""

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
def prepared_images(*, say: Progress) -> Iterator[Path]:
    """Build what has changed of gate, vnc and box. Yields the containerd directory that holds them (`store`).

    Until the end nobody changes it: builders wait for those who use it.
    """
    directory = cache_directory() / "images"
    directory.mkdir(parents=True, exist_ok=True)
    built, store = directory / "built", directory / "containerd"
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if not is_current(built):
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not is_current(built):
                digest = sources_digest()
                built.unlink(missing_ok=True)
                build_images(directory, store=store, say=say)
                built.write_text(digest)
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield store


def is_current(built: Path) -> bool:
    return built.exists() and built.read_text() == sources_digest()


def build_images(directory: Path, *, store: Path, say: Progress) -> None:
    # Two gigabytes. Always the same place, so that a build finds what one that was killed has left.
    saved = directory / "saved"
    saved.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="moorage-buildah-") as run_directory,
        (directory / "build.log").open("wb") as log,
    ):
        buildah = Buildah(directory / "storage", run_directory=run_directory)
        try:
            buildah("rm", "--all", log=log)
            if not buildah("images", "--quiet", "--filter", f"reference={BASE}", log=log):
                import_base(buildah, say=say, log=log)
            for target in TARGETS:
                say(f"building the image {target}")
                build(buildah, target, log=log)
                # Uncompressed: packing and unpacking would take longer than everything else.
                push = ("push", "--disable-compression", "--format", "oci")
                buildah(*push, image_name(target), f"dir:{saved / target}", log=log)
            say("unpacking the images")
            unpack([saved_image(image_name(name), saved / name) for name in TARGETS], store=store, log=log)
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


def build(buildah: Buildah, target: str, *, log: IO[bytes]) -> None:
    """Build one target. Pip gets the host's index and CA bundle by build arguments, of which nothing stays."""
    arguments = ["--isolation", "chroot", "--network", "host", "--layers", "--pull-never"]
    bundle = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    if bundle and Path(bundle).exists():
        arguments += ["--volume", f"{Path(bundle).resolve()}:/run/ca.crt:ro", "--build-arg", "PIP_CERT=/run/ca.crt"]
    if index := os.environ.get("PIP_INDEX_URL"):
        arguments += ["--build-arg", f"PIP_INDEX_URL={index}"]
    buildah(
        "bud", *arguments, "--target", target, "--tag", image_name(target),
        "--file", str(SANDBOX / "images" / "Dockerfile"), str(SANDBOX),
        log=log,
    )  # fmt: skip
