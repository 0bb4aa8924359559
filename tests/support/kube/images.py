"""The sandbox's images, built by the project's own Dockerfile without a registry and without a daemon.

A Debian made by mmdebstrap stands in under the name that the Dockerfile starts from. Layers and the finished images are
kept outside the tree; what has not changed is not built again.
"""

import fcntl
import hashlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from support.kube.binaries import cache_directory
from support.kube.errors import UnavailableError
from support.kube.privileges import as_root
from support.kube.progress import Progress

SANDBOX = Path(__file__).resolve().parents[3] / "sandbox"
BASE = "docker.io/library/debian:bookworm-slim"
PAUSE = "localhost/moorage-pause:test"
TARGETS = ("gate", "vnc", "box")
BUILD_TIMEOUT_SECONDS = 1800
PRIVATE_MOUNTS = ("unshare", "--mount", "--propagation", "private")
"""A build that is killed leaves no mount behind."""

LEFT_OUT = ("usr/share/man/*", "usr/share/info/*", "usr/share/locale/*", "usr/share/doc/*")
"""As in the image that this stands in for."""


def image_name(target: str) -> str:
    return f"localhost/moorage-{target}:test"


def layout_directory() -> Path:
    """An OCI image layout with the finished images."""
    return cache_directory() / "images" / "layout"


def sources_digest() -> str:
    """Changes with anything that goes into an image."""
    digest = hashlib.sha256()
    files = [p for p in (SANDBOX / "moorage_sandbox").rglob("*") if p.is_file() and p.suffix != ".pyc"]
    top = [SANDBOX / name for name in ("images/Dockerfile", ".dockerignore", "software.txt", "requirements.lock")]
    for source in sorted([*files, *top]):
        digest.update(f"{source.relative_to(SANDBOX)}\0{source.stat().st_mode:o}\0".encode() + source.read_bytes())
    return digest.hexdigest()


class Store:
    """Buildah's store, in the cache."""

    def __init__(self, directory: Path, *, run_directory: str) -> None:
        self._options = ["--root", str(directory), "--runroot", run_directory, "--storage-driver", "overlay"]

    def buildah(self, *arguments: str, log: IO[bytes]) -> str:
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
def locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def prepared_images(*, say: Progress) -> Path:
    """Build what has changed of gate, vnc and box. Returns the layout that holds them."""
    directory = cache_directory() / "images"
    with locked(directory / "lock"):
        built, layout = directory / "built", layout_directory()
        digest = sources_digest()
        if built.exists() and built.read_text() == digest:
            return layout
        built.unlink(missing_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix="moorage-buildah-") as run_directory,
            (directory / "build.log").open("wb") as log,
        ):
            store = Store(directory / "storage", run_directory=run_directory)
            try:
                store.buildah("rm", "--all", log=log)
                if not store.buildah("images", "--quiet", "--filter", f"reference={BASE}", log=log):
                    import_base(store, say=say, log=log)
                for target in TARGETS:
                    say(f"building the image {target}")
                    build(store, target, log=log)
                    store.buildah(
                        "push", "--disable-compression", "--format", "oci",
                        image_name(target), f"oci:{layout}:{image_name(target)}",
                        log=log,
                    )  # fmt: skip
            finally:
                leftover = [str(path) for path in Path(run_directory).iterdir()]
                subprocess.run(as_root("rm", "-rf", "--one-file-system", "--", *leftover), check=False)
        drop_unused_blobs(layout)
        built.write_text(digest)
        return layout


def import_base(store: Store, *, say: Progress, log: IO[bytes]) -> None:
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
        container = store.buildah("from", "scratch", log=log)
        store.buildah("add", container, str(tar), "/", log=log)
        store.buildah("config", "--cmd", "bash", container, log=log)
        store.buildah("commit", "--rm", container, BASE, log=log)


def build(store: Store, target: str, *, log: IO[bytes]) -> None:
    """Build one target. Pip gets the host's index and CA bundle by build arguments, of which nothing stays."""
    arguments = ["--isolation", "chroot", "--network", "host", "--layers", "--pull-never"]
    bundle = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    if bundle and Path(bundle).exists():
        arguments += ["--volume", f"{Path(bundle).resolve()}:/run/ca.crt:ro", "--build-arg", "PIP_CERT=/run/ca.crt"]
    if index := os.environ.get("PIP_INDEX_URL"):
        arguments += ["--build-arg", f"PIP_INDEX_URL={index}"]
    store.buildah(
        "bud", *arguments, "--target", target, "--tag", image_name(target),
        "--file", str(SANDBOX / "images" / "Dockerfile"), str(SANDBOX),
        log=log,
    )  # fmt: skip


# --- OCI layout

REFERENCE = "org.opencontainers.image.ref.name"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def read_blob(layout: Path, digest: str) -> Any:
    return json.loads((layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes())


def images_in(layout: Path) -> list[dict[str, Any]]:
    """The index's descriptors, each with its name."""
    manifests: list[dict[str, Any]] = json.loads((layout / "index.json").read_bytes())["manifests"]
    return manifests


def blobs_of(layout: Path, descriptor: dict[str, Any]) -> list[str]:
    manifest = read_blob(layout, descriptor["digest"])
    return [descriptor["digest"], manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]


def drop_unused_blobs(layout: Path) -> None:
    used = {digest.removeprefix("sha256:") for image in images_in(layout) for digest in blobs_of(layout, image)}
    unused = [str(blob) for blob in (layout / "blobs" / "sha256").iterdir() if blob.name not in used]
    if unused:
        subprocess.run(as_root("rm", "--", *unused), check=True)


def write_archive(layout: Path | None, *, pause: Path, target: IO[bytes]) -> None:
    """Stream the images, and one around the program `pause`, as `ctr images import` reads them."""
    small, pause_descriptor = pause_image(pause)
    descriptors = [
        {
            **image,
            "annotations": {"io.containerd.image.name": image["annotations"]["org.opencontainers.image.ref.name"]},
        }
        for image in (images_in(layout) if layout else [])
    ]
    index = {"schemaVersion": 2, "manifests": [*descriptors, pause_descriptor]}
    with tarfile.open(fileobj=target, mode="w|") as tar:
        add_bytes(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        add_bytes(tar, "index.json", json.dumps(index).encode())
        for content in small:
            add_bytes(tar, f"blobs/sha256/{hashlib.sha256(content).hexdigest()}", content)
        if layout:
            for digest in sorted({digest for image in descriptors for digest in blobs_of(layout, image)}):
                name = f"blobs/sha256/{digest.removeprefix('sha256:')}"
                tar.add(layout / name, arcname=name)


def add_bytes(tar: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))


def pause_image(program: Path) -> tuple[list[bytes], dict[str, Any]]:
    """An image that holds one static program. Returns its blobs and its descriptor."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        add_bytes(tar, "pause", program.read_bytes(), mode=0o755)

    def described(content: bytes, kind: str) -> dict[str, Any]:
        media_type = f"application/vnd.oci.image.{kind}"
        return {
            "mediaType": media_type,
            "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
            "size": len(content),
        }

    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer.getvalue())]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described(config, "config.v1+json"),
            "layers": [described(layer.getvalue(), "layer.v1.tar")],
        }
    ).encode()
    descriptor = described(manifest, "manifest.v1+json")
    return [layer.getvalue(), config, manifest], {**descriptor, "annotations": {"io.containerd.image.name": PAUSE}}
