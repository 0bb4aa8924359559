"""Mounts Python and the gate's packages where every user can read them, then executes the fork server.

A gate runs as its own kernel user. That user may be unable to read the environment that the host runs from: it may be
below a directory that only root can enter, or installed with a umask that lets only the owner read. So, if the host is
root, the fork server runs in its own mount namespace. The environment is mounted a second time there, below the runtime
directory, and the fork server imports everything from that place. Everything that a gate imports or opens later is then
readable too. The original directories do not change, and no other process sees the mounts.

If the files themselves are not readable, an overlay holds their changed modes in memory (`metacopy`: no content is
copied).
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
"""The name of the interpreter's directory below the one where the environment is mounted."""

START = "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); from {module} import main; main(sys.argv[1:])"
FORK_SERVER = "moorage_sandbox.host.processes.fork_server"
TRIAL = "moorage_sandbox.host.processes.reading_trial"


def find_package_roots() -> list[Path]:
    """Return the directories of `sys.path` with installed packages, and those of the modules in GATE_MODULES."""
    installed = [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    named = [find_root(name) for name in (*GATE_MODULES, "moorage_sandbox")]
    roots = [root.resolve() for root in (*installed, *named) if root is not None and root.is_dir()]
    return list(dict.fromkeys(roots))


def find_root(module: str) -> Path | None:
    """Return the directory that must be in `sys.path` for a top-level module, or None if it is not installed."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent.parent if spec.submodule_search_locations else Path(spec.origin).parent


def find_interpreter() -> tuple[Path, Path]:
    """Return the directory of the Python installation, and the interpreter's path relative to it."""
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
    prefix, interpreter = find_interpreter()
    mount_readable(prefix, directory / PYTHON)
    mounted = []
    for number, root in enumerate(find_package_roots()):
        mount_readable(root, target := directory / f"packages{number}")
        mounted.append(target)
    return directory / PYTHON / interpreter, mounted


def mount_readable(source: Path, target: Path) -> None:
    target.mkdir(mode=0o755)
    bind(str(source), str(target), flags=MS_BIND | MS_REC)
    if is_closed(target):
        open_to_all(target)


def is_closed(root: Path) -> bool:
    """Whether some users cannot read an entry of `root`, or of the standard library in it.

    Checking one level is enough, because an installer creates a package's directory and files with the same umask.
    """
    library = root / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    directories = [root, library] if library.is_dir() else [root]
    return any(missing_mode(path) for directory in directories for path in (directory, *directory.iterdir()))


def missing_mode(path: Path) -> int:
    """Return the permission bits that `path` lacks so that every user can read it."""
    found = path.lstat()
    if stat.S_ISDIR(found.st_mode):
        return 0o005 & ~found.st_mode
    if stat.S_ISREG(found.st_mode):
        return (0o005 if found.st_mode & stat.S_IXUSR else 0o004) & ~found.st_mode
    return 0


def open_to_all(root: Path) -> None:
    """Mount an overlay over `root`, and add the missing permissions in it."""
    upper, work = (root.with_name(f"{root.name}.{kind}") for kind in ("upper", "work"))
    upper.mkdir(mode=0o755)
    work.mkdir(mode=0o755)
    options = f"lowerdir={root},upperdir={upper},workdir={work},metacopy=on".encode()
    check_result(libc.mount(b"overlay", bytes(root), b"overlay", MS_NOSUID | MS_NODEV, options), "mount an overlay")
    for path in walk_tree(root):
        if missing := missing_mode(path):
            path.chmod(path.lstat().st_mode | missing)


def walk_tree(root: Path) -> Iterator[Path]:
    """Yield `root` and everything below it."""
    yield root
    for parent, directories, files in os.walk(root):
        yield from (Path(parent, name) for name in (*directories, *files))


def module_command(mounted_in: Path | None, module: str, *arguments: str) -> list[str]:
    """Return the command that runs `main(arguments)` of a module. Root mounts the environment in `mounted_in` first."""
    if mounted_in is None:
        return [sys.executable, "-m", module, *arguments]
    return [sys.executable, "-m", __name__, str(mounted_in), module, *arguments]


def main() -> None:
    """`python -m moorage_sandbox.host.processes.readable_environment DIRECTORY MODULE ARGUMENT…`"""
    directory, module, *arguments = sys.argv[1:]
    try:
        interpreter, roots = mount_environment(Path(directory))
    except OSError as error:
        sys.exit(
            f"Python and the gate's packages cannot be mounted for the sandboxes' users: {error.strerror or error}"
        )
    paths = ":".join(str(root) for root in roots)
    argv = [str(interpreter), "-I", "-S", "-c", START.format(module=module), paths, *arguments]
    os.execv(argv[0], argv)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
