"""What Prometheus is told, over the lives and deaths of workers."""

import http.client
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.e2e.daemon import APPS as UNRULY
from tests.e2e.daemon import Daemon, Document, free_port, get
from tests.e2e.load import Load
from tests.e2e.served import Served
from tests.e2e.visitor import Address, in_background
from tests.needs import needs
from tests.waiting import wait_until

Serve = Callable[..., Served]

APPS = str(Path(__file__).parents[1] / "apps")
UVICORN = {"app": "unruly:asgi", "runtime": "uvicorn"}
GTHREAD = {"app": "unruly:wsgi", "runtime": "gunicorn"}
COUNTING = {"app": "metrics_app:app", "app_dir": APPS, "runtime": "uvicorn"}
"""An app with prometheus_client counters and gauges of its own."""

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def page(served: Served) -> str:
    status, text = get("/metrics", over=served.socket)
    assert status == 200
    return text


def value(served: Served, name: str, **labels: str) -> float:
    """Return the sum of all samples of that name that have those labels."""
    return sum(
        number
        for (sample, have), number in served.metrics().items()
        if sample == name and labels.items() <= dict(have).items()
    )


def gauges(served: Served, name: str) -> list[str]:
    return [
        line for line in page(served).splitlines() if line.startswith((f"{name} ", f"{name}{{"))
    ]


def backward(before: Samples, after: Samples) -> list[str]:
    """Return the counters that went back, or that are no longer there."""
    return [
        f"{key}: {number} -> {after.get(key)}"
        for key, number in before.items()
        if after.get(key, -1.0) < number
    ]


# --- what is counted ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pool", [pytest.param(UVICORN, id="uvicorn"), pytest.param(GTHREAD, id="gthread")]
)
def test_requests_are_those_that_the_client_made(serve: Serve, pool: dict[str, Any]) -> None:
    """Requests, durations and those in flight are what a client did, over all workers."""
    served = serve(web={**pool, "workers": 2})
    served.ready()
    for _ in range(25):
        assert served.web.get().status == 200
    with served.web.connect() as visitor:
        for _ in range(15):
            assert visitor.get().status == 200
    wait_until(lambda: value(served, "drumd_requests_total") == 40, what="40 requests")
    assert value(served, "drumd_requests_total", code="2xx", pool="web") == 40
    assert value(served, "drumd_request_duration_seconds_count", pool="web") == 40
    assert value(served, "drumd_request_duration_seconds_bucket", pool="web", le="+Inf") == 40
    assert value(served, "drumd_request_duration_seconds_sum") > 0
    with in_background([(served.web, "/wait/gate")] * 3) as answers:
        wait_until(
            lambda: (
                gauges(served, "drumd_requests_in_flight")
                == ['drumd_requests_in_flight{pool="web"} 3.0']
            ),
            what="3 in flight",
        )
        served.open("gate")
        assert {answer.result().status for answer in answers} == {200}
    wait_until(lambda: value(served, "drumd_requests_total") == 43, what="43 requests")
    wait_until(
        lambda: (
            gauges(served, "drumd_requests_in_flight")
            == ['drumd_requests_in_flight{pool="web"} 0.0']
        ),
        what="none in flight",
    )


def test_ends_and_starts_are_counted_by_cause(serve: Serve) -> None:
    """Each end of a worker is counted by its cause, and each start's duration once."""
    served = serve(web={**UVICORN, "workers": 2})
    pids = served.ready()
    for _ in range(20):
        assert served.web.get().status == 200
    assert value(served, "drumd_worker_start_duration_seconds_count", pool="web") == 2
    os.kill(pids[0], signal.SIGKILL)
    wait_until(lambda: len(set(served.pids()) - {pids[0]}) == 2, what="another worker")
    assert served.daemon.drumctl("restart", "web/1").returncode == 0
    assert value(served, "drumd_worker_exits_total", cause="signalled") == 1
    assert value(served, "drumd_worker_exits_total", cause="operator") == 1
    assert value(served, "drumd_worker_exits_total") == 2
    assert value(served, "drumd_worker_start_duration_seconds_count", pool="web") == 4


def test_no_counter_goes_back_when_workers_die(serve: Serve) -> None:
    """Over kill -9s and a restart under load no counter, the app's included, ever goes back."""
    served = serve(
        web={**COUNTING, "workers": 2, "restart": {"backoff_initial": 0.01, "backoff_max": 0.01}}
    )
    served.ready()
    before, regressions = served.metrics(), []

    def scrape() -> None:
        nonlocal before
        now = served.metrics()
        regressions.extend(backward(before, now))
        before = now

    with Load(served.web, clients=2) as load:
        for _ in range(6):
            victim = wait_until(served.pids, what="a worker")[0]
            os.kill(victim, signal.SIGKILL)
            scrape()
            wait_until(
                lambda victim=victim: victim not in served.pids() and len(served.pids()) == 2,  # type: ignore[misc]
                what="another worker",
            )
            scrape()
            load.wait_more(5)
        assert served.daemon.drumctl("restart", "web").returncode == 0
        scrape()
    assert regressions == []
    answered = len(load.pids)
    # A worker notes a request once its answer is sent; one that is killed in between does not.
    noted = answered - 6 * 2
    wait_until(lambda: value(served, "drumd_requests_total") >= noted, what="all requests")
    # A killed worker may have counted a request whose answer never arrived.
    assert value(served, "hits_total", pool="web") >= answered
    assert value(served, "drumd_requests_total") <= answered + len(load.failures)


