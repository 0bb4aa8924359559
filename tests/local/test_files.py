"""The content of the data directory: secrets, keys, logs, and the lock."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from moorage_local.data.credentials import Credentials, SigningKeys
from moorage_local.data.directory import DataDirectory
from moorage_local.data.log_files import truncate_large_logs
from moorage_local.data.private_files import write_private
from moorage_local.errors import StartError
from moorage_sandbox.messages import TrustFile
from moorage_sandbox.protocol import API_SCOPES, RUNNER_SCOPES


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_are_created_once_and_missing_ones_are_added(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    first = Credentials.load(path)
    assert Credentials.load(path) == first
    write_private(path, first.model_dump_json(exclude={"jwt_secret"}))
    later = Credentials.load(path)
    assert later.model_dump(exclude={"jwt_secret"}) == first.model_dump(exclude={"jwt_secret"})
    assert Credentials.load(path) == later
    assert mode(path) == 0o600


def test_the_trust_file_gives_api_and_runner_their_own_scopes(tmp_path: Path) -> None:
    keys = SigningKeys.load(tmp_path / "keys")
    before = keys.trust_file.read_text()
    trusted = TrustFile.model_validate_json(before).keys
    assert {name: frozenset(key.scopes) for name, key in trusted.items()} == {
        "api": API_SCOPES,
        "runner": RUNNER_SCOPES,
    }
    assert SigningKeys.load(tmp_path / "keys").trust_file.read_text() == before
    assert {mode(path) for path in (tmp_path / "keys").iterdir()} == {0o600}


def test_a_failed_write_leaves_the_file_unchanged(tmp_path: Path) -> None:
    path = write_private(tmp_path / "file", "before")
    with pytest.raises(UnicodeEncodeError):
        write_private(path, "\udc80")
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_only_one_process_can_lock_the_directory(tmp_path: Path) -> None:
    first = DataDirectory.open(tmp_path / "data")
    with first.lock(), pytest.raises(StartError, match="already running"), DataDirectory(first.root).lock():
        pass
    with DataDirectory(first.root).lock():
        pass


def test_an_existing_directory_becomes_private(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    assert mode(DataDirectory.open(tmp_path / "data").root) == 0o700


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_path_that_is_not_a_directory_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="MOORAGE_DATA_DIR"):
        DataDirectory.open(tmp_path / name)


def test_the_path_of_the_hosts_socket_is_short_enough(tmp_path: Path) -> None:
    short, long = DataDirectory(Path("/data")), DataDirectory(tmp_path / ("deep/" * 30))
    assert short.host_socket == Path("/data/host.sock")
    assert len(str(long.host_socket)) < 100
    assert long.host_socket != DataDirectory(tmp_path / ("deeper/" * 30)).host_socket


def test_a_large_log_is_truncated_while_its_writer_continues(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 1000)
        truncate_large_logs(tmp_path, limit_bytes=100)
        writer.write(b"new\n")
        truncate_large_logs(tmp_path, limit_bytes=100)
    assert log.read_bytes() == b"new\n"
    assert (tmp_path / "api.log.1").read_bytes() == b"old\n" * 25
    assert mode(tmp_path / "api.log.1") == 0o600
