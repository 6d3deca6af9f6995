"""What carries a lane's requests, against servers that are a few lines of sockets."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from gatebook.collect.client import Lane, LoopLag
from gatebook.collect.transport import ARRIVED, READ_AHEAD_BYTES, SENT, Transport, certificates
from gatebook.config.profile import Target
from gatebook.errors import BadInput

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Counts connections, and answers every request alike."""

    def __init__(self, reply: bytes, hangs_up: bool = False) -> None:
        self.connections, self.asked = 0, list[bytes]()
        self._reply, self._hangs_up = reply, hangs_up

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            while head := (await reader.read(1 << 16)):
                self.asked.append(head)
                writer.write(self._reply)
                if self._hangs_up:
                    break


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@asynccontextmanager
async def client(keep_s: float = 4.0) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=Transport(certificates(None), 5.0, keep_s), trust_env=False, timeout=None
    ) as made:
        yield made


def run(what: Awaitable[None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(60):
            await what

    asyncio.run(within())


def test_a_connection_is_kept_for_the_next_request_and_a_request_is_one_write() -> None:
    async def two() -> None:
        server = Server(OK)
        async with serving(server) as url, client() as asks:
            for _ in range(2):
                assert (await asks.post(url, content=b"{}")).text == "ok"
        assert server.connections == 1 and [a.endswith(b"\r\n\r\n{}") for a in server.asked] == [True, True]

    run(two())


@pytest.mark.parametrize(
    ("server", "keep_s"),
    [(Server(OK, hangs_up=True), 4.0), (Server(OK + b"HTTP/1.1 408 Request Timeout\r\n\r\n"), 4.0), (Server(OK), 0.0)],
    ids=["hangs up", "says more than it was asked", "kept too long"],
)
def test_a_connection_that_cannot_be_used_any_more_is_not(server: Server, keep_s: float) -> None:
    async def three() -> None:
        async with serving(server) as url, client(keep_s) as asks:
            for _ in range(3):
                assert (await asks.get(url)).text == "ok"
                await asyncio.sleep(0.05)
        assert server.connections == 3

    run(three())


def test_two_requests_at_once_have_a_connection_each() -> None:
    async def both() -> None:
        server = Server(OK)
        async with serving(server) as url, client() as asks:
            found = await asyncio.gather(*(asks.get(url) for _ in range(2)))
        assert [one.text for one in found] == ["ok", "ok"] and server.connections == 2

    run(both())


def test_what_comes_before_the_reply_is_passed_over() -> None:
    async def hinted() -> None:
        async with serving(Server(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)) as url, client() as asks:
            assert (await asks.get(url)).status_code == 200

    run(hinted())


def test_a_reply_that_is_longer_than_what_is_read_ahead_is_whole() -> None:
    size = 3 * READ_AHEAD_BYTES
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size

    async def slowly() -> None:
        async with serving(Server(reply)) as url, client() as asks, asks.stream("GET", url) as response:
            await asyncio.sleep(0.2)
            assert sum([len(piece) async for piece in response.aiter_raw()]) == size

    run(slowly())


def test_bytes_have_the_time_of_their_arrival_and_a_request_that_of_its_leaving() -> None:
    sent = list[int]()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 16)
        writer.write(OK[:-2])
        for byte in (b"o", b"k"):
            await asyncio.sleep(0.2)
            writer.write(byte)
        writer.close()

    async def timed() -> None:
        extensions = {SENT: sent.append}
        async with serving(late) as url, client() as asks, asks.stream("GET", url, extensions=extensions) as response:
            at = [response.extensions[ARRIVED]()]
            await asyncio.sleep(0.6)  # both have come long before anybody reads them
            at += [response.extensions[ARRIVED]() async for _ in response.aiter_raw()]
        assert sent[0] <= at[0] < at[1] < at[2]
        assert at[2] - at[1] > 100e6, "not the time when they were read"

    run(timed())


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        (b"", httpx.RemoteProtocolError),
        (b"SSH-2.0-OpenSSH_9.2\r\n", httpx.RemoteProtocolError),
        (OK[:-1], httpx.RemoteProtocolError),
    ],
    ids=["hangs up", "no HTTP", "hangs up in the middle"],
)
def test_what_is_no_reply_is_an_error_of_httpx(reply: bytes, what: type[Exception]) -> None:
    async def broken() -> None:
        async with serving(Server(reply, hangs_up=True)) as url, client() as asks:
            with pytest.raises(what):
                await asks.get(url)

    run(broken())


def test_nobody_there_is_said_by_its_name() -> None:
    async def refused() -> None:
        async with serving(Server(OK)) as url:
            pass
        async with client() as asks:
            with pytest.raises(httpx.ConnectError, match=r"^Connection refused$"):
                await asks.get(url)
            with pytest.raises(httpx.ConnectError, match="(?i)name|resolution"):
                await asks.get("http://no-such-host.invalid")
            with pytest.raises(httpx.ConnectError):
                await asks.get(f"http://{'a' * 70}.invalid")
            with pytest.raises(httpx.UnsupportedProtocol):
                await asks.get("ftp://127.0.0.1/")

    run(refused())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with a key and its own certificate for 127.0.0.1."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "g")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + made.public_bytes(pem))
    return file


def test_a_certificate_is_checked_by_the_profile_s_bundle(certificate: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)

    async def asked() -> None:
        server = Server(OK)
        async with serving(server, tls) as url:
            for bundle, fault in ((str(certificate), None), (None, "connect")):
                async with Lane(Target(model="m", ca_bundle=bundle), f"{url}/v1", LoopLag()) as lane:
                    done = await lane.ask(kind="ask", key="k", body=None, path="models", deadline_s=20, retries=0)
                assert done.fault == fault, done
        assert "CERTIFICATE_VERIFY_FAILED" in done.detail and len(server.asked) == 1

    run(asked())


def test_a_bundle_that_is_none_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for file in ("ca.pem", "missing.pem"):
        with pytest.raises(BadInput, match=r"target\.ca_bundle has value .*; name a PEM file"):
            certificates(str(tmp_path / file))
