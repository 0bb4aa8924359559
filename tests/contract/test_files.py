"""The file module."""

from __future__ import annotations

import socket
from contextlib import suppress
from urllib.parse import quote, urlsplit

import pytest

from contract.server import HANG_SECONDS, Caller, ServerUnderTest, parse_envelope
from contract.spec import proves

FILE_INFO = {"id", "filename", "filepath", "key", "extension", "mime_type", "size"}


@proves("POST /api/files: success", "GET /api/files/{file_id}: success")
def test_an_uploaded_file_is_described(alice: Caller, admin: Caller) -> None:
    info = alice.upload("Bericht 报告.csv", b"a,b\n1,2\n", "text/csv")
    assert set(info) >= FILE_INFO
    assert (info["filename"], info["size"], info["mime_type"]) == ("Bericht 报告.csv", 8, "text/csv")
    assert info["extension"].lstrip(".") == "csv"
    for reader in (alice, admin):
        assert reader.get(f"/api/files/{info['id']}") == info


@proves("GET /api/files/{file_id}/download: success")
@pytest.mark.parametrize("content", [b"", b"\x00\xff" * 300_000], ids=["empty", "binary"])
def test_a_download_equals_the_upload(alice: Caller, admin: Caller, content: bytes) -> None:
    info = alice.upload("报告 1.bin", content, "application/octet-stream")
    for reader in (alice, admin):
        response = reader.send("GET", f"/api/files/{info['id']}/download")
        assert response.status_code == 200
        assert response.content == content
        assert response.headers["content-length"] == str(len(content))
        disposition = response.headers["content-disposition"]
        assert disposition.lower() == f"attachment; filename*=utf-8''{quote('报告 1.bin', safe='')}".lower()


@proves("DELETE /api/files/{file_id}: success")
@pytest.mark.parametrize("by", ["owner", "admin"])
def test_a_deleted_file_is_gone(alice: Caller, admin: Caller, by: str) -> None:
    info = alice.upload()
    assert (alice if by == "owner" else admin).delete(f"/api/files/{info['id']}") is None
    for path in (f"/api/files/{info['id']}", f"/api/files/{info['id']}/download"):
        alice.ask("GET", path, expect=404)


@proves("POST /api/files: no-file")
def test_an_upload_needs_a_file(alice: Caller) -> None:
    """The contract has both statuses for invalid requests, and does not say which a form gets."""
    for response in (
        alice.send("POST", "/api/files", files={"other": ("a.txt", b"a", "text/plain")}),
        alice.send("POST", "/api/files"),
    ):
        assert parse_envelope(response).status in (400, 422)


@proves("POST /api/files: 413")
def test_an_upload_of_unknown_length_that_is_too_big_is_refused(alice: Caller, server: ServerUnderTest) -> None:
    """The request has no Content-Length, so the server has to count."""
    at = urlsplit(server.url)
    head = (
        f"POST /api/files HTTP/1.1\r\nHost: {at.netloc}\r\nAuthorization: Bearer {alice.token}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="big.bin"\r\n\r\n'
    mebibyte = bytes(2**20)
    with socket.create_connection((at.hostname or "", at.port or 80), timeout=HANG_SECONDS) as connection:
        connection.sendall(head.encode())
        with suppress(ConnectionError):  # the server may close the connection after its response
            for chunk in (part, *[mebibyte] * 101):
                connection.sendall(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        status_line = connection.makefile("rb").readline()
    assert status_line.split()[1] == b"413"


@proves("POST /api/files: 413")
def test_an_upload_with_a_length_that_is_too_big_is_refused_before_its_body(
    alice: Caller, server: ServerUnderTest
) -> None:
    """The request only declares the length and sends no body."""
    at = urlsplit(server.url)
    head = (
        f"POST /api/files HTTP/1.1\r\nHost: {at.netloc}\r\nAuthorization: Bearer {alice.token}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {2**40}\r\n\r\n"
    )
    with socket.create_connection((at.hostname or "", at.port or 80), timeout=HANG_SECONDS) as connection:
        connection.sendall(head.encode())
        status_line = connection.makefile("rb").readline()
    assert status_line.split()[1] == b"413"