# --- the apps' own ------------------------------------------------------------------------------


def test_apps_metrics_are_added_up_over_workers_and_lives(serve: Serve) -> None:
    """The app's counter is the sum over workers that live and those that were killed."""
    served = serve(web={**COUNTING, "workers": 2})
    served.ready()
    for expected in range(1, 4):
        for _ in range(10):
            assert served.web.get().status == 200
        assert value(served, "hits_total", pool="web") == 10 * expected
        victim = served.pids()[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(
            lambda victim=victim: victim not in served.pids() and len(served.pids()) == 2,  # type: ignore[misc]
            what="another worker",
        )
        assert value(served, "hits_total", pool="web") == 10 * expected


def test_gauges_of_dead_workers_vanish(serve: Serve) -> None:
    """A gauge of living workers has no share of one that ended."""
    served = serve(web={**COUNTING, "workers": 1})
    (pid,) = served.ready()
    assert served.web.get().body == str(pid)
    assert gauges(served, "busy") == ['busy{pool="web"} 1.0']
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: served.pids() not in ([], [pid]), what="another worker")
    # Its lease's files are settled beside the start of the next worker.
    wait_until(
        lambda: gauges(served, "busy") in ([], ['busy{pool="web"} 0.0']), what="the gauge gone"
    )


def test_files_are_bounded_over_forty_lives(serve: Serve) -> None:
    """Forty worker lives leave no more metric files than the first few did; the daemon none."""
    served = serve(
        web={**COUNTING, "workers": 4, "restart": {"backoff_initial": 0.01, "backoff_max": 0.01}}
    )
    served.ready()
    (home,) = Path("/dev/shm").glob(f"drumd-metrics-{served.daemon.pid}-*")
    for _ in range(9):
        ask_every_worker(served)
        before = set(served.pids())
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda before=before: len(set(served.pids()) - before) == 4,  # type: ignore[misc]
            what="four others",
            every=0.05,
        )
    hits = ask_every_worker(served)
    assert len({event["pid"] for event in served.events("worker.ready")}) == 40
    kinds = {"counter", "gauge_livesum"}
    files = [path.name for path in home.rglob("*.db")]
    assert {name.rpartition("_")[0] for name in files} == kinds
    # A lease is free again a moment after its worker's end, so a few more are in use than slots.
    assert len(files) <= 2 * 4 * len(kinds), files
    assert value(served, "hits_total") >= hits
    assert len(gauges(served, "drumd_worker_resident_memory_bytes")) == 4
    served.daemon.signal(signal.SIGTERM)
    assert served.wait_exit() == 0
    assert not home.exists()


def ask_every_worker(served: Served) -> int:
    """Ask until each worker has answered once; return how often that was."""
    wanted, asked = set(map(str, served.pids())), 0
    while wanted:
        wanted.discard(served.web.get().body)
        asked += 1
        assert asked < 1000, f"never answered: {wanted}"
    return asked


# --- over TCP -----------------------------------------------------------------------------------


@pytest.fixture
def observed(
    daemon: Callable[..., Daemon], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Served, Address]]:
    """Start `drumd serve` with an admin address on TCP; return both."""

    def start(*arguments: str, mode: str = "") -> tuple[Served, Address]:
        monkeypatch.setenv("STEER", str(tmp_path))
        (tmp_path / "mode").write_text(mode)
        admin, port = free_port(), free_port()
        started = daemon(
            "serve",
            "unruly:asgi",
            f"--app-dir={UNRULY}",
            f"--bind=127.0.0.1:{port}",
            f"--admin-bind=127.0.0.1:{admin}",
            *arguments,
        )
        return Served(started, tmp_path, {"web": port}), Address(admin)

    return start


