"""What drumd replaces of gunicorn is what its authors have read."""

import hashlib
import inspect

import gunicorn
import pytest
from gunicorn.asgi.protocol import ASGIProtocol

READ_IN = "27.0.1"
"""The version of gunicorn from which drumd/workers/gunicorn_asgi_protocol.py was written."""
REPLACED = {
    "_handle_connection": "9e8aa1729b5ad113",
    "_serve_http_request": "d9f71d2957f5c543",
    "_finishing_call_done": "a3e7bb4fbc6a1fc3",
    "_keepalive_timeout": "7d10f303b0016b88",
    "_start_http1": "72e4489ac806e31a",
}
"""Digests of the methods that it replaces, or that must do what they did."""


@pytest.mark.parametrize("name", REPLACED)
def test_replaced_methods_are_the_ones_that_were_read(name: str) -> None:
    """A gunicorn whose asgi connections work otherwise is noticed: read it, then change both."""
    source = inspect.getsource(getattr(ASGIProtocol, name))
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    assert digest == REPLACED[name], (
        f"gunicorn {gunicorn.__version__} has changed ASGIProtocol.{name} since {READ_IN}"
    )
