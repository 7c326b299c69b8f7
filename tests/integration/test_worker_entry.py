import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drumd.wire.messages import Drained, Failed, Loaded, Ready
from drumd.wire.spec import INSTANCE_VARIABLE, SPEC_FD_VARIABLE
from tests.integration.http_clients import Connection
from tests.integration.worker_host import ROOT, HostedWorker, WorkerHost
from tests.waiting import CAP, wait_until

RUNTIMES = ["auto", "uvicorn", "gunicorn", "flask"]


@pytest.fixture
def host() -> Iterator[WorkerHost]:
    with WorkerHost() as host:
        yield host


def failure(worker: HostedWorker) -> Failed:
    """Return why the worker failed, once it has ended with 1."""
    assert worker.wait() == 1
    message = worker.messages[-1]
    assert isinstance(message, Failed), worker.messages
    return message


def spawn_source(host: WorkerHost, source: str, **wanted: Any) -> HostedWorker:
    """Serve a module that consists of `source`; it may name its app `app`."""
    Path(host.path("written.py")).write_text(source)
    return host.spawn("written:app", **{"app_dir": host.directory.name, **wanted})


# --- an app that cannot be imported ---------------------------------------------------------------


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_app_that_raises_is_told_of_in_one_line(host: WorkerHost, runtime: str) -> None:
    """The supervisor gets a line for people and the traceback of the app's own frames."""
    worker = host.spawn("broken:app", runtime=runtime, env={"HOW": "raise"})
    message = failure(worker)
    assert message.error == (
        "cannot import broken:app: ValueError: no model in this directory (broken.py, line 10)"
    )
    assert message.traceback.startswith("Traceback (most recent call last):\n  File ")
    assert message.traceback.count("  File ") == 1
    assert 'raise ValueError("no model in this directory")' in message.traceback
    output = worker.finished_output()
    assert message.traceback in output
    assert f"drumd: {message.error}" in output


@pytest.mark.parametrize("code", [0, 3, 4])
@pytest.mark.parametrize("runtime", ["auto", "uvicorn", "gunicorn"])
def test_an_app_that_exits_is_a_failure(host: WorkerHost, runtime: str, code: int) -> None:
    """sys.exit with any code, 0 too, ends the worker with 1, and the message says what it did."""
    worker = host.spawn("broken:app", runtime=runtime, env={"HOW": f"exit {code}"})
    assert f"cannot import broken:app: it called sys.exit({code})" in failure(worker).error


@pytest.mark.parametrize("code", [0, 3, 4])
def test_an_app_that_ends_the_process_leaves_its_code(host: WorkerHost, code: int) -> None:
    """After os._exit there is nobody left to say anything."""
    worker = host.spawn("broken:app", env={"HOW": f"kill {code}"})
    assert worker.wait() == code
    assert worker.messages == []


def test_a_missing_library_is_shown_where_it_is_missed(host: WorkerHost) -> None:
    """The import that failed is the app's, so its line is told."""
    message = failure(host.spawn("broken:app", env={"HOW": "missing"}))
    assert "ModuleNotFoundError: No module named 'no_such_library' (broken.py" in message.error


def test_a_wrong_attribute_is_met_with_the_right_one(host: WorkerHost) -> None:
    """The message needs no traceback."""
    message = failure(host.spawn("asgi_app:ap"))
    assert message.error.startswith("cannot find 'ap' in asgi_app (")
    assert message.error.endswith("did you mean app?")
    assert message.traceback == ""


def test_a_syntax_error_is_shown_with_its_line(host: WorkerHost) -> None:
    """The line that cannot be read is in the traceback."""
    message = failure(spawn_source(host, "app = (\n"))
    assert "SyntaxError: '(' was never closed (written.py, line 1)" in message.error
    assert "    app = (" in message.traceback


def test_a_task_that_exits_after_the_start_is_a_failure(host: WorkerHost) -> None:
    """SystemExit in a background task ends the worker with 1, and is told."""
    source = """
import asyncio, sys
async def quit(): sys.exit(0)
async def app(scope, receive, send):
    assert scope["type"] == "http"
    app.task = asyncio.create_task(quit())
    await asyncio.sleep(3600)
"""
    worker = spawn_source(host, source)
    listener = host.listen()
    worker.expect(Ready)
    worker.accept(listener)
    with Connection(listener) as connection:
        connection.send()
        assert "cannot serve written:app: it called sys.exit(0)" in failure(worker).error


# --- an app that hangs ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["hang", "gil"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_import_is_immediate(host: WorkerHost, how: str, number: int) -> None:
    """A worker that is not ready ends at once, stuck in C or not, ignored before or not."""
    ignored = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
    worker = host.spawn("broken:app", env={"HOW": how}, ignore=ignored)
    wait_until(lambda: "hanging" in worker.output, what="the import")
    worker.signal(number)
    assert worker.wait() == -number


@pytest.mark.parametrize(("how", "runtime"), [("hang", "uvicorn"), ("gil", "auto")])
def test_stacks_show_where_an_import_hangs(host: WorkerHost, how: str, runtime: str) -> None:
    """The stacks are there before the app is, and the worker lives on."""
    worker = host.spawn("broken:app", runtime=runtime, env={"HOW": how})
    wait_until(lambda: "hanging" in worker.output, what="the import")
    assert "broken.py" in worker.dump_stacks()
    assert worker.process.poll() is None


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_app_that_closes_all_fds_at_import_ends_its_worker(
    host: WorkerHost, runtime: str
) -> None:
    """A worker that can no longer be told anything does not stay."""
    assert host.spawn("broken:app", runtime=runtime, env={"HOW": "closefds"}).wait() != 0


