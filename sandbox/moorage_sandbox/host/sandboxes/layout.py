"""The directories of the host: stored files in the data directory, and a runtime directory with a short path.

The path of a Unix socket may have at most 107 bytes, and other users cannot enter the data directory. So sockets are in
the runtime directory.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import moorage_common
import moorage_sandbox
from moorage_sandbox.host.confinement.identities import Identity, change_owner, change_owner_of_all, is_root

SOCKET_PATH_BYTES = 107
LONGEST_SOCKET = "/s99999/box/box.sock"


class LayoutError(Exception):
    """A directory cannot be used. The text is for people."""


@dataclass(frozen=True)
class SandboxRecord:
    """The stored description of a sandbox. `slot` decides its kernel users; `uid` is the audience of its tokens."""

    session_id: UUID
    uid: str
    slot: int
    created: str


@dataclass(frozen=True)
class StoredFiles:
    """The files of one sandbox below the data directory. They are kept until the sandbox is deleted."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def gate(self) -> Path:
        return self.root / "gate"

    @property
    def record(self) -> Path:
        return self.root / "meta.json"


@dataclass(frozen=True)
class RuntimeFiles:
    """The files of one running sandbox below the runtime directory.

    The fork server mounts the sandbox's home and its gate's directory at `home` and `state`.
    """

    root: Path

    @property
    def box_socket(self) -> Path:
        return self.root / "box" / "box.sock"

    @property
    def rfb_socket(self) -> Path:
        return self.root / "rfb" / "rfb.sock"

    @property
    def x_sockets(self) -> Path:
        return self.root / "x11"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def state(self) -> Path:
        return self.root / "state"


class Layout:
    """Both directories of one host. Holds a lock, so that no second host can use the same data."""

    def __init__(self, data_dir: Path) -> None:
        self.data = data_dir.resolve()
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.sandboxes = self.data / "sandboxes"
        self.sandboxes.mkdir(mode=0o700, exist_ok=True)
        self.trash = self.data / "sandboxes.deleted"
        self.trash.mkdir(mode=0o700, exist_ok=True)
        for path in (self.sandboxes, self.trash):
            path.chmod(0o700)
        self._lock = take_lock(self.data / "sandboxes.lock")
        self.name = hashlib.sha256(str(self.data).encode()).hexdigest()[:10]
        self.runtime = make_fresh_directory(list_runtime_candidates(self.data, self.name))

    @property
    def code(self) -> Path:
        return self.runtime / "code"

    @property
    def etc(self) -> Path:
        return self.runtime / "etc"

    @property
    def environment(self) -> Path | None:
        """Where, as root, the fork server shows Python and the gate's packages to the sandboxes' users."""
        return self.runtime / "environment" if is_root() else None

    @property
    def trust_file(self) -> Path:
        return self.runtime / "trust.json"

    def stored_files(self, session_id: UUID) -> StoredFiles:
        return StoredFiles(self.sandboxes / str(session_id))

    def runtime_files(self, slot: int) -> RuntimeFiles:
        return RuntimeFiles(self.runtime / f"s{slot}")

    def close(self) -> None:
        shutil.rmtree(self.runtime, ignore_errors=True)
        os.close(self._lock)


