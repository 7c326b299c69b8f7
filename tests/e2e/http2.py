"""One HTTP/2 connection of a client over TLS: asks, and knows what a GOAWAY leaves unanswered."""

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from typing import Self

import h2.connection
import h2.events
from h2.errors import ErrorCodes

from tests.waiting import CAP

HOST = "127.0.0.1"


class Unanswered(Exception):  # noqa: N818 - what became of a request
    """A request that got no whole answer; `safe`: the server said that it reached nobody."""

    def __init__(self, why: str, *, safe: bool) -> None:
        super().__init__(why)
        self.safe = safe


@dataclass(slots=True)
class Stream:
    """One request and what came for it so far."""

    done: asyncio.Future[str]
    body: bytes = b""


class Connection:
    """An HTTP/2 connection; requests may go side by side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h2 = h2.connection.H2Connection()
        self._h2.initiate_connection()
        self._streams: dict[int, Stream] = {}
        self.last_served: int | None = None
        """The stream that the server's GOAWAY names; None as long as there was none."""
        self.over = asyncio.Event()
        """Set once it takes no more requests: by a GOAWAY or the connection's end."""
        self._flush()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, port: int, certificate: str) -> Self:
        """Connect; raise `OSError`."""
        context = ssl.create_default_context(cafile=certificate)
        context.set_alpn_protocols(["h2"])
        reader, writer = await asyncio.open_connection(
            HOST, port, ssl=context, server_hostname="localhost"
        )
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        return cls(reader, writer)

    async def ask(self, path: str) -> str:
        """Ask; return the answer's body, or raise `Unanswered`."""
        if self.over.is_set():
            raise Unanswered("the connection is over", safe=True)
        number = self._h2.get_next_available_stream_id()
        headers = {":method": "GET", ":path": path, ":scheme": "https", ":authority": "localhost"}
        self._h2.send_headers(number, list(headers.items()), end_stream=True)
        stream = self._streams[number] = Stream(asyncio.get_running_loop().create_future())
        self._flush()
        async with asyncio.timeout(CAP):
            return await stream.done

    async def close(self) -> None:
        """Close the connection."""
        self._reading.cancel()
        self._writer.transport.abort()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading

    async def _read(self) -> None:
        with contextlib.suppress(OSError):  # a reset is an end, too
            while data := await self._reader.read(65_536):
                # One by one: h2 refuses all that follows a GOAWAY in the same call.
                for event in self._h2.receive_data(data):
                    self._take(event)
                self._flush()
        self.over.set()
        for number in list(self._streams):
            safe = self.last_served is not None and number > self.last_served
            self._fail(number, "the connection ended", safe=safe)

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            assert not event.error_code, event
            self.last_served = event.last_stream_id
            self.over.set()
        elif isinstance(event, h2.events.DataReceived):
            assert event.stream_id is not None
            self._streams[event.stream_id].body += event.data or b""
        elif isinstance(event, h2.events.StreamEnded):
            assert event.stream_id is not None
            stream = self._streams.pop(event.stream_id)
            stream.done.set_result(stream.body.decode())
        elif isinstance(event, h2.events.StreamReset):
            assert event.stream_id is not None
            refused = event.error_code == ErrorCodes.REFUSED_STREAM  # RFC 9113, §8.7
            self._fail(event.stream_id, f"reset with {event.error_code}", safe=refused)

    def _fail(self, number: int, why: str, *, safe: bool) -> None:
        self._streams.pop(number).done.set_exception(Unanswered(why, safe=safe))

    def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())
