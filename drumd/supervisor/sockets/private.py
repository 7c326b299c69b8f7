"""Private connections: to one process, through a listener that nobody else can reach."""

import socket
from contextlib import suppress
from pathlib import Path


def private_connection(directory: Path, name: str) -> tuple[socket.socket, socket.socket]:
    """Return a listener at which one connection waits, and that connection's other end.

    Its file is `name` in `directory`, which only this user may enter, and is gone again when this
    returns: no second client ever finds it. Raise OSError.
    """
    path = directory / name
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(1)
        client.connect(str(path))  # a Unix socket's queue has room: it does not wait
    except OSError:
        listener.close()
        client.close()
        raise
    finally:
        with suppress(OSError):
            path.unlink()
    return listener, client
