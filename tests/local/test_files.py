"""What is kept in the data directory: secrets, keys, logs, and the lock."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from moorage_local.credentials import Credentials, SigningKeys
from moorage_local.directory import DataDirectory
from moorage_local.errors import StartError
from moorage_local.files import write_private
from moorage_local.logs import cut
from moorage_sandbox.messages import TrustFile
from moorage_sandbox.protocol import API_SCOPES, RUNNER_SCOPES


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_are_made_once_and_new_ones_are_added(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    first = Credentials.load(path)
    assert Credentials.load(path) == first
    write_private(path, first.model_dump_json(exclude={"jwt_secret"}))
    later = Credentials.load(path)
    assert later.model_dump(exclude={"jwt_secret"}) == first.model_dump(exclude={"jwt_secret"})
    assert Credentials.load(path) == later
    assert mode(path) == 0o600


def test_api_and_runner_are_trusted_with_what_is_theirs(tmp_path: Path) -> None:
    keys = SigningKeys.load(tmp_path / "keys")
    before = keys.trust_file.read_text()
    trusted = TrustFile.model_validate_json(before).keys
    assert {name: frozenset(key.scopes) for name, key in trusted.items()} == {
        "api": API_SCOPES,
        "runner": RUNNER_SCOPES,
    }
    assert SigningKeys.load(tmp_path / "keys").trust_file.read_text() == before
    assert {mode(path) for path in (tmp_path / "keys").iterdir()} == {0o600}


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = write_private(tmp_path / "file", "before")
    with pytest.raises(UnicodeEncodeError):
        write_private(path, "\udc80")
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_one_process_at_a_time_has_the_directory(tmp_path: Path) -> None:
    first = DataDirectory.open(tmp_path / "data")
    with first.locked(), pytest.raises(StartError, match="already running"), DataDirectory(first.root).locked():
        pass
    with DataDirectory(first.root).locked():
        pass


def test_a_directory_that_is_there_is_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    assert mode(DataDirectory.open(tmp_path / "data").root) == 0o700


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_path_that_is_no_directory_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="MOORAGE_DATA_DIR"):
        DataDirectory.open(tmp_path / name)


def test_the_hosts_socket_has_a_path_that_fits(tmp_path: Path) -> None:
    short, long = DataDirectory(Path("/data")), DataDirectory(tmp_path / ("deep/" * 30))
    assert short.host_socket == Path("/data/host.sock")
    assert len(str(long.host_socket)) < 100
    assert long.host_socket != DataDirectory(tmp_path / ("deeper/" * 30)).host_socket


def test_a_log_that_grew_is_cut_while_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 1000)
        cut(tmp_path, limit_bytes=100)
        writer.write(b"new\n")
        cut(tmp_path, limit_bytes=100)
    assert log.read_bytes() == b"new\n"
    assert (tmp_path / "api.log.1").read_bytes() == b"old\n" * 25
    assert mode(tmp_path / "api.log.1") == 0o600
