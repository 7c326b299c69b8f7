import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from drumd.wire.messages import Ready
from tests.integration.http_clients import Connection
from tests.integration.template_host import TemplateHost, kill
from tests.integration.test_worker_metrics import scrape
from tests.integration.worker_host import HostedWorker

COUNTED = """
from drumd import forking
from metrics_app import *
forking.before_fork(HITS.inc)
HITS.inc(100)
BUSY.set(7)
"""


@pytest.fixture
def host() -> Iterator[TemplateHost]:
    with TemplateHost() as host:
        yield host


@pytest.fixture
def template(host: TemplateHost, tmp_path: Path) -> HostedWorker:
    """Return the template of an app that counts at its import and before each fork."""
    Path(host.path("counted.py")).write_text(COUNTED)
    apps = str(Path(__file__).parents[1] / "apps")
    return host.template(
        "counted:app",
        app_dir=host.directory.name,
        env={"PYTHONPATH": f"{Path(__file__).parents[2]}:{apps}"},
        metrics_dir=str(tmp_path),
    )


def hit(host: TemplateHost, template: HostedWorker, *paths: str, lease: int) -> HostedWorker:
    """Fork a worker as `lease`, ask it for `paths`, and return it."""
    listener = host.listen()
    worker = host.fork(template, lease=lease)
    worker.expect(Ready)
    worker.accept(listener)
    for path in paths:
        with Connection(listener) as connection:
            assert connection.ask(path).status == 200
    return worker


def databases(directory: Path) -> set[str]:
    return {path.name for path in directory.glob("*.db")}


def test_metrics_of_the_template_count_in_its_workers_leases(
    host: TemplateHost, template: HostedWorker, tmp_path: Path
) -> None:
    """Metrics that were made at import are each worker's own; what the template counts is lost."""
    assert databases(tmp_path) == set()
    hit(host, template, "/", "/", lease=1)
    hit(host, template, "/", lease=2)
    assert scrape(tmp_path)["hits_total"] == 3
    assert scrape(tmp_path)["busy"] == 2
    names = {f"{kind}_L{lease}.db" for kind in ("counter", "gauge_livesum") for lease in (1, 2)}
    assert databases(tmp_path) == names


def test_a_worker_that_has_counted_nothing_shows_zero(
    host: TemplateHost, template: HostedWorker, tmp_path: Path
) -> None:
    """A scrape sees the metrics of a forked worker before it uses them."""
    hit(host, template, lease=1)
    assert scrape(tmp_path)["hits_total"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_reused_lease_goes_on_counting_from_a_fork(
    host: TemplateHost, template: HostedWorker, tmp_path: Path, number: int
) -> None:
    """However a lease's last worker ended, forked or not, its counters go on."""
    for total in (1, 2, 3):
        worker = hit(host, template, "/", lease=1)
        worker.signal(number)
        worker.wait()
        assert scrape(tmp_path)["hits_total"] == total
    assert len(databases(tmp_path)) == 2


def test_children_of_a_forked_worker_write_files_of_their_own(
    host: TemplateHost, template: HostedWorker, tmp_path: Path
) -> None:
    """They carry the worker's lease and their pid, as those of any worker."""
    hit(host, template, "/child", "/child", "/", lease=3)
    assert scrape(tmp_path)["hits_total"] == 5
    assert scrape(tmp_path)["work_total"] == 20
    assert len([name for name in databases(tmp_path) if name.startswith("counter_L3-")]) == 2


def test_a_template_replaces_what_a_killed_one_left(
    host: TemplateHost, template: HostedWorker, tmp_path: Path
) -> None:
    """Its own files are in no scrape, and broken ones of an earlier template no obstacle."""
    aside = tmp_path / "template"
    assert databases(aside)
    kill(template)
    for path in aside.iterdir():
        path.write_bytes(b"\xff" * 100)
    again = host.template("metrics_app:app", metrics_dir=str(tmp_path))
    hit(host, again, "/", lease=1)
    assert scrape(tmp_path)["hits_total"] == 1