def take_lock(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise LayoutError(f"Another sandbox host already uses {path.parent}. Stop it first") from None
    return fd


def list_runtime_candidates(data: Path, name: str) -> list[Path]:
    """Return possible runtime directories. For root it must be one that the sandboxes' users can enter."""
    if is_root():
        return [Path(f"/run/moorage-{name}"), Path(f"/tmp/moorage-{name}")]  # noqa: S108 - its owner is checked
    candidates = [Path(f"/tmp/moorage-{os.getuid()}-{name}")]  # noqa: S108 - its owner is checked
    if directory := os.environ.get("XDG_RUNTIME_DIR"):
        candidates.insert(0, Path(directory) / f"moorage-{name}")
    return [data / "run", *candidates]


def make_fresh_directory(candidates: list[Path]) -> Path:
    """Make the first candidate that can be made. Deletes what a killed host left there."""
    reasons = []
    for path in candidates:
        if len(f"{path}{LONGEST_SOCKET}".encode()) > SOCKET_PATH_BYTES:
            continue
        try:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(mode=0o700)  # fails if another user has put a directory or a link there
            path.chmod(0o711 if is_root() else 0o700)
        except OSError as error:
            reasons.append(f"{path}: {error.strerror}")
            continue
        return path
    raise LayoutError("No runtime directory for the sandboxes' sockets can be made: " + "; ".join(reasons))


def read_record(stored: StoredFiles) -> SandboxRecord | None:
    try:
        content: dict[str, Any] = json.loads(stored.record.read_text())
        return SandboxRecord(
            session_id=UUID(content["session_id"]),
            uid=str(content["uid"]),
            slot=int(content["slot"]),
            created=str(content["created"]),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError) as error:
        raise LayoutError(f"{stored.record} is not a valid record of a sandbox: {error!r}") from error


def write_record(stored: StoredFiles, record: SandboxRecord) -> None:
    stored.root.mkdir(mode=0o700, exist_ok=True)
    text = json.dumps(
        {"session_id": str(record.session_id), "uid": record.uid, "slot": record.slot, "created": record.created}
    )
    partial = stored.record.with_suffix(".partial")
    with open(partial, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(stored.record)


def make_stored_files(stored: StoredFiles, identity: Identity) -> None:
    for path, uid in ((stored.home, identity.box), (stored.gate, identity.gate)):
        path.mkdir(mode=0o700, exist_ok=True)
        if uid is not None and path.stat().st_uid != uid:
            change_owner_of_all(path, uid=uid, gid=identity.group)
        path.chmod(0o700)


def make_runtime_files(runtime: RuntimeFiles, identity: Identity) -> None:
    """Make the runtime files. Only the sandbox's group can enter their directory and reach the sockets in it."""
    shutil.rmtree(runtime.root, ignore_errors=True)
    runtime.root.mkdir(mode=0o700)
    for path, uid in (
        (runtime.box_socket.parent, identity.box),
        (runtime.rfb_socket.parent, identity.vnc),
        (runtime.x_sockets, identity.vnc),
    ):
        path.mkdir()
        change_owner(path, uid=uid, gid=identity.group, mode=0o710)
    if identity.group is not None:
        runtime.home.mkdir(mode=0o700)
        runtime.state.mkdir(mode=0o700)
        os.chown(runtime.root, 0, identity.group)
        runtime.root.chmod(0o710)


def remove_runtime_files(runtime: RuntimeFiles) -> None:
    shutil.rmtree(runtime.root, ignore_errors=True)


def move_to_trash(stored: StoredFiles, *, trash: Path) -> Path | None:
    """Move a sandbox's files to the trash in one step. Returns where they are now, to be deleted later."""
    target = trash / uuid4().hex
    try:
        stored.root.rename(target)
    except FileNotFoundError:
        return None
    return target


def delete_tree(path: Path) -> None:
    """Delete a tree with untrusted content. Directories without permissions are opened; links are not followed."""
    for parent, directories, _ in os.walk(path):
        for name in directories:
            directory = Path(parent, name)
            if not directory.is_symlink():
                directory.chmod(0o700)  # before os.walk enters it
    shutil.rmtree(path)


def install_sandbox_code(layout: Layout, *, python: str) -> None:
    """Copy the code of box and vnc, and a few files for /etc, to where the sandboxes' users can read them."""
    source = Path(moorage_sandbox.__file__).parent
    common = Path(moorage_common.__file__).parent
    for part in ("box", "vnc"):
        shutil.copytree(common, layout.code / part / "moorage_common", ignore=shutil.ignore_patterns("__pycache__"))
        package = layout.code / part / "moorage_sandbox"
        package.mkdir()
        for shared in ("__init__.py", "protocol.py", "pictures.py"):
            shutil.copy(source / shared, package)
        if (source / part).is_dir():
            shutil.copytree(source / part, package / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source / f"{part}.py", package)
    layout.etc.mkdir()
    for name, text in ETC_FILES.items():
        (layout.etc / name).write_text(text)
    subprocess.run(
        [python, "-I", "-S", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", layout.code],
        check=False,
    )
    for path in (layout.code, layout.etc, *layout.code.rglob("*"), *layout.etc.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


ETC_FILES = {
    "passwd": (
        "root:x:0:0:root:/root:/usr/sbin/nologin\n"
        "ubuntu:x:1000:1000:Ubuntu:/home/ubuntu:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "group": "root:x:0:\nubuntu:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "hostname": "sandbox\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    "resolv.conf": "nameserver 10.0.2.3\n",
}
