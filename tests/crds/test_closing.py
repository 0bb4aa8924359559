"""What a client leaves open when it ends a watch that the API server goes on with."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage_kube.client import KubeClient
from support.kube.credentials import Authority
from support.waiting import HANG_SECONDS

EVENT = b'{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "2"}}}\n'


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[Path]:
    """An API server over TLS that sends one event of a watch and then reads nothing, as one that is very busy."""
    authority = Authority(tmp_path / "keys")
    pair = authority.issue("server", user="server", hosts=["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    is_over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
                connection.recv(65536)
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                connection.sendall(head + b"%x\r\n" % len(EVENT) + EVENT + b"\r\n")
                is_over.wait(HANG_SECONDS)

        server = threading.Thread(target=serve)
        server.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        client = authority.issue("client", user="client")
        yield authority.kubeconfig(tmp_path / "kubeconfig", server=url, client=client)
        is_over.set()
        server.join(HANG_SECONDS)


async def take_one_event(kubeconfig: Path) -> None:
    kube = await KubeClient.connect(kubeconfig)
    async with contextlib.aclosing(kube.watch("/api/v1/pods", since="1")) as events:
        await anext(events)
    await kube.close()


def test_a_watch_that_the_client_ends_leaves_no_connection_open(kubeconfig: Path) -> None:
    """asyncio waits 30 s for the server's part of the end of TLS; a connection that is open after the loop warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        asyncio.run(take_one_event(kubeconfig))
        gc.collect()
