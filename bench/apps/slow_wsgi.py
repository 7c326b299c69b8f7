"""The tiny WSGI app behind an import of half a second, as of an app with a few large libraries."""

import time

from bench.apps.tiny_wsgi import app

__all__ = ["app"]

time.sleep(0.5)  # idle, not busy: so the machine's other work does not stretch it
