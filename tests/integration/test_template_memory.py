from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drumd.wire.messages import Ready
from tests.integration.http_clients import Connection
from tests.integration.template_host import TemplateHost
from tests.integration.worker_host import HostedWorker

# 500 MB in large pieces, as a model has them, and some 30 MB of objects that the collector tracks.
MODEL = """
import gc
weights = [b"w" * (5 << 20) for _ in range(100)]
vocabulary = [[str(n)] for n in range(200_000)]
async def app(scope, receive, send):
    assert scope["type"] == "http"
    gc.collect()
    answer = sum(piece[0] for piece in weights)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(answer).encode()})
"""


@pytest.fixture
def host() -> Iterator[TemplateHost]:
    with TemplateHost() as host:
        yield host


def pss(worker: HostedWorker) -> int:
    """Return the proportional set size in kB: pages that n processes share count 1/n each."""
    rollup = Path(f"/proc/{worker.pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


def ask(host: TemplateHost, worker: HostedWorker) -> None:
    listener = host.listen()
    worker.expect(Ready)
    worker.accept(listener)
    with Connection(listener) as connection:
        assert connection.ask().body == b"11900"


def test_four_workers_take_hardly_more_than_one(host: TemplateHost) -> None:
    """4 workers that share a model of 500 MB and have collected garbage: 1.15 times one at most."""
    Path(host.path("model.py")).write_text(MODEL)
    wanted: dict[str, Any] = {"app_dir": host.directory.name, "runtime": "uvicorn"}
    single = host.spawn("model:app", **wanted)
    ask(host, single)
    one = pss(single)
    single.stop()
    single.wait()
    template = host.template("model:app", **wanted)
    workers = [host.fork(template) for _ in range(4)]
    for worker in workers:
        ask(host, worker)
    assert one > 500_000
    assert sum(map(pss, workers)) <= 1.15 * one
    assert sum(map(pss, [template, *workers])) <= 1.15 * one
