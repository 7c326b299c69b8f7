import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from tests.integration.http_clients import Connection
from tests.integration.worker_host import HostedWorker, WorkerHost

APP = "metrics_app:app"


@pytest.fixture
def host() -> Iterator[WorkerHost]:
    with WorkerHost() as host:
        yield host


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


def hit(host: WorkerHost, directory: Path, *paths: str, lease: int = 3) -> HostedWorker:
    """Serve the app as `lease`, ask for `paths`, and return the worker."""
    listener = host.listen()
    worker = host.serve(APP, listener, lease=lease, metrics_dir=str(directory))
    for path in paths:
        with Connection(listener) as connection:
            assert connection.ask(path).status == 200
    return worker


def scrape(directory: Path) -> dict[str, float]:
    """Return the values of all samples, by name, as a scrape aggregates them."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(directory))  # type: ignore[no-untyped-call]
    return {sample.name: sample.value for metric in registry.collect() for sample in metric.samples}


def test_files_are_named_by_lease(host: WorkerHost, directory: Path) -> None:
    """A worker's values are in files with its lease in their names, not its pid."""
    hit(host, directory, "/", "/")
    names = {each.name for each in directory.iterdir()}
    assert names == {"counter_L3.db", "gauge_livesum_L3.db"}
    assert scrape(directory)["hits_total"] == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_reused_lease_goes_on_counting(host: WorkerHost, directory: Path, number: int) -> None:
    """However its last worker ended, a lease's counters go on in the same files."""
    for total in (1, 2, 3):
        worker = hit(host, directory, "/")
        worker.signal(number)
        worker.wait()
        assert scrape(directory)["hits_total"] == total
    assert len(list(directory.iterdir())) == 2


def test_leases_add_up(host: WorkerHost, directory: Path) -> None:
    """A scrape sees the sum over the workers."""
    hit(host, directory, "/", "/", lease=1)
    hit(host, directory, "/", lease=2)
    assert scrape(directory)["hits_total"] == 3


def test_forked_children_write_files_of_their_own(host: WorkerHost, directory: Path) -> None:
    """A child that the app forks with values open counts beside its parent, not over it."""
    hit(host, directory, "/child", "/child", "/")
    assert scrape(directory)["hits_total"] == 5
    assert scrape(directory)["work_total"] == 20
    children = [each.name for each in directory.iterdir() if each.name.startswith("counter_L3-")]
    assert len(children) == 2


def test_an_app_without_metrics_does_not_import_the_library(
    host: WorkerHost, directory: Path
) -> None:
    """The hook costs an app that has no metrics nothing."""
    Path(host.path("written.py")).write_text(
        "import atexit, sys\n"
        "atexit.register(lambda: print('imported:', 'prometheus_client' in sys.modules))\n"
        "async def app(scope, receive, send): assert scope['type'] == 'http'\n"
    )
    worker = host.serve(
        "written:app", app_dir=host.directory.name, lease=0, metrics_dir=str(directory)
    )
    worker.drain()
    assert worker.wait() == 0
    assert "imported: False" in worker.finished_output()


def test_without_a_directory_metrics_stay_in_the_process(host: WorkerHost) -> None:
    """An app whose metrics drumd does not collect maps no file for them."""
    listener = host.listen()
    worker = host.serve(APP, listener)
    with Connection(listener) as connection:
        assert connection.ask().status == 200
    assert ".db" not in Path(f"/proc/{worker.pid}/maps").read_text()
