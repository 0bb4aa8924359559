"""`pip install` works for the commands of a sandbox, without a virtual environment and without root."""

from __future__ import annotations

import base64
import io
import zipfile

import pytest

from support.sandbox_host import Inside

WHEEL = "/tmp/tiny_tides-1.0-py3-none-any.whl"


def make_wheel() -> bytes:
    """A wheel of one module and one command, so that the test needs no package index."""
    info = "tiny_tides-1.0.dist-info"
    files = {
        "tiny_tides.py": "def main():\n    print('high tide')\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny-tides\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ntides = tiny_tides:main\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
    return wheel.getvalue()


@pytest.fixture
def with_wheel(inside: Inside) -> Inside:
    inside.run(f"echo {base64.b64encode(make_wheel()).decode()} | base64 -d > {WHEEL}")
    return inside


def test_a_package_can_be_installed_imported_and_run(with_wheel: Inside) -> None:
    install = f"pip install --no-index {WHEEL}"
    said = with_wheel.run(f"{install} && python3 -c 'import tiny_tides; tiny_tides.main()' && tides")
    assert "Successfully installed tiny-tides-1.0" in said
    assert said.splitlines()[-2:] == ["high tide", "high tide"]


def test_a_package_can_be_installed_into_a_virtual_environment(with_wheel: Inside) -> None:
    said = with_wheel.run(f"python3 -m venv /tmp/v && /tmp/v/bin/pip install --no-index {WHEEL} && /tmp/v/bin/tides")
    assert said.splitlines()[-1] == "high tide"
