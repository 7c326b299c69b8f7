"""Workers that make no progress, and workers that only seem to."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.served import Served, elapse, signal_all, wait_stopped
from tests.e2e.visitor import in_background, many
from tests.waiting import wait_until

Serve = Callable[..., Served]

HANG, REQUEST = 1.0, 1.5
HEALTH = {"stall_after": 0.3, "hang_timeout": HANG, "request_timeout": REQUEST}
PATIENT = {"stall_after": 0.3, "hang_timeout": HANG, "request_timeout": 30}

UVICORN: dict[str, Any] = {"app": "unruly:asgi", "runtime": "uvicorn", "health": HEALTH}
GTHREAD: dict[str, Any] = {"app": "unruly:wsgi", "runtime": "gunicorn", "health": HEALTH}
SYNC: dict[str, Any] = {**GTHREAD, "gunicorn": {"worker_class": "sync"}}

TROUBLE = ("worker.stalled", "worker.hung", "worker.exited")


# --- event loops --------------------------------------------------------------------------------


def test_loop_blocked_without_a_request(serve: Serve) -> None:
    """An event loop blocked by nothing in flight: steered away, adopted, with stacks, replaced."""
    served = serve(web={**UVICORN, "workers": 2})
    served.ready()
    assert served.web.get("/later/gate").body == "soon"
    (blocked,) = served.wait_begun("gate")
    with many(served.web, 16) as visitors:
        for visitor in visitors:
            visitor.send("/", close=True)
        assert str(blocked) not in {visitor.answer().body for visitor in visitors}
    hung = served.wait_for("worker.hung")
    assert "without a request in flight (hang_timeout 1 s)" in hung["reason"]
    stacks = served.wait_for("worker.stacks", pid=blocked)
    assert "in block" in stacks["reason"]
    assert served.wait_for("worker.exited")["cause"] == "hung"
    served.wait_state("ready")
    assert blocked not in served.pids()
    order = [each["event"] for each in served.events(*TROUBLE, "worker.stacks")]
    assert order == ["worker.stalled", "worker.hung", "worker.stacks", "worker.exited"]


def test_loop_blocked_by_a_request(serve: Serve) -> None:
    """A request that blocks its event loop beyond request_timeout: stalled first, then replaced."""
    served = serve(web={**UVICORN, "workers": 2})
    served.ready()
    with served.web.connect() as visitor:
        visitor.send("/block/gate")
        (blocked,) = served.wait_begun("gate")
        stalled = served.wait_for("worker.stalled")
        assert "busy with requests" in stalled["reason"]
        assert {served.web.get().body for _ in range(16)} == {str(*set(served.pids()) - {blocked})}
        hung = served.wait_for("worker.hung")
        assert "with a request in flight (request_timeout 1.5 s)" in hung["reason"]
        assert visitor.ended()
    assert "in block" in served.wait_for("worker.stacks", pid=blocked)["reason"]
    served.wait_state("ready")
    assert blocked not in served.pids()


def test_loop_blocked_for_a_while(serve: Serve) -> None:
    """A request that blocks its event loop for less than request_timeout is only work."""
    served = serve(web={**UVICORN, "health": PATIENT})
    (worker,) = served.ready()
    with in_background([(served.web, "/block/gate")]) as (answer,):
        served.wait_for("worker.stalled")
        elapse(2 * HANG)
        served.open("gate")
        assert answer.result().body == str(worker)
    served.wait_for("worker.recovered")
    assert served.pids() == [worker]
    assert not served.events("worker.hung", "worker.exited")


def test_long_stream_survives_a_stall(serve: Serve) -> None:
    """A stream that is open for longer than request_timeout is not what blocks the loop."""
    served = serve(web=UVICORN)
    (worker,) = served.ready()
    with served.web.connect() as stream:
        stream.send("/stream/end")
        served.wait_begun("end")
        elapse(REQUEST + 0.5)
        with in_background([(served.web, "/block/gate")]) as (answer,):
            served.wait_for("worker.stalled")
            served.open("gate")
            assert answer.result().body == str(worker)
        served.wait_for("worker.recovered")
        served.open("end")
        assert stream.answer().body.endswith("end")
    assert served.pids() == [worker]
    assert not served.events("worker.hung", "worker.exited")


# --- threads ------------------------------------------------------------------------------------


def test_all_threads_stuck(serve: Serve) -> None:
    """A gthread worker whose threads are all stuck is replaced, though its main loop beats."""
    served = serve(web={**GTHREAD, "threads": 2})
    (worker,) = served.ready()
    with many(served.web, 2) as visitors:
        for visitor in visitors:
            visitor.send("/block/gate")
        hung = served.wait_for("worker.hung")
        assert hung["reason"].startswith("all 2 threads are stuck: no request began or ended for ")
        stacks = served.wait_for("worker.stacks", pid=worker)
        assert stacks["reason"].count("in block") == 2
        assert all(visitor.ended() for visitor in visitors)
    assert not served.events("worker.stalled")
    served.wait_state("ready")
    assert int(served.web.get().body) != worker


def test_some_threads_stuck(serve: Serve) -> None:
    """A gthread worker with a thread that is free serves on, however long the others take."""
    served = serve(web={**GTHREAD, "threads": 2})
    (worker,) = served.ready()
    with in_background([(served.web, "/block/gate")]) as (answer,):
        served.wait_begun("gate")
        elapse(2 * REQUEST)
        assert served.web.get().body == str(worker)
        served.open("gate")
        assert answer.result().body == str(worker)
    assert not served.events(*TROUBLE)


def test_sync_worker_is_busy(serve: Serve) -> None:
    """A sync worker in a request is busy until request_timeout, and hung from then on."""
    served = serve(web=SYNC)
    (worker,) = served.ready()
    with in_background([(served.web, "/block/gate")]) as (answer,):
        stalled = served.wait_for("worker.stalled")
        assert "busy with requests" in stalled["reason"]
        (busy,) = served.workers()
        assert busy["oldest"] > 0
        served.open("gate")
        assert answer.result().body == str(worker)
    # The client has its answer before the worker has noted that.
    wait_until(lambda: served.workers()[0]["oldest"] is None, what="no request in flight")
    served.wait_for("worker.recovered")
    assert not served.events("worker.hung", "worker.exited")
    with served.web.connect() as visitor:
        visitor.send("/block/never")
        hung = served.wait_for("worker.hung")
        assert "with a request in flight (request_timeout 1.5 s)" in hung["reason"]
        assert visitor.ended()
    assert "in block" in served.wait_for("worker.stacks", pid=worker)["reason"]


# --- everyone -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pool", "each"),
    [
        pytest.param(UVICORN, 1, id="uvicorn"),
        pytest.param(SYNC, 1, id="sync"),
        pytest.param({**GTHREAD, "threads": 2}, 2, id="gthread"),
    ],
)
def test_all_workers_busy(serve: Serve, pool: dict[str, Any], each: int) -> None:
    """A pool whose workers are all busy for seconds keeps them all, and answers everyone."""
    served = serve(web={**pool, "workers": 2, "health": PATIENT})
    workers = served.ready()
    with in_background([(served.web, "/block/gate")] * 24) as answers:
        served.wait_begun("gate", workers=2)
        wait_until(
            lambda: sum(one["in_flight"] for one in served.workers()) >= 2 * each, what="all busy"
        )
        elapse(2 * HANG)
        assert served.pids() == workers
        assert served.pool()["state"] == "ready"
        served.open("gate")
        assert {int(answer.result().body) for answer in answers} == set(workers)
    assert not served.events("worker.hung", "worker.exited")
    assert served.pids() == workers


def test_stopped_supervisor_accuses_nobody(serve: Serve) -> None:
    """After a SIGSTOP of drumd that lasted longer than any timeout, no worker is to blame."""
    served = serve(web={**UVICORN, "workers": 2}, side=GTHREAD)
    workers = served.ready()
    side = served.ready("side")
    os.kill(served.daemon.pid, signal.SIGSTOP)
    wait_stopped(served.daemon.pid)
    elapse(2 * REQUEST)
    assert served.web.answers()  # it was never in the data path
    os.kill(served.daemon.pid, signal.SIGCONT)
    elapse(2 * HEALTH["stall_after"])
    assert (served.pids(), served.pids("side")) == (workers, side)
    assert not served.events(*TROUBLE)


def test_paused_machine_accuses_nobody(serve: Serve) -> None:
    """After a pause of drumd and its workers together, no worker is to blame."""
    served = serve(web={**UVICORN, "workers": 2})
    workers = served.ready()
    everyone = [served.daemon.pid, *workers]
    signal_all(everyone, signal.SIGSTOP)
    for pid in everyone:
        wait_stopped(pid)
    elapse(2 * REQUEST)
    signal_all(everyone, signal.SIGCONT)
    elapse(2 * HANG)
    assert served.pids() == workers
    assert not served.events("worker.hung", "worker.exited")