# --- a process of its own -------------------------------------------------------------------------


def test_a_worker_without_a_spec_says_how_to_start_one() -> None:
    """Started by hand it ends with 2 and names the command."""
    run = subprocess.run(
        [sys.executable, "-m", "drumd.workers"],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != SPEC_FD_VARIABLE},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "use `drumd serve APP`" in run.stderr


def test_a_worker_of_another_parent_does_not_serve(host: WorkerHost) -> None:
    """If the supervisor died before the worker could ask the kernel to tell, it leaves."""
    worker = host.spawn("asgi_app:app", supervisor_pid=1)
    assert worker.wait() == 1
    assert worker.messages == []


@pytest.mark.parametrize("how", ["hang", "gil"])
def test_the_kernel_kills_a_worker_whose_supervisor_died(how: str) -> None:
    """Also one that is stuck in C, which sees no closed socket."""
    source = f"""
import sys, time
from tests.integration.worker_host import WorkerHost
from tests.waiting import wait_until
worker = WorkerHost().spawn("broken:app", env={{"HOW": "{how}"}})
wait_until(lambda: "hanging" in worker.output)
print(worker.pid, flush=True)
time.sleep(3600)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", source], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    worker = os.pidfd_open(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    assert select.select([worker], [], [], CAP)[0] == [worker]
    os.close(worker)
    parent.stdout.close()


def test_the_apps_surroundings_are_its_own(host: WorkerHost) -> None:
    """It finds its directory, no arguments of ours, the mark, and no spec."""
    source = f"""
import os, signal, sys
print("argv", sys.argv[1:], "path", sys.path[0] == os.getcwd(), flush=True)
print("spec", "{SPEC_FD_VARIABLE}" in os.environ, "mark", os.environ["{INSTANCE_VARIABLE}"])
print("blocked", signal.pthread_sigmask(signal.SIG_BLOCK, ()), flush=True)
async def app(scope, receive, send): ...
"""
    worker = spawn_source(host, source, pool="shop")
    worker.expect(Loaded)
    wait_until(lambda: "blocked" in worker.output, what="the app's words")
    assert "argv [] path True" in worker.output
    assert "spec False mark host/shop/1" in worker.output
    assert "blocked set()" in worker.output


def test_a_worker_joins_its_cgroup_before_the_app_is_imported(host: WorkerHost) -> None:
    """It writes itself into the file that the spec names."""
    procs = Path(host.path("cgroup.procs"))
    procs.touch()
    host.spawn("asgi_app:app", cgroup_procs=str(procs)).expect(Loaded)
    assert procs.read_text() == "0"


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"cgroup_procs": "/no/such/cgroup.procs"}, "cannot join the worker's cgroup by /no/such"),
        ({"app_dir": "/no/such/directory"}, "cannot enter the app's directory /no/such/directory"),
        ({"lease": 7_000}, "cannot use lease 7000: there are 8"),
    ],
)
def test_a_spec_that_cannot_be_met_is_told_of(
    host: WorkerHost, wanted: dict[str, Any], told: str
) -> None:
    """Whatever is wrong before the app runs reaches the supervisor as a failed start."""
    message = failure(host.spawn("asgi_app:app", **wanted))
    assert message.error.startswith(told)


# --- choosing the runtime -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "wanted", "loaded"),
    [
        ("asgi_app:app", {}, Loaded(interface="asgi", runtime="uvicorn", event_loop=True)),
        ("wsgi_app:app", {}, Loaded(interface="wsgi", runtime="gunicorn", event_loop=False)),
        (
            "wsgi_app:create_app",
            {"runtime": "gunicorn", "options": {"gunicorn": {"worker_class": "sync"}}},
            Loaded(interface="wsgi", runtime="gunicorn", event_loop=False),
        ),
        (
            "wsgi_app:app",
            {"runtime": "gunicorn", "options": {"gunicorn": {"worker_class": "gevent"}}},
            Loaded(interface="wsgi", runtime="gunicorn", event_loop=True),
        ),
        (
            "asgi_app:app",
            {"runtime": "gunicorn"},
            Loaded(interface="asgi", runtime="gunicorn", event_loop=True),
        ),
        (
            "wsgi_app:app",
            {"runtime": "flask"},
            Loaded(interface="wsgi", runtime="flask", event_loop=False),
        ),
    ],
)
def test_the_runtime_fits_the_app(
    host: WorkerHost, app: str, wanted: dict[str, Any], loaded: Loaded
) -> None:
    """`auto` serves ASGI with uvicorn and WSGI with gunicorn; each tells whether it has a loop."""
    listener = host.listen()
    worker = host.serve(app, listener, **wanted)
    assert [each for each in worker.messages if isinstance(each, Loaded)] == [loaded]
    with Connection(listener) as connection:
        assert connection.ask(headers="Connection: close\r\n").body == str(worker.pid).encode()


# --- leaving --------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["uvicorn", "gunicorn"])
def test_a_stuck_thread_does_not_hold_the_process(host: WorkerHost, runtime: str) -> None:
    """At the end what the app registered for its exit runs, and threads are not waited for."""
    source = """
import atexit, threading, time
threading.Thread(target=time.sleep, args=(3600,)).start()
atexit.register(print, "goodbye")
async def app(scope, receive, send): assert scope["type"] == "http"
"""
    worker = spawn_source(host, source, runtime=runtime)
    worker.expect(Ready)
    worker.drain()
    assert worker.wait() == 0
    assert worker.messages[-1] == Drained()
    assert "goodbye" in worker.finished_output()
