"""The checks of `doctor`, and the commands that it proposes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from moorage_sandbox.host import doctor
from moorage_sandbox.host.doctor import SandboxCheck


def run_doctor(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "moorage_sandbox.host", "doctor", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **({"PATH": path} if path is not None else {})},
    )


def test_this_machine_has_everything_that_is_required() -> None:
    done = run_doctor("--json")
    assert done.returncode == 0, done.stdout
    found = [SandboxCheck(**one) for one in json.loads(done.stdout)]
    assert [one.name for one in found if one.required and not one.ok] == []
    assert {"bubblewrap", "user namespaces", "limits", "slirp4netns", "Xvnc", "chromium", "CJK fonts"} <= {
        one.name for one in found
    }


def test_a_missing_thing_is_named_with_the_command_that_installs_it() -> None:
    done = run_doctor(path="/nonexistent")
    assert "warning slirp4netns: missing: without it sandboxes have no network" in done.stdout
    assert "apt-get install --yes --no-install-recommends slirp4netns" in done.stdout


def test_packages_of_the_list_that_are_not_installed_are_named(tmp_path: Path) -> None:
    file = tmp_path / "software.txt"
    file.write_text("# tools\nbash\nno-such-package-here  # nor this\n\ncoreutils\n")
    check = doctor.check_software(file)
    assert (check.ok, check.detail) == (False, "missing: no-such-package-here")
    assert check.fix.endswith("apt-get install --yes --no-install-recommends no-such-package-here")


def test_the_list_of_software_is_read_without_comments() -> None:
    packages = doctor.parse_packages(doctor.SOFTWARE_FILE.read_text())
    assert {"bash", "python3", "nodejs", "git", "chromium", "fonts-noto-cjk"} <= set(packages)
    assert all(package == package.strip() and " " not in package and "#" not in package for package in packages)


@pytest.mark.parametrize(
    ("required", "ok", "status"), [(True, False, "MISSING"), (False, False, "warning"), (True, True, "ok")]
)
def test_a_failed_check_is_printed_with_its_fix(required: bool, ok: bool, status: str) -> None:
    lines: list[str] = []
    doctor.print_checks(
        [SandboxCheck("thing", ok=ok, detail="how it is", fix="get thing", required=required)], lines.append
    )
    assert lines[0] == f"{status:8}thing: how it is"
    assert lines[1:] == ([] if ok else ["        fix: get thing"])
