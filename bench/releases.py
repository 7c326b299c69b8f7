"""A server that serves releases of an app, and clients that watch what becomes of it."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.servers import Running, Server, running
from tests.e2e.clients import Clients, Crowd, Report
from tests.e2e.delay import delayed
from tests.e2e.releases import Releases


@dataclass(slots=True)
class Watched:
    """Clients that ask while a server is done something to."""

    clients: Clients
    reports: list[Report] = field(default_factory=list)
    """All that was seen, in order."""

    def look(self, seconds: float) -> Report:
        """Return what the clients see of the next so many seconds."""
        time.sleep(seconds)
        report = self.clients.cut()
        self.reports.append(report)
        return report


@dataclass(frozen=True, slots=True)
class Site:
    """A server and the releases that it serves."""

    server: Running
    releases: Releases

    @contextlib.contextmanager
    def watched(self, crowd: Crowd | None = None) -> Iterator[Watched]:
        """Have clients ask while the block runs, over a line of 20 ms there and back."""
        # The same dice for all servers.
        with delayed(self.server.port) as far, Clients(far, crowd, seed="bench") as clients:
            yield Watched(clients)


@contextlib.contextmanager
def deployed(server: Server, workers: int) -> Iterator[Site]:
    """Run a server with release 1, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="drumd-bench-") as directory:
        releases = Releases(Path(directory) / "releases")
        releases.deploy("1")
        with running((server,), workers=workers, directory=releases.current) as (started,):
            yield Site(started, releases)
