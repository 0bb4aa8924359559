"""The data directory of the platform on one machine, and the lock that only one process may hold."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moorage_local.data.private_files import make_private_directory
from moorage_local.errors import StartError

SOCKET_PATH_LIMIT = 100
"""Longest path of a Unix socket that we use. The kernel allows 107 bytes."""

SECRETS_FILE = "secrets.json"
LOCK = "lock"


class DataDirectory:
    """Paths in the data directory. Only `open` creates it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.secrets = root / SECRETS_FILE
        self.ports = root / "ports.json"
        self.keys = root / "keys"
        self.logs = root / "logs"

    @classmethod
    def open(cls, path: Path) -> DataDirectory:
        """Create the directory, readable only by its owner. Raises StartError like `check`."""
        directory = cls(path.expanduser().absolute())
        directory.check()
        try:
            make_private_directory(directory.root)
            make_private_directory(directory.logs)
        except OSError as error:
            raise _directory_error(directory.root, error) from None
        return directory

    def check(self) -> None:
        """Raise StartError if the directory cannot be used: it has other content or another owner, or is read-only."""
        try:
            if self.root.exists():
                others = {entry.name for entry in self.root.iterdir()} - {LOCK}
                if others and SECRETS_FILE not in others:
                    raise StartError(
                        f"{self.root} contains other files: set MOORAGE_DATA_DIR to a new or empty directory"
                    )
                if self.root.stat().st_uid != os.geteuid():
                    raise StartError(
                        f"{self.root} belongs to another user: start Moorage as that user, or set MOORAGE_DATA_DIR"
                    )
            parent = next(place for place in (self.root, *self.root.parents) if place.exists())
        except OSError as error:
            raise _directory_error(self.root, error) from None
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise StartError(f"{parent} cannot be written to: set MOORAGE_DATA_DIR to another directory")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of the directory. The kernel releases it when this process ends for any reason."""
        descriptor = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
                raise StartError(
                    f"Moorage is already running on {self.root} (process {holder}). "
                    f"Stop it first, or set MOORAGE_DATA_DIR to start another one."
                ) from None
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            yield
        finally:
            os.close(descriptor)

    @property
    def host_socket(self) -> Path:
        """Socket of the sandbox host: in this directory, or in the temporary directory if the path is too long."""
        path = self.root / "host.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
            return path
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"moorage-{os.geteuid()}-{digest}" / "host.sock"


def _directory_error(root: Path, error: OSError) -> StartError:
    return StartError(f"{error.filename or root}: {error.strerror}. Set MOORAGE_DATA_DIR to another directory")
