"""Show Python and the gate's packages at places that every user can read, then become the fork server.

A gate runs as a kernel user of its own. The environment that the host runs from may be closed to that user: below a
directory that only root can enter, or installed with a umask that lets only the owner read. So, as root, the fork
server runs in a mount namespace of its own, in which the environment is mounted once more below the runtime directory,
and it imports everything from there. Whatever a gate imports or opens later is then readable too. Nothing in the
original directories changes, and no other process sees the mounts.

Where the files themselves are closed, an overlay holds the changed modes in memory (`metacopy`: no content is copied).
"""

from __future__ import annotations

import importlib.util
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from moorage_sandbox.host.processes.fork_server import (
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_REC,
    bind,
    check_result,
    enter_mount_namespace,
    libc,
)

GATE_MODULES = ("starlette", "uvicorn", "httptools", "uvloop", "websockets", "jwt", "cryptography", "pydantic")
PYTHON = "python"
"""The name of the interpreter's directory below the one that the environment is shown in."""

START = "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); from {module} import main; main(sys.argv[1:])"
FORK_SERVER = "moorage_sandbox.host.processes.fork_server"
TRIAL = "moorage_sandbox.host.processes.reading_trial"


def package_roots() -> list[Path]:
    """The directories of `sys.path` that hold installed packages, and those that hold what the gate names itself."""
    installed = [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    named = [root_of(name) for name in (*GATE_MODULES, "moorage_sandbox")]
    roots = [root.resolve() for root in (*installed, *named) if root is not None and root.is_dir()]
    return list(dict.fromkeys(roots))


def root_of(module: str) -> Path | None:
    """The directory that must be in `sys.path` for this top-level module; None when it is not installed."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent.parent if spec.submodule_search_locations else Path(spec.origin).parent


def python_prefix() -> tuple[Path, Path]:
    """The interpreter's installation, and the interpreter relative to it."""
    prefix = Path(sys.base_prefix).resolve()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for name in (version, "python3"):
        if (prefix / "bin" / name).is_file():
            return prefix, Path("bin") / name
    raise FileNotFoundError(f"There is no bin/{version} in {prefix}, where Python {sys.version} is installed")


def mount_environment(directory: Path) -> tuple[Path, list[Path]]:
    """Mount everything below `directory` in a new mount namespace. Returns the interpreter and its `sys.path`.

    Raises OSError.
    """
    enter_mount_namespace()
    directory.mkdir(mode=0o755, exist_ok=True)
    options = b"mode=755"
    check_result(libc.mount(b"tmpfs", bytes(directory), b"tmpfs", MS_NOSUID | MS_NODEV, options), f"mount {directory}")
    prefix, interpreter = python_prefix()
    show(prefix, directory / PYTHON)
    shown = []
    for number, root in enumerate(package_roots()):
        show(root, target := directory / f"packages{number}")
        shown.append(target)
    return directory / PYTHON / interpreter, shown


def show(source: Path, target: Path) -> None:
    target.mkdir(mode=0o755)
    bind(str(source), str(target), flags=MS_BIND | MS_REC)
    if is_closed(target):
        open_to_all(target)


def is_closed(root: Path) -> bool:
    """Whether something directly in `root`, or in the standard library in it, is not for everybody to read.

    One level is enough: an installer creates a package's directory and its files with the same umask.
    """
    library = root / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    directories = [root, library] if library.is_dir() else [root]
    return any(missing_mode(path) for directory in directories for path in (directory, *directory.iterdir()))


def missing_mode(path: Path) -> int:
    """The bits that `path` lacks so that every user can read it."""
    found = path.lstat()
    if stat.S_ISDIR(found.st_mode):
        return 0o005 & ~found.st_mode
    if stat.S_ISREG(found.st_mode):
        return (0o005 if found.st_mode & stat.S_IXUSR else 0o004) & ~found.st_mode
    return 0


def open_to_all(root: Path) -> None:
    """Lay an overlay over `root` and add the missing modes in it."""
    upper, work = (root.with_name(f"{root.name}.{kind}") for kind in ("upper", "work"))
    upper.mkdir(mode=0o755)
    work.mkdir(mode=0o755)
    options = f"lowerdir={root},upperdir={upper},workdir={work},metacopy=on".encode()
    check_result(libc.mount(b"overlay", bytes(root), b"overlay", MS_NOSUID | MS_NODEV, options), "mount an overlay")
    for path in below(root):
        if missing := missing_mode(path):
            path.chmod(path.lstat().st_mode | missing)


def below(root: Path) -> Iterator[Path]:
    """`root` and everything in it."""
    yield root
    for parent, directories, files in os.walk(root):
        yield from (Path(parent, name) for name in (*directories, *files))


def command(mounted_in: Path | None, module: str, *arguments: str) -> list[str]:
    """The command that runs `main(arguments)` of a module; as root with the environment shown in a directory."""
    if mounted_in is None:
        return [sys.executable, "-m", module, *arguments]
    return [sys.executable, "-m", __name__, str(mounted_in), module, *arguments]


def main() -> None:
    """`python -m moorage_sandbox.host.processes.readable_environment DIRECTORY MODULE ARGUMENT…`"""
    directory, module, *arguments = sys.argv[1:]
    try:
        interpreter, roots = mount_environment(Path(directory))
    except OSError as error:
        sys.exit(f"Python and the gate's packages cannot be shown to the sandboxes' users: {error.strerror or error}")
    paths = ":".join(str(root) for root in roots)
    argv = [str(interpreter), "-I", "-S", "-c", START.format(module=module), paths, *arguments]
    os.execv(argv[0], argv)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
