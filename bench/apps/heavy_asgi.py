"""The tiny ASGI app behind an import of 2 s, as of an app that loads a model."""

import time

from bench.apps.tiny_asgi import app

__all__ = ["app"]

time.sleep(2.0)  # idle, not busy: so the machine's other work does not stretch it
