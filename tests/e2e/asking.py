"""One HTTP/1.1 connection of a strict client: asks, checks the answer, tells why one failed."""

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from typing import Self

HOST = "127.0.0.1"


class Failed(Exception):  # noqa: N818 - what became of a request
    """A request that got no whole and right answer; its text is why, in a few fixed words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request. The app at `path` answers with the path, and with the body it was sent."""

    path: str
    closes: bool = False
    """Say `Connection: close`."""
    body: bytes = b""
    gap: float = 0.0
    """Seconds between two parts, somewhere in the middle; 0: all at once."""

    def encode(self) -> bytes:
        """Return it as it is sent."""
        lines = [f"{'POST' if self.body else 'GET'} {self.path} HTTP/1.1", "Host: drumd.test"]
        if self.closes:
            lines.append("Connection: close")
        if self.body:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True, slots=True)
class Told:
    """What an answer says, besides its content."""

    served_by: str
    closes: bool


class Connection:
    """A connection; requests go one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.answers = 0
        self.served_by = ""
        """Who answered last."""

    @classmethod
    async def open(cls, port: int, tls: ssl.SSLContext | None = None) -> Self:
        """Connect, or raise `Failed`. With TLS, the server is to be `localhost`."""
        name = "localhost" if tls else None
        try:
            return cls(*await asyncio.open_connection(HOST, port, ssl=tls, server_hostname=name))
        except ConnectionRefusedError:
            raise Failed("refused") from None
        except OSError as error:
            raise Failed(f"no connection: {error.strerror}") from None

    async def ask(self, question: Question) -> Told:
        """Send a request and check its answer. Raises `Failed`."""
        begun = False
        try:
            await self._send(question)
            line = await self._reader.readline()
            begun = bool(line)
            return await self._answer(line, question)
        except asyncio.IncompleteReadError:
            raise Failed("closed mid-answer" if begun else "closed before an answer") from None
        except ConnectionError:
            raise Failed("reset mid-answer" if begun else "reset before an answer") from None
        except ssl.SSLError as error:
            raise Failed(f"TLS: {error.reason}") from None
        except (ValueError, asyncio.LimitOverrunError):
            raise Failed("not HTTP") from None

    async def _send(self, question: Question) -> None:
        sent = question.encode()
        if question.gap:
            middle = len(sent) * 2 // 3  # the length is random enough; bodies are cut in two, too
            self._writer.write(sent[:middle])
            await asyncio.sleep(question.gap)
            sent = sent[middle:]
        self._writer.write(sent)
        await self._writer.drain()

    async def _answer(self, line: bytes, question: Question) -> Told:
        if not line.endswith(b"\n"):
            raise asyncio.IncompleteReadError(line, None)
        status = int(line.split(maxsplit=2)[1])
        headers = await self._headers()
        body = await self._body(headers)
        if status != 200:
            raise Failed(f"status {status}")
        if body != question.path.encode() + question.body:
            raise Failed("wrong body")
        self.answers += 1
        closes = headers.get("connection", "").lower() == "close" or line.startswith(b"HTTP/1.0")
        return Told(headers.get("x-served-by", "? 0"), closes)

    async def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        while True:
            line = await self._reader.readline()
            if not line.endswith(b"\n"):
                raise asyncio.IncompleteReadError(line, None)
            if line == b"\r\n":
                return headers
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()

    async def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return await self._reader.readexactly(int(headers["content-length"]))
        body = b""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)
        return body

    async def ends_within(self, seconds: float, stop: asyncio.Event) -> bool:
        """Pause, or less when `stop` is set; say whether the server ended the connection."""
        end = asyncio.ensure_future(self._reader.read(1))
        stopped = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait((end, stopped), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return end.done()
        finally:
            for future in (end, stopped):
                future.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError, ssl.SSLError):
                await end

    def close(self) -> None:
        """Close the connection without waiting for it."""
        self._writer.close()
