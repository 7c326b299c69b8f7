"""Generations of one pool: rollouts by real processes, with and without templates."""

import os
import signal
from pathlib import Path

import pytest

from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import Kind, OperationKind, OperationState, WorkerState
from tests.integration.pool_host import PoolHost
from tests.processes import children

APP = """
    import os, threading
    VERSION = {version}
    LOADED_BY = os.getpid()
    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError("only http")
        body = f"{{VERSION}} {{os.getpid()}} {{LOADED_BY}}".encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({{"type": "http.response.start", "status": 200, "headers": headers}})
        await send({{"type": "http.response.body", "body": body}})
"""


def app(version: int) -> str:
    return APP.format(version=version)


@pytest.mark.parametrize("preload", [False, True])
async def test_a_rollout_brings_the_new_code_on_the_same_connection(
    tmp_path: Path, *, preload: bool
) -> None:
    """After a rollout all workers run the new code, and an idle connection has lived on."""
    async with PoolHost(tmp_path, app(1), workers=2, preload=preload) as host:
        await host.ready()
        client = await host.connect()
        status, said = await client.get()
        assert (status, said[:1]) == (200, "1")
        host.write(app(2))
        operation = await host.reload(preload=preload)
        assert operation.state is OperationState.DONE, host.tale()
        assert host.pool.generation == 2
        await host.until(lambda: len(host.pool.workers) == 2 + preload, "the old ones are gone")
        status, said = await client.get()
        assert (status, said[:1]) == (200, "2")
        assert [each.number for each in host.hands.generations] == [2]
        assert {w.generation for w in host.workers()} == {2}


async def test_a_release_that_raises_is_not_rolled_out(tmp_path: Path) -> None:
    """A broken release leaves the old workers serving, and its material is forgotten."""
    async with PoolHost(tmp_path, app(1), workers=2) as host:
        await host.ready()
        before = {host.pid(worker) for worker in host.workers()}
        host.write("raise RuntimeError('no good')")
        operation = await host.reload()
        assert operation.state is OperationState.FAILED
        assert "no good" in operation.reason
        assert {host.pid(worker) for worker in host.workers()} == before
        await host.until(
            lambda: [each.number for each in host.hands.generations] == [1],
            "the generation is forgotten",
        )


async def test_forks_are_children_with_the_templates_memory(tmp_path: Path) -> None:
    """With preload the app is imported once; its workers are the supervisor's own children."""
    async with PoolHost(tmp_path, app(1), workers=2, preload=True) as host:
        await host.ready()
        (template,) = host.workers(Kind.TEMPLATE)
        said = [(await host.get())[1].split() for _ in range(4)]
        assert {loaded_by for _, _, loaded_by in said} == {str(host.pid(template))}
        for worker in host.workers():
            assert host.pid(worker) in children()
        assert not set(host.listeners.ids()) & set(
            host.hands.crew.handles[template.attempt].told or ()
        )


async def test_a_template_that_dies_is_replaced_and_disturbs_nobody(tmp_path: Path) -> None:
    """kill -9 of a template: its workers live on, and the next one forks what is to come."""
    async with PoolHost(tmp_path, app(1), workers=2, preload=True) as host:
        await host.ready()
        (template,) = host.workers(Kind.TEMPLATE)
        before = [host.pid(worker) for worker in host.workers()]
        os.kill(host.pid(template), signal.SIGKILL)
        await host.until(
            lambda: [w for w in host.workers(Kind.TEMPLATE) if w.attempt != template.attempt],
            "another template",
        )
        assert [host.pid(worker) for worker in host.workers()] == before
        os.kill(before[0], signal.SIGKILL)
        await host.until(lambda: len({*map(host.pid, host.workers())} - {*before}) == 1, "a fork")
        await host.ready()


async def test_a_fork_that_comes_too_late_is_killed(tmp_path: Path) -> None:
    """What a template forks after its attempt was given up is ended, and its lease is free."""
    async with PoolHost(tmp_path, app(1), workers=1, preload=True, start_timeout=1.0) as host:
        await host.ready()
        (template,) = host.workers(Kind.TEMPLATE)
        free = len(host.leases._free)
        os.kill(host.pid(template), signal.SIGSTOP)
        operation = await host.end_of(host.submit(OperationKind.RESTART, slot=0))
        assert operation.state is OperationState.FAILED
        assert "its template has not answered yet" in operation.reason
        assert len(host.leases._free) == free - 1
        os.kill(host.pid(template), signal.SIGCONT)
        await host.until(lambda: len(host.leases._free) == free, "its lease is given back")
        assert len(host.workers()) == 1
        assert host.exits._holds == 0


async def test_threads_of_a_template_are_named_once(tmp_path: Path) -> None:
    """A template with a thread is warned about, with the thread's name, once a generation."""
    threaded = app(1) + (
        "    import time\n"
        "    t = threading.Thread(target=time.sleep, args=(600,), name='tokenizer', daemon=True)\n"
        "    t.start()\n"
    )
    async with PoolHost(tmp_path, threaded, workers=2, preload=True) as host:
        await host.ready()
        told = [text for text in host.told(Happened.DAEMON_NOTICE) if "tokenizer" in text]
        assert len(told) == 1


async def test_a_crash_gives_the_slot_to_a_spare(tmp_path: Path) -> None:
    """A worker that is killed is replaced at once by the spare, which then serves the slot."""
    async with PoolHost(tmp_path, app(1), workers=1, spares=1) as host:
        await host.until(lambda: host.workers(Kind.SPARE), "the spare is ready")
        (spare,) = host.workers(Kind.SPARE)
        await host.get()
        os.kill(host.pid(host.workers()[0]), signal.SIGKILL)
        await host.until(lambda: [w.attempt for w in host.workers()] == [spare.attempt], "promoted")
        _, said = await host.get()
        assert said.split()[1] == str(host.pid(spare))
        assert host.hands.crew.handles[spare.attempt].kind is Kind.SLOT
        await host.until(lambda: host.workers(Kind.SPARE), "a new spare")


async def test_lines_of_a_template_say_so(tmp_path: Path) -> None:
    """What a template prints is logged with its kind and generation, and without a slot."""
    async with PoolHost(tmp_path, app(1) + "    print('imported')\n", preload=True) as host:
        await host.ready()
        (line,) = [x for x in host.lines() if x.get("line") == "imported"]
        assert (line["kind"], line["gen"]) == ("template", 1)
        assert "slot" not in line


async def test_a_failed_template_says_why(tmp_path: Path) -> None:
    """A template whose app raises aborts the rollout with the app's own words."""
    async with PoolHost(tmp_path, app(1), preload=True) as host:
        await host.ready()
        host.write("raise RuntimeError('no good')")
        operation = await host.reload(preload=True)
        assert operation.state is OperationState.FAILED
        assert "no good" in operation.reason
        assert host.workers(state=WorkerState.READY)[0].generation == 1
