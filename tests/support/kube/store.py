"""The unpacked images: a directory of containerd from which a node starts.

Unpacking two gigabytes would take most of the time of a boot. So it happens only when an image has changed, and a node
links to the result: nodes only read the layers, and each node writes into its own directory.
"""

import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from support.kube.archives import Image, import_into
from support.kube.errors import UnavailableError
from support.kube.privileges import as_root
from support.waiting import HANG_SECONDS

PRIVATE_MOUNTS = ("unshare", "--mount", "--propagation", "private")
"""The kernel removes these mounts when the process ends, however it ends."""


HOLD = 'containerd --config "$1" <&- & read -r _; kill $!; wait $!'
"""Runs until our end of its input is closed, which also happens when we are killed."""

LINK = """
content=io.containerd.content.v1.content
metadata=io.containerd.metadata.v1.bolt
layers=io.containerd.snapshotter.v1.overlayfs
mkdir -p "$2/$content/blobs/sha256" "$2/$metadata" "$2/$layers/snapshots"
cp "$1/$metadata/meta.db" "$2/$metadata/"
cp "$1/$layers/metadata.db" "$2/$layers/"
ln -s "$1/$layers/snapshots"/* "$2/$layers/snapshots/"
ln -s "$1/$content/blobs/sha256"/* "$2/$content/blobs/sha256/"
"""


def unpack(images: Sequence[Image], *, store: Path, log: IO[bytes]) -> None:
    """Import these images into the store; existing layers are used again. Raises UnavailableError."""
    with containerd(store, log=log) as socket:
        try:
            import_into(socket, images, log=log)
        except (OSError, subprocess.SubprocessError) as error:
            raise UnavailableError(f"containerd did not take the images: {error}") from error


@contextmanager
def containerd(root: Path, *, log: IO[bytes]) -> Iterator[Path]:
    """Run containerd on `root` during the block. Yields its socket."""
    with tempfile.TemporaryDirectory(prefix="moorage-store-") as place:
        socket, config = Path(place, "containerd.sock"), Path(place, "containerd.toml")
        config.write_text(
            f"""
version = 2
root = "{root}"
state = "{place}/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.grpc.v1.cri"]
[grpc]
  address = "{socket}"
"""
        )
        command = as_root(*PRIVATE_MOUNTS, "nice", "-n", "10", "sh", "-c", HOLD, "sh", str(config))
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)
        assert process.stdin
        try:
            deadline = time.monotonic() + HANG_SECONDS
            while not socket.exists():
                if time.monotonic() > deadline:
                    raise UnavailableError(f"containerd did not start in {HANG_SECONDS} s: {log.name}")
                time.sleep(0.05)
            yield socket
        finally:
            process.stdin.close()
            process.wait(timeout=HANG_SECONDS)
            subprocess.run(as_root("rm", "-rf", "--one-file-system", f"{place}/state"), check=False)


def link(store: Path, *, own: Path) -> None:
    """Create the directory `own` for a containerd that has the images of the store."""
    subprocess.run(as_root("sh", "-euc", LINK, "sh", str(store), str(own)), check=True)
