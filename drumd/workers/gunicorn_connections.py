"""A gthread worker's connections, and where they wait while they have nothing to say.

gunicorn 27.0.1 hands each request from its main loop to a pool of threads, and its connection back:
a future, a wake-up of another thread and a change of the selector each way, and some changes of the
socket's blocking mode. Here threads take what is next from one epoll themselves, first come first
served, and a connection stays registered with it from its first answer to its end here.
"""

import contextlib
import select
import socket
from time import monotonic
from typing import TYPE_CHECKING, Any

from gunicorn.http.body import LengthReader
from gunicorn.http.parser import RequestParser
from gunicorn.workers.gthread import TConn

from drumd.wire.handover import Note

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_BYTES = 0.1
"""Seconds that a thread waits for a new connection's first bytes, before it leaves it to the epoll.
A client sends them along with its handshake; gunicorn's 5 s lets a few silent ones take all
threads."""
READ_AHEAD = 8192
"""Bytes that are read at most to find out whether a connection speaks, as gunicorn's first step."""

_ONCE = select.EPOLLIN | select.EPOLLONESHOT
_AT_ONCE = _ONCE | select.EPOLLOUT


class Connection(TConn):  # type: ignore[misc]  # untyped gunicorn
    """A client's connection, blocking except where it is only looked at. One thread has it."""

    parser: Any
    data_ready: bool

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any) -> None:
        super().__init__(cfg, sock, client, server)
        self.watched = False
        """The epoll knows it."""
        self.ahead = False
        """A part of its next request was read along with the last one."""
        self.idle_since = 0.0
        """Monotonic seconds, of a connection that waits: its last answer, or that it was silent."""
        self.proxy: Mapping[str, Any] | None = None
        """What a PROXY protocol header said, ahead of the first request."""
        self._encrypted = cfg.is_ssl

    def init(self) -> None:
        """Make the parser, or shake hands and make it then (in a thread)."""
        first = not self.initialized
        super().init()
        if first and type(self.parser) is RequestParser:
            parser = Parser(self.cfg, self.sock, self.client)
            parser.unreader = self.parser.unreader
            self.parser = parser

    def resume(self, note: Note) -> None:
        """Go on where another worker stopped (no TLS, no HTTP/2, so this waits for nothing)."""
        if note.new:
            self.idle_since = monotonic()  # as long as one that was silent from now on
            return
        self.idle_since = note.idle_since
        self.init()
        self.parser.req_count = 1  # a PROXY header comes before the first only
        self.proxy = note.proxy
        self.look_ahead()

    def farewell(self) -> Note:
        """Return what another worker has to know to go on; it waits, and nothing was read ahead."""
        return Note(idle_since=self.idle_since, new=not self.initialized, proxy=self.proxy)

    def carry_proxy(self, req: Any) -> None:
        """Let `req` show what the PROXY header said of the client."""
        # gunicorn 27.0.1: a gthread worker forgets it after the first request; others do not.
        if req.proxy_protocol_info:
            self.proxy = req.proxy_protocol_info
        else:
            req.proxy_protocol_info = self.proxy

    def wait_for_data(self, timeout: float) -> bool:
        """Return whether the client sent something within a short time (in a thread)."""
        if not self.data_ready:
            poller = select.poll()
            poller.register(self.sock, select.POLLIN)
            self.data_ready = bool(poller.poll(1000 * min(timeout, FIRST_BYTES)))
        return self.data_ready

    def look_ahead(self) -> None:
        """Note whether there is more to serve than the epoll could know of (in a thread)."""
        self.ahead = self.initialized and bool(
            self.parser.unreader.buf.getvalue() or (self._encrypted and self.sock.pending())
        )

    def speaks(self) -> bool:
        """Return whether it has something to serve, its end included; never wait (in a thread)."""
        if self.ahead:
            return True
        try:
            if self.initialized and not self._encrypted:
                # What the parser would read first.
                self.parser.unreader.unread(self.sock.recv(READ_AHEAD, socket.MSG_DONTWAIT))
            else:
                # Not the TLS socket's own method: what came may be less than one of its records.
                socket.socket.recv(self.sock, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                self.data_ready = True
        except BlockingIOError:
            return False
        except OSError:
            pass  # it is gone: gunicorn's own reading finds out
        return True


class Parser(RequestParser):  # type: ignore[misc]  # untyped gunicorn
    """gunicorn's parser, quicker where nothing is left of a request's body."""

    def finish_body(self, deadline: float | None = None, max_bytes: int | None = None) -> bool:
        """Discard what the app left unread; return whether that was possible."""
        # gunicorn 27.0.1 sets the socket's timeout twice to find out, and asks twice a request.
        body = self.mesg.body if self.mesg else None
        if (
            body
            and not body.failed
            and type(body.reader) is LengthReader
            and body.reader.length == 0
            and body.buf.tell() == 0
        ):
            return True
        return bool(super().finish_body(deadline, max_bytes))


class Waiting:
    """Listeners, and connections without a request; the threads that have none wait with them.

    The kernel keeps them in the order in which they became readable, gives each to one thread, and
    wakes the thread that began to wait last, so what few threads can do is done by few. (epoll(7):
    EPOLLONESHOT; who is given out tells nothing more until it is put back.)
    """

    def __init__(self) -> None:
        # Who takes a connection out has it: a thread to serve it, or the main loop to close it or
        # to hand it over. To remove from a set is one step for all threads: there is one winner.
        self.kept: set[Connection] = set()
        """Connections that may ask again."""
        self.silent: set[Connection] = set()
        """Connections that have said nothing yet."""
        self._by_fd: dict[int, Connection] = {}
        """All that the epoll knows: an event tells no more than the fd."""
        self._listeners: dict[int, socket.socket] = {}
        self._epoll = select.epoll()
        self._over = False

    def take(self) -> Connection | socket.socket | None:
        """Wait until a listener or a connection is readable, and take it out (in a thread).

        It may have nothing to read all the same, when a fd was closed and used again meanwhile.
        None: it is over.
        """
        while True:
            for fd, _ in self._epoll.poll(maxevents=1):
                if self._over:
                    return None
                conn = self._by_fd.get(fd)
                if conn is not None and self.take_out(conn):
                    return conn
                listener = self._listeners.get(fd)
                if listener is not None:
                    return listener
                # Else a connection that the main loop has taken out.

    def put(self, conn: Connection) -> None:
        """Let a connection wait; raise `OSError` or `ValueError` if it cannot."""
        fd = conn.sock.fileno()
        if not conn.watched:
            # Before anybody else can have it and close it.
            self._epoll.register(fd, select.EPOLLONESHOT)
            self._by_fd[fd] = conn
            conn.watched = True
        (self.kept if conn.initialized else self.silent).add(conn)
        try:
            # What was read ahead waits for its turn like all others, so it must be an event, too.
            self._epoll.modify(fd, _AT_ONCE if conn.ahead else _ONCE)
        except (OSError, ValueError):
            if self.take_out(conn):
                raise
            # Else the main loop took it out just now, and closed it.

    def at_rest(self) -> list[Connection]:
        """Return those that wait just now and have no request begun; threads may take them out."""
        return [conn for conn in (*self.kept, *self.silent) if not conn.ahead]

    def take_idle_since(self, instant: float) -> list[Connection]:
        """Take out the connections that have waited since `instant` (monotonic) or longer."""
        idle = []
        for conn in (*self.kept, *self.silent):
            if conn.idle_since <= instant and self.take_out(conn):
                if conn.idle_since <= instant:
                    idle.append(conn)
                else:  # it was served just before it was taken out, and has new time
                    self.put(conn)
        return idle

    def forget(self, conn: Connection) -> None:
        """Watch a connection no more (main thread, before it is closed).

        Closing alone would not do: the epoll goes on where an heir or a child of the app's has it.
        """
        fd = conn.sock.fileno()
        if conn.watched and fd >= 0:  # else an app closed it, and its place goes to the next one
            conn.watched = False
            self._by_fd.pop(fd, None)
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def take_out(self, conn: Connection) -> bool:
        """Return whether it is the caller's now; false when somebody was quicker."""
        try:
            (self.kept if conn.initialized else self.silent).remove(conn)
        except KeyError:
            return False
        return True

    # --- listeners --------------------------------------------------------------------------------

    def listen(self, listener: socket.socket) -> None:
        """Let a listener wait, too."""
        self._listeners[listener.fileno()] = listener
        self._epoll.register(listener, _ONCE)

    def listen_again(self, listener: socket.socket) -> None:
        """Put a listener back."""
        self._epoll.modify(listener, _ONCE)

    def listen_to_all(self) -> None:
        """Put all listeners back."""
        for listener in self._listeners.values():
            self.listen_again(listener)

    def unlisten(self, listener: socket.socket) -> None:
        """Let a listener go; before it is closed."""
        del self._listeners[listener.fileno()]
        self._epoll.unregister(listener)

    def end(self) -> None:
        """Let each thread go when something would be given to it."""
        self._over = True
