"""Container images in the form that containerd imports: an OCI layout in a tar stream."""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from support.kube.privileges import as_root

IMPORT_TIMEOUT_SECONDS = 600
PAUSE = "localhost/moorage-pause:test"


@dataclass(frozen=True)
class Image:
    """A manifest and all blobs that it refers to, by digest."""

    name: str
    manifest: bytes
    blobs: Mapping[str, bytes | Path]


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def describe_blob(content: bytes, kind: str) -> dict[str, Any]:
    media_type = f"application/vnd.oci.image.{kind}"
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def saved_image(name: str, directory: Path) -> Image:
    """Read an image that buildah pushed to `dir:`."""
    content = (directory / "manifest.json").read_bytes()
    manifest = json.loads(content)
    digests = [blob["digest"] for blob in (manifest["config"], *manifest["layers"])]
    return Image(name, content, {digest: directory / digest.removeprefix("sha256:") for digest in digests})


def pause_image(program: Path) -> Image:
    """Build the image with one static program, which is the first process of every pod."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        add(tar, "pause", program.read_bytes(), mode=0o755)
    layer = packed.getvalue()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe_blob(config, "config.v1+json"),
            "layers": [describe_blob(layer, "layer.v1.tar")],
        }
    ).encode()
    return Image(PAUSE, manifest, {digest_of(config): config, digest_of(layer): layer})


def import_into(socket: Path, images: Sequence[Image], *, log: IO[bytes]) -> None:
    """Import the images into the containerd at `socket`. Raises OSError or SubprocessError."""
    command = as_root("ctr", "-a", str(socket), "-n", "k8s.io", "images", "import", "-")
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
    assert process.stdin
    with suppress(BrokenPipeError), process.stdin:
        write_layout(images, process.stdin)
    if status := process.wait(timeout=IMPORT_TIMEOUT_SECONDS):
        raise subprocess.CalledProcessError(status, command)


def write_layout(images: Sequence[Image], target: IO[bytes]) -> None:
    entries = [
        {**describe_blob(image.manifest, "manifest.v1+json"), "annotations": {"io.containerd.image.name": image.name}}
        for image in images
    ]
    blobs: dict[str, bytes | Path] = {digest_of(image.manifest): image.manifest for image in images}
    for image in images:
        blobs.update(image.blobs)
    with tarfile.open(fileobj=target, mode="w|", bufsize=1024 * 1024) as tar:
        add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": entries}).encode())
        for digest, blob in blobs.items():
            path = f"blobs/sha256/{digest.removeprefix('sha256:')}"
            if isinstance(blob, Path):
                tar.add(blob, arcname=path)
            else:
                add(tar, path, blob)


def add(tar: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))
