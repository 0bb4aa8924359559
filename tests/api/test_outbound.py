"""Which addresses configured URLs may reach, and limits of responses. Over real sockets, with our own DNS."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import httpx2
import pytest

from moorage_api.agent.model.llm import LlmClient
from moorage_api.agent.model.servers.errors import LlmError
from moorage_api.errors import OutboundRefusedError
from moorage_api.outbound import Address, Outbound, Purpose, ResponseLimits, Target
from support.accounts import Person

EVERYTHING: frozenset[Purpose] = frozenset({"llm", "mcp", "a2a", "skills"})
NOTHING: frozenset[Purpose] = frozenset()


@dataclass
class Names:
    """A DNS: each look-up of a name returns its next answer; the last answer is repeated."""

    answers: dict[str, list[list[str]]]
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str, port: int) -> list[Address]:
        self.asked.append(host)
        answers = self.answers.get(host)
        if answers is None:
            raise OSError(f"{host} is unknown")
        now = answers.pop(0) if len(answers) > 1 else answers[0]
        return [ipaddress.ip_address(text) for text in now]


@dataclass
class RawServer:
    port: int
    requests: list[str] = field(default_factory=list)


Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[RawServer]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            server.requests.append(head)
            await answer(head, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    server = RawServer(listening.sockets[0].getsockname()[1])
    try:
        yield server
    finally:
        listening.close()


def plain(body: bytes = b"hello", *, status: str = "200 OK", headers: str = "") -> Answer:
    async def answer(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    return answer


REFUSED = {
    "another scheme": "file:///etc/passwd",
    "gopher": "gopher://example.com/",
    "no host": "http:///x",
    "a user": "http://example.com@127.0.0.1/",
    "an empty user": "http://@127.0.0.1/",
    "a backslash": "http://example.com\\@127.0.0.1/",
    "a blank": "http://example.com /",
    "a line break": "http://example.com\r\nHost: x/",
    "a decimal number": "http://2130706433/",
    "a hexadecimal number": "http://0x7f000001/",
    "octal parts": "http://0177.0.0.01/",
    "a short form": "http://127.1/",
    "a scope": "http://[fe80::1%25eth0]/",
    "an invalid port": "http://example.com:99999/",
    "too long": f"http://example.com/{'a' * 3000}",
}


@pytest.mark.parametrize("url", REFUSED.values(), ids=REFUSED.keys())
async def test_a_url_of_an_unusual_form_is_refused(url: str) -> None:
    with pytest.raises(OutboundRefusedError):
        await Outbound(private=EVERYTHING).check("mcp", url)


NEVER = {
    "metadata": "http://169.254.169.254/latest/meta-data",
    "metadata mapped into IPv6": "http://[::ffff:169.254.169.254]/",
    "metadata mapped, in hexadecimal": "http://[::ffff:a9fe:a9fe]/",
    "metadata through NAT64": "http://[64:ff9b::a9fe:a9fe]/",
    "metadata through 6to4": "http://[2002:a9fe:a9fe::1]/",
    "metadata through a local NAT64": "http://[64:ff9b:1::a9fe:a9fe]/",
    "metadata through Teredo": "http://[2001:0:4136:e378:8000:63bf:5601:5601]/",
    "metadata of containers": "http://169.254.170.2/",
    "metadata over IPv6": "http://[fd00:ec2::254]/",
    "metadata of Alibaba": "http://100.100.100.200/",
    "metadata of Azure": "http://168.63.129.16/",
    "this host": "http://0.0.0.0/",
    "this host, IPv6": "http://[::]/",
    "link-local": "http://[fe80::1]/",
    "multicast": "http://224.0.0.1/",
    "broadcast": "http://255.255.255.255/",
    "a name that leads there": "http://metadata.test/",
    "a name that leads there among others": "http://mixed.test/",
}
NAMES = {"metadata.test": [["169.254.169.254"]], "mixed.test": [["93.184.215.14", "169.254.169.254"]]}


@pytest.mark.parametrize("url", NEVER.values(), ids=NEVER.keys())
async def test_metadata_and_reserved_addresses_are_refused_with_any_settings(url: str) -> None:
    with pytest.raises(OutboundRefusedError, match="never allowed"):
        await Outbound(private=EVERYTHING, resolve=Names(NAMES)).check("llm", url)


PRIVATE = {
    "loopback": "http://127.0.0.1:11434/v1",
    "loopback, IPv6": "http://[::1]/",
    "loopback mapped into IPv6": "http://[::ffff:127.0.0.1]/",
    "ten": "http://10.1.2.3/",
    "carrier": "http://100.64.0.1/",
    "home": "https://192.168.1.1/",
    "unique local": "http://[fd12::1]/",
    "site-local": "http://[fec0::1]/",
    "a name": "http://inside.test/",
    "a name with a dot": "http://inside.test./",
}


@pytest.mark.parametrize("url", PRIVATE.values(), ids=PRIVATE.keys())
async def test_private_addresses_are_allowed_for_the_purposes_in_the_setting(url: str) -> None:
    names = Names({"inside.test": [["192.168.7.7"]]})
    await Outbound(private=frozenset({"llm"}), resolve=names).check("llm", url)
    with pytest.raises(OutboundRefusedError, match="private"):
        await Outbound(private=frozenset({"llm"}), resolve=names).check("mcp", url)


async def test_public_addresses_and_unknown_names_may_be_configured() -> None:
    outbound = Outbound(private=NOTHING, resolve=Names({"example.com": [["93.184.215.14", "2606:2800:220:1::1"]]}))
    for url in ("https://example.com/v1", "http://8.8.8.8/", "https://münchen.test/", "http://[2606:4700::1111]/"):
        await outbound.check("llm", url)


async def test_ports_of_the_platforms_own_services_are_refused() -> None:
    outbound = Outbound(private=EVERYTHING, closed_ports=frozenset({5432}))
    await outbound.check("mcp", "http://localhost:5433/")
    with pytest.raises(OutboundRefusedError, match="service of this platform"):
        await outbound.check("mcp", "http://localhost:5432/")


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    names = Names({"model.test": [["127.0.0.1"]]})
    async with serving(plain()) as server:
        url = f"http://model.test:{server.port}/v1"
        async with Outbound(private=EVERYTHING, resolve=names).client("llm", url) as client:
            assert (await client.get(url)).text == "hello"
        async with Outbound(private=EVERYTHING, resolve=names).client2("llm", url) as client2:
            assert (await client2.get(url)).text == "hello"
    assert names.asked == ["model.test"] * 2, "one look-up per request: the checked address is used"
    assert all(f"host: model.test:{server.port}" in head.lower() for head in server.requests)


async def test_a_name_that_later_has_a_forbidden_address_is_refused() -> None:
    names = Names({"rebind.test": [["127.0.0.1"], ["169.254.169.254"]]})
    async with serving(plain(headers="Connection: close\r\n")) as server:
        url = f"http://rebind.test:{server.port}/"
        async with Outbound(private=EVERYTHING, resolve=names).client("mcp", url) as client:
            assert (await client.get(url)).status_code == 200
            with pytest.raises(OutboundRefusedError):
                await client.get(url)
    assert len(server.requests) == 1


async def test_the_next_address_is_tried_if_one_refuses_the_connection() -> None:
    names = Names({"both.test": [["::1", "127.0.0.1"]]})
    async with serving(plain()) as server:
        url = f"http://both.test:{server.port}/"
        async with Outbound(private=EVERYTHING, resolve=names).client("mcp", url) as client:
            assert (await client.post(url, content=b"body")).text == "hello"


REDIRECTS = {
    "metadata": ("http://169.254.169.254/", "llm"),
    "this machine's other port": ("http://127.0.0.1:1/", "llm"),
    "a private address": ("http://10.0.0.1/", "skills"),
    "a name of a private address": ("http://inside.test/", "skills"),
    "another public host": ("https://elsewhere.test/", "mcp"),
    "another scheme": ("file:///etc/passwd", "skills"),
}


@pytest.mark.parametrize(("location", "purpose"), REDIRECTS.values(), ids=REDIRECTS.keys())
async def test_a_redirect_to_another_server_is_refused(location: str, purpose: Purpose) -> None:
    names = Names({"inside.test": [["192.168.7.7"]], "elsewhere.test": [["93.184.215.14"]]})
    async with serving(plain(status="302 Found", headers=f"Location: {location}\r\n")) as server:
        url = f"http://127.0.0.1:{server.port}/"
        async with Outbound(private=EVERYTHING, resolve=names).client(purpose, url) as client:
            with pytest.raises((OutboundRefusedError, httpx.UnsupportedProtocol)):
                await client.get(url, headers={"X-Key": "secret"})
        async with Outbound(private=EVERYTHING, resolve=names).client2(purpose, url) as client2:
            with pytest.raises((OutboundRefusedError, httpx2.UnsupportedProtocol)):
                await client2.get(url)


async def test_a_redirect_on_the_same_server_is_followed_up_to_a_limit() -> None:
    async def answer(head: str, writer: asyncio.StreamWriter) -> None:
        path = head.split(" ")[1]
        reply = plain() if path == "/b" else plain(status="307 Moved", headers=f"Location: {path[:-1]}b\r\n")
        if path == "/loop":
            reply = plain(status="307 Moved", headers="Location: /loop\r\n")
        await reply(head, writer)

    async with serving(answer) as server:
        url = f"http://127.0.0.1:{server.port}/a"
        async with Outbound().client("mcp", url) as client:
            assert (await client.get(url)).text == "hello"
            with pytest.raises(httpx.TooManyRedirects):
                await client.get(url.replace("/a", "/loop"))


def test_a_redirect_from_https_to_http_is_refused() -> None:
    guard = Outbound().guard("skills", "https://example.com/")
    with pytest.raises(OutboundRefusedError, match="https to http"):
        guard.check_hop(Target.of("http://example.com/"))


async def test_a_url_from_another_server_may_be_private_only_on_that_servers_host() -> None:
    outbound = Outbound(resolve=Names({"agent.test": [["127.0.0.1"]], "public.test": [["93.184.215.14"]]}))
    await outbound.check("a2a", "http://agent.test:9/rpc", named_by="http://agent.test/")
    with pytest.raises(OutboundRefusedError, match="private"):
        await outbound.check("a2a", "http://127.0.0.1:9/rpc", named_by="https://public.test/")


async def test_a_response_that_is_too_long_is_an_error() -> None:
    async def endless(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            await writer.drain()

    async with serving(endless) as server:
        url = f"http://127.0.0.1:{server.port}/"
        async with Outbound().client("a2a", url, limits=ResponseLimits(200_000)) as client:
            with pytest.raises(httpx.ReadError, match="longer than 200000 bytes"):
                await client.get(url)


async def test_a_compressed_response_is_refused() -> None:
    body = gzip.compress(b"0" * 50_000_000)
    async with serving(plain(body, headers="Content-Encoding: gzip\r\n")) as server:
        url = f"http://127.0.0.1:{server.port}/"
        async with Outbound().client("a2a", url) as client:
            with pytest.raises(httpx.ReadError, match="compressed"):
                await client.get(url)
    assert "accept-encoding: identity" in server.requests[0].lower()


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"], ids=["head", "body"])
async def test_a_response_that_is_too_slow_is_an_error(head: bytes) -> None:
    async def drip(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        for _byte in range(100):
            writer.write(b"H")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(drip) as server:
        url = f"http://127.0.0.1:{server.port}/"
        async with Outbound().client("a2a", url, limits=ResponseLimits(10_000, seconds=0.3)) as client:
            with pytest.raises((httpx.ReadError, httpx.ReadTimeout), match=r"longer than 0\.3 s|in time"):
                await client.get(url)


async def test_a_model_at_a_refused_address_is_an_error_that_names_the_setting() -> None:
    names = Names({"model.test": [["10.0.0.1"]]})
    outbound = Outbound(private=NOTHING, resolve=names)
    async with LlmClient("http://model.test/v1", "sk-secret", "m", outbound=outbound) as llm:
        with pytest.raises(LlmError, match="MOORAGE_OUTBOUND_PRIVATE") as raised:
            await llm.ask([{"role": "user", "content": "Hello"}])
    assert len(names.asked) == 1, "a retry cannot help"
    assert "sk-secret" not in str(raised.value)


async def test_a_model_at_the_metadata_address_cannot_be_configured(root: Person) -> None:
    before = (await root.client.get("/api/app-config/llm")).json()["data"]
    body = before | {"base_url": "http://169.254.169.254/v1"}
    response = await root.client.post("/api/app-config/llm", json=body)
    assert (response.status_code, response.json()["data"]["error"]) == (400, "outbound_refused")
    assert (await root.client.get("/api/app-config/llm")).json()["data"] == before