def ask(address: Address, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_readiness_is_503_until_a_worker_serves(
    observed: Callable[..., tuple[Served, Address]],
) -> None:
    """/livez is 200 while the app still loads; /readyz is 503 with the why until it serves."""
    served, admin = observed(mode="startup-waits:loaded")
    wait_until(lambda: served.begun("loaded"), what="a worker that loads")
    assert ask(admin, "/livez") == (200, '{"live":true}')
    status, body = ask(admin, "/readyz")
    assert status == 503
    document = json.loads(body)
    assert document["ready"] is False
    assert document["reason"].startswith("web: starting, 0 of 1 ready")
    served.open("loaded")
    served.ready()
    status, body = ask(admin, "/readyz")
    assert (status, json.loads(body)["ready"]) == (200, True)


def test_readiness_outlasts_a_dead_worker(
    observed: Callable[..., tuple[Served, Address]],
) -> None:
    """A pool with one worker of two left is ready; one with none is not."""
    served, admin = observed("--workers=2")
    pids = served.ready()
    served.steer("sleep:600")
    os.kill(pids[0], signal.SIGKILL)
    served.wait_state("degraded")
    assert ask(admin, "/readyz")[0] == 200
    os.kill(pids[1], signal.SIGKILL)
    wait_until(lambda: ask(admin, "/readyz")[0] == 503, what="not ready")
    assert ask(admin, "/livez")[0] == 200


def test_tcp_is_for_reading_alone(observed: Callable[..., tuple[Served, Address]]) -> None:
    """The TCP address has the metrics and the probes; nothing can be changed or looked into."""
    served, admin = observed()
    (pid,) = served.ready()
    status, text = ask(admin, "/metrics")
    assert status == 200
    assert 'drumd_workers{pool="web",state="ready"} 1.0' in text
    for path in ("/pools/web/restart", "/pools/web/stop", "/stop"):
        assert ask(admin, path, "POST")[0] in (404, 405)
    assert ask(admin, "/operations/web-1", "DELETE")[0] in (404, 405)
    assert ask(admin, "/metrics", "POST")[0] == 405
    for path in ("/status", "/events", "/docs", "/openapi.json"):
        assert ask(admin, path)[0] == 404
    assert served.pids() == [pid]


# --- Prometheus ---------------------------------------------------------------------------------


def test_promtool_finds_nothing_to_better(serve: Serve) -> None:
    """`promtool check metrics` has nothing to say on names, types and help of drumd's metrics."""
    promtool = needs("promtool", "prometheus")
    served = serve(web={**COUNTING, "workers": 2}, other={**GTHREAD, "workers": 1})
    served.ready("web")
    served.ready("other")
    assert served.web.get().status == 200
    assert served.addresses["other"].get().status == 200
    # What the app named is the app's business.
    theirs = ("hits", "busy", "work")
    lines = [line for line in page(served).splitlines() if not names_one_of(line, theirs)]
    check = subprocess.run(
        [promtool, "check", "metrics"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")


def names_one_of(line: str, names: tuple[str, ...]) -> bool:
    return line.removeprefix("# HELP ").removeprefix("# TYPE ").startswith(names)


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[[Address], Address]]:
    """Start a Prometheus that scrapes an address each second; return where it answers."""
    program = needs("prometheus", "prometheus")
    started: list[subprocess.Popen[bytes]] = []

    def start(target: Address) -> Address:
        mine = Address(free_port())
        config = tmp_path / "prometheus.yml"
        config.write_text(SCRAPES.format(target=f"{target.host}:{target.port}"))
        with (tmp_path / "prometheus.log").open("wb") as log:
            started.append(
                subprocess.Popen(
                    [
                        program,
                        f"--config.file={config}",
                        f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                        f"--web.listen-address={mine.host}:{mine.port}",
                    ],
                    stdout=log,
                    stderr=log,
                    cwd=tmp_path,
                )
            )
        return mine

    yield start
    for process in started:
        process.kill()
        process.wait(30)


SCRAPES = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: drumd
    static_configs: [{{targets: ["{target}"]}}]
"""


def test_a_real_prometheus_scrapes_it(
    observed: Callable[..., tuple[Served, Address]],
    prometheus: Callable[[Address], Address],
) -> None:
    """A Prometheus that scrapes the TCP address finds the target up and the requests counted."""
    served, admin = observed("--workers=2")
    served.ready()
    for _ in range(17):
        assert served.web.get().status == 200
    api = prometheus(admin)
    wait_until(lambda: query(api, 'up{job="drumd"}') == [1.0], what="the target up", every=0.1)
    counted = 'sum(drumd_requests_total{pool="web",code="2xx"})'
    wait_until(lambda: query(api, counted) == [17.0], what="17 requests", every=0.1)
    assert query(api, 'drumd_workers{pool="web",state="ready"}') == [2.0]
    quantile = "histogram_quantile(0.9, drumd_request_duration_seconds_bucket)"
    assert len(query(api, quantile)) == 1


def query(api: Address, expression: str) -> list[float]:
    """Return the values of an instant query; none as long as Prometheus does not answer."""
    try:
        status, body = ask(api, f"/api/v1/query?{urlencode({'query': expression})}")
    except OSError:
        return []
    document: Document = json.loads(body) if status == 200 else {"data": {"result": []}}
    return [float(sample["value"][1]) for sample in document["data"]["result"]]
