"""gunicorn's asgi protocol under drumd: instruments, drains, and HTTP/1 without a task between.

Written against gunicorn 27.0.1, `gunicorn/asgi/protocol.py`. There a connection has a task of its
own that waits for each request, starts a second task for the app's call, waits for the answer, and
arms a timer until the next request. Here the parser's callbacks start the call, the last bytes of
its answer make way for the next request, and the worker's heartbeat looks for connections that
have been idle for too long. The connection's task is left with what is rare: upgrades and the end.
What a request costs less by that pays for the instruments, and for more.
"""

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any

from gunicorn.asgi.protocol import _MAX_FINISHING_APP_CALLS, ASGIProtocol

from drumd.wire.handover import Note
from drumd.workers.asgi_meter import MeteredApp

if TYPE_CHECKING:
    from drumd.workers.gunicorn_asgi import Asgi

SERVICE_RESTART = 1012
"""Close code of a websocket whose server restarts (IANA's WebSocket Close Code registry)."""

# By name: super() costs more for what is called with each request (until CPython 3.12).
_gunicorns_data_received = ASGIProtocol.data_received
_gunicorns_send_response_start = ASGIProtocol._send_response_start  # noqa: SLF001 - our base class


class Protocol(ASGIProtocol):  # type: ignore[misc]  # untyped gunicorn
    """One connection, known to its worker while it is open."""

    worker: "Asgi"
    _current_request: Any
    _body_receiver: Any
    _will_close: Any
    app: Any

    _call: asyncio.Task[bool] | None = None
    """The app's call for the request that is being answered."""
    _ticket = 0
    """The meter's ticket of that request; 0 once it was counted."""
    _status: int | None = None
    """The status of its answer, or of the last one; None until the head is written."""
    _heard = False
    """Whether anything was received since the last request was done with."""
    _idle_since = 0.0
    """When it began to wait for one more request; 0 while it does not."""
    _h2_conn: Any = None
    _h2_tasks: set[asyncio.Task[None]]
    """The streams of an HTTP/2 connection that are being answered."""
    _client: Any = None
    """The client's address, as told by the PROXY protocol if that is on."""

    def __init__(self, worker: "Asgi", inherited: Note | None = None) -> None:
        super().__init__(worker)
        self._inherited = inherited
        """What a leaver said of the connection, if it was taken over."""

    def connection_made(self, transport: Any) -> None:
        """Note the connection."""
        self.worker.protocols.add(self)
        self._summons: asyncio.Future[Any] = self.worker.loop.create_future()
        self._made = monotonic()
        super().connection_made(transport)
        if self.worker.draining:
            self.drain()
        if self._inherited is not None:
            self._go_on(self._inherited)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.worker.protocols.discard(self)
        super().connection_lost(exc)
        self._summon(None)

    def data_received(self, data: bytes) -> None:
        """Note that something came, and parse it."""
        self._heard = True
        _gunicorns_data_received(self, data)

    # --- what the worker asks ---------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Return whether it only waits for an HTTP/1 request, of which no byte has come yet."""
        # A call of the app may still run after its answer: background tasks.
        return self._resting and not self._finishing_calls

    @property
    def _resting(self) -> bool:
        return self._awaiting_request and not self._heard and not self._closed

    def close_if_idle(self) -> None:
        """Close the connection, if it only waits for a request."""
        if self.idle:
            self._keepalive_timeout()
        elif self._h2_conn is not None and not (self._h2_conn.is_closed or self._h2_tasks):
            self._closing_task = self.worker.loop.create_task(_say_goaway(self._h2_conn))

    def close_if_expired(self, now: float) -> None:
        """Close the connection, if its client took longer than keep-alive allows for a request."""
        if self._idle_since and now - self._idle_since >= self._keepalive:
            self._keepalive_timeout()

    def drain(self) -> None:
        """Let each answer that begins while there is no heir be the connection's last.

        Begin to close a websocket.
        """
        # gunicorn asks when the head is written, and often again at the end. What it is told must
        # not change between: a client that was promised keep-alive may have asked again.
        begun = self._call is not None and self._status is not None
        promised = self._current_request if begun else None
        last = None
        will_close = self._will_close

        def will_close_now(request: Any, response_requires_close: Any) -> bool:
            nonlocal promised, last
            if request is not promised and request is not last:
                if self.worker.heirs:
                    promised = request
                else:
                    last = request
            return request is last or will_close(request, response_requires_close)

        # Not by an override: it would be asked for each request, all the time.
        self._will_close = will_close_now
        if self._websocket is not None and self._websocket.accepted:
            closing = self._websocket._send_close(SERVICE_RESTART, "restart")  # noqa: SLF001 - no public way
            self._closing_task = self.worker.loop.create_task(closing)

    # --- handover ---------------------------------------------------------------------------------

    def hand_over_if_idle(self) -> None:
        """Give the connection to an heir, if it only waits for a request, and one has room."""
        transport, heirs = self.transport, self.worker.heirs
        if not self.idle or not heirs.have_room:
            self.stay()
        elif not transport.get_write_buffer_size():  # else at the next look
            sock = transport.get_extra_info("socket")
            if heirs.give(sock.fileno(), self._farewell()):
                self._closed = True  # nobody says goodbye to the client
                transport.abort()  # closes our fd; the connection lives on in the heir's
            else:
                self.stay()

    def stay(self) -> None:
        """Read the next request here, if it was left to an heir."""
        if self._resting:
            self._resume_reading()

    def _farewell(self) -> Note:
        proxy = None if self._inherited is None else self._inherited.proxy
        # Only the parser that gunicorn takes where the PROXY protocol is on knows of it.
        proxy = proxy or getattr(self._callback_parser, "proxy_protocol_info", None)
        since = self._idle_since or self._made
        return Note(idle_since=since, new=not self._idle_since, proxy=proxy)

    def _go_on(self, note: Note) -> None:
        """Go on where a leaver stopped."""
        if note.proxy:
            address = (note.proxy["client_addr"], note.proxy["client_port"])
            if None not in address:  # a proxy's own connection has none
                self._client = address
        if note.new:
            self._made = note.idle_since
        else:
            self._idle_since = note.idle_since
            self._callback_parser.reset()  # no PROXY header comes any more

    # --- HTTP/1: from request to request ----------------------------------------------------------

    def _start_http1(self, buffered: bytes = b"") -> None:
        name = self.transport.get_extra_info("sockname")
        # gunicorn takes the first two characters of a Unix socket's path for a host and a port.
        self._sockname = (name, None) if name and isinstance(name, str) else name
        self._peername = self.transport.get_extra_info("peername")
        self._completion = _Completion(self)
        self._awaiting_request = True
        super()._start_http1()
        self._request_ready = _RequestReady(self)
        if buffered:
            self._feed_callback_parser(buffered)

    def proceed(self) -> None:
        """Serve the request whose head is complete; see to the connection's end if it is due."""
        request = self._current_request
        if self._closed or request is None:
            self._summon(None)
            return
        self._idle_since = 0.0
        if self._h2c_upgrade_settings is not None or (
            request.may_upgrade() and self._is_websocket_upgrade(request)
        ):
            self._awaiting_request = False
            self._summon(request)
            return
        calls = self._finishing_calls
        if len(calls) >= _MAX_FINISHING_APP_CALLS:
            return  # until one of them ends
        self._awaiting_request = False
        worker = self.worker
        self._status = None
        self._ticket = worker.meter.begin()
        self._call = call = worker.loop.create_task(
            self._handle_http_request(
                request, self._sockname, self._client or self._client_address(), self._completion
            )
        )
        calls[call] = self._body_receiver
        call.add_done_callback(self._call_ended)

    def answered(self, keepalive: bool) -> None:  # noqa: FBT001 - gunicorn's signature
        """Count the request, whose answer is written, and go on to the next one if that is safe."""
        # As `_count` does: a call less for each request.
        self.worker.meter.end(self._ticket, self._status)
        self._ticket = 0
        # What must wait for the call's end: a hook that may change the outcome, and a body that the
        # app has not taken yet, which counts for the backpressure.
        receiver = self._body_receiver
        if (
            keepalive
            and self._post_request is None
            and receiver._complete  # noqa: SLF001 - gunicorn's protocol asks the same
            and not receiver.buffered
        ):
            self._finish_request(keepalive=True)

    def _call_ended(self, call: asyncio.Task[bool]) -> None:
        self._finishing_calls.pop(call, None)
        if call is self._call:
            self._count(None)  # if it was not answered
            self._finish_request(keepalive=self._outcome(call))
        if not self._awaiting_request:
            return
        if self._current_request is not None:
            self.proceed()  # it was held back while there were too many calls
        elif not self._finishing_calls and not self._closed:
            self._idle_since = monotonic()
            if self.worker.draining:
                self.worker.look_again()

    def _outcome(self, call: asyncio.Task[bool]) -> bool:
        if call.cancelled():
            return False
        if error := call.exception():
            self.log.error("Error handling connection: %s", error, exc_info=error)
            return False
        return call.result()

    def _finish_request(self, *, keepalive: bool) -> None:
        self._call = None
        worker = self.worker
        worker.nr += 1
        if worker.nr >= worker.max_requests:
            self.log.info("Autorestarting worker after current request.")
            worker.alive = False
        parser = self._callback_parser
        if (
            not keepalive
            or not worker.alive
            or not self._keepalive
            or self._closed
            # The rest of a body would be taken for the next request (smuggling).
            or not self._body_receiver._complete  # noqa: SLF001 - gunicorn's protocol asks the same
            or getattr(parser, "remaining_truncated", False)
        ):
            self._summon(None)
            return
        if self._reading_paused:
            self._resume_reading()
        pipelined = parser.remaining()
        parser.reset()
        self._current_request = None
        self._body_receiver = None
        self._awaiting_request = True
        self._heard = bool(pipelined)
        if pipelined:
            self._feed_callback_parser(pipelined)
        elif worker.draining and worker.heirs.have_room:
            # The next request is for an heir. Were it read here, then a client that asks without a
            # pause would never be found at rest. (If the call goes on for long, the worker's next
            # look at all connections lets it be read.)
            self._pause_reading()

    def _client_address(self) -> Any:
        # The PROXY protocol's header opens a connection, so one look does for all of its requests.
        if self._client is None:
            self._client = self._effective_peername(self._peername)
        return self._client

    # --- the connection's task --------------------------------------------------------------------

    def _summon(self, request: Any) -> None:
        """Have the connection's task serve the upgrade that `request` asks for, or end it: None."""
        if not self._summons.done():
            self._summons.set_result(request)

    async def _handle_connection(self) -> None:
        if self._uses_uwsgi:
            self.app = MeteredApp(self.app, self.worker.meter)
            await super()._handle_connection()
            return
        cancelled = False
        try:
            request = await self._summons
            if self._h2c_upgrade_settings is not None:
                await self._handle_h2c_upgrade(request)
            elif request is not None:
                await self._handle_websocket(request, self._sockname, self._client_address())
        except asyncio.CancelledError:
            cancelled = True
        except Exception:
            self.log.exception("Error handling connection")
        finally:
            await self._finish_app_calls(cancelled)
            self._close_transport()

    def _arm_keepalive_timer(self) -> None:
        """Arm none: see `close_if_expired`."""

    def _handle_http2_connection(self, transport: Any, ssl_object: Any, upgrade: Any = None) -> Any:
        self.app = MeteredApp(self.app, self.worker.meter)  # one app call for each stream
        return super()._handle_http2_connection(transport, ssl_object, upgrade)

    async def _serve_http2_request(self, req: Any, h2_conn: Any, *addresses: Any) -> None:
        """Serve one stream; in a drain the connection ends when none is left."""
        await super()._serve_http2_request(req, h2_conn, *addresses)
        if self.worker.draining and len(self._h2_tasks) == 1:  # this one
            await _say_goaway(h2_conn)

    # --- answers ----------------------------------------------------------------------------------

    def _count(self, status: int | None) -> None:
        """Count the request that is being answered as ended, the first time."""
        if self._ticket:
            self.worker.meter.end(self._ticket, status)
            self._ticket = 0

    def _send_response_start(
        self,
        status: int,
        headers: Any,
        request: Any,
        close: bool = False,  # noqa: FBT001, FBT002 - gunicorn's signature
    ) -> None:
        self._status = status
        _gunicorns_send_response_start(self, status, headers, request, close)

    def _send_error_response(self, status: int, message: str, extra_headers: Any = ()) -> None:
        # Such an answer says that the connection ends. gunicorn forgets it after a call that said
        # nothing, and would go on.
        self._keepalive = 0
        if self._ticket:
            # A call whose client has gone may say nothing, and gets its 500 all the same.
            self._count(None if self._closed else status)
        elif status != 500:  # noqa: PLR2004 - the status' number is its best name
            # It never reached the app. (A 500 where no call is ours is counted by `MeteredApp`.)
            meter = self.worker.meter
            meter.end(meter.begin(), status)
        super()._send_error_response(status, message, extra_headers)


async def _say_goaway(h2_conn: Any) -> None:
    """End an HTTP/2 connection of which all streams are answered.

    gunicorn 27.0.1 looks once a second whether it is to, refuses what comes meanwhile, and names
    no stream. What comes after the one that is named here reached nobody (RFC 9113, §6.8).
    """
    await h2_conn.close(last_stream_id=h2_conn.h2_conn.highest_inbound_stream_id)


class _RequestReady:
    """Stands in for the event by which gunicorn wakes the connection's task."""

    __slots__ = ("set",)

    def __init__(self, protocol: Protocol) -> None:
        self.set = protocol.proceed


class _Completion:
    """Stands in for the future that gunicorn completes with each answer, to wake that task."""

    __slots__ = ("set_result",)

    def __init__(self, protocol: Protocol) -> None:
        self.set_result = protocol.answered

    def done(self) -> bool:
        """Return False: an answer is completed once."""
        return False
