import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drumd.supervisor.processes.marks import kill_marked
from drumd.wire.messages import Drained, Failed, Forked, Loaded, Ready
from drumd.wire.spec import INSTANCE_VARIABLE
from tests.integration.http_clients import Connection
from tests.integration.template_host import TemplateHost, ask, kill
from tests.integration.worker_host import HostedWorker
from tests.processes import alive, count_open_fds
from tests.waiting import CAP, wait_until

SERVED = [
    ("asgi_app:app", "auto", ""),
    ("asgi_app:app", "uvicorn", ""),
    ("wsgi_app:app", "auto", ""),
    ("wsgi_app:create_app", "gunicorn", "sync"),
    ("wsgi_app:app", "gunicorn", "gevent"),
    ("asgi_app:app", "gunicorn", "asgi"),
    ("wsgi_app:app", "flask", ""),
]

QUIET = "async def app(scope, receive, send): assert scope['type'] == 'http'\n"


@pytest.fixture
def host() -> Iterator[TemplateHost]:
    with TemplateHost() as host:
        yield host


def write(host: TemplateHost, source: str, **wanted: Any) -> dict[str, Any]:
    """Write a module that consists of `source` and an app; return what a spec says of it."""
    Path(host.path("written.py")).write_text(source + QUIET)
    return {"app": "written:app", "app_dir": host.directory.name, **wanted}


def options(worker_class: str) -> dict[str, Any]:
    return {"gunicorn": {"worker_class": worker_class}} if worker_class else {}


def said(worker: HostedWorker, line: str) -> None:
    """Wait until the worker has printed `line`."""
    wait_until(lambda: line in worker.output, what=f"{line!r} in {worker.output!r}")


# --- the workers of a template --------------------------------------------------------------------


@pytest.mark.parametrize(("app", "runtime", "worker_class"), SERVED)
def test_every_runtime_serves_in_a_fork(
    host: TemplateHost, app: str, runtime: str, worker_class: str
) -> None:
    """Forked workers say what their template has said, serve as their own pids, and drain."""
    template = host.template(app, runtime=runtime, options=options(worker_class))
    for _ in range(2):
        listener = host.listen()
        worker = host.fork(template)
        worker.expect(Ready)
        assert [m for m in worker.messages if isinstance(m, Loaded)] == [
            m for m in template.messages if isinstance(m, Loaded)
        ]
        worker.accept(listener)
        with Connection(listener) as connection:
            answer = connection.ask(headers="Connection: close\r\n")
        assert answer.body == str(worker.pid).encode() != str(template.pid).encode()
        assert worker.record.pid == worker.pid
        worker.drain()
        assert worker.wait() == 0
        assert worker.messages[-1] == Drained()


def test_an_app_may_use_gevents_loop_at_its_import(host: TemplateHost) -> None:
    """gevent patches before the import, and what its loop was doing is no obstacle to forks."""
    source = """
import os, socket, threading, time
from gevent.monkey import is_module_patched
assert is_module_patched("socket")
time.sleep(0.001)
socket.getaddrinfo("localhost", 80)
threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
def serve(environ, start_response):
    time.sleep(0.001)
    start_response("200 OK", [("Connection", "close")])
    return [str(os.getpid()).encode()]
"""
    wanted = write(host, source, app="written:serve", runtime="gunicorn")
    template = host.template(**wanted, options=options("gevent"))
    for _ in range(2):
        listener = host.listen()
        worker = host.fork(template)
        worker.expect(Ready)
        worker.accept(listener)
        with Connection(listener) as connection:
            assert connection.ask().body == str(worker.pid).encode()


def test_the_app_is_imported_once(host: TemplateHost) -> None:
    """The module runs once, its factory is called once, and each worker has what they made."""
    source = """
from pathlib import Path
from drumd import forking
log = (Path(__file__).parent / "log").open("a", buffering=1)
log.write("imported\\n")
thing = object()
forking.after_fork(lambda: print("thing", id(thing), flush=True))
def make():
    log.write("called\\n")
    return app
"""
    template = host.template(**write(host, source, app="written:make"))
    workers = [host.fork(template) for _ in range(3)]
    for worker in workers:
        worker.expect(Ready)
    assert Path(host.path("log")).read_text() == "imported\ncalled\n"
    # stdout and stderr are pipes of their own, so the server's lines may come first.
    made = [re.findall("^thing .*$", worker.output, re.MULTILINE) for worker in workers]
    assert made == [made[0]] * 3
    assert len(made[0]) == 1


def test_a_fork_is_a_process_of_its_own(host: TemplateHost) -> None:
    """It leads a session and a group, and is our child; no fd of its template's pipes is left."""
    template = host.template("asgi_app:app")
    worker = host.fork(template)
    worker.expect(Ready)
    assert os.getsid(worker.pid) == os.getpgid(worker.pid) == worker.pid
    status = Path(f"/proc/{worker.pid}/status").read_text()
    assert f"PPid:\t{os.getpid()}\n" in status
    assert "SigBlk:\t0000000000000000\n" in status
    ends = (1, 2, template.spec.fds.control, template.spec.fds.stacks)
    theirs = {fds(template.pid)[number] for number in ends}
    assert not theirs & set(fds(worker.pid).values())
    wait_until(lambda: not children(template.pid), what="the process in between reaped")


def fds(pid: int) -> dict[int, str]:
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        found[int(path.name)] = str(path.readlink())
    return found


def children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def test_a_fork_carries_its_own_mark(host: TemplateHost) -> None:
    """Its environment, as /proc/PID/environ shows it too, is the worker's, not its template's."""
    source = f"""
import os, subprocess
from drumd import forking
forking.after_fork(lambda: print("mark", os.environ["{INSTANCE_VARIABLE}"], flush=True))
forking.after_fork(lambda: globals().update(child=subprocess.Popen(["sleep", "1000"])))
print("mark", os.environ["{INSTANCE_VARIABLE}"], flush=True)
"""
    template = host.template(**write(host, source))
    said(template, f"mark {host.instance}/web/1\n")
    workers = [host.fork(template, slot=slot, attempt=10**slot) for slot in (1, 5)]
    for worker in workers:
        worker.expect(Ready)
        said(worker, f"mark {host.instance}/web/{worker.spec.attempt}\n")
        child = int(children(worker.pid))
        assert environ_mark(child) == f"{host.instance}/web/{worker.spec.attempt}"
    assert environ_mark(workers[1].pid).rstrip("/") == f"{host.instance}/web/100000"
    assert environ_mark(template.pid).rstrip("/") == f"{host.instance}/web/1"
    assert len(environ_mark(template.pid)) == len(environ_mark(workers[0].pid))


def environ_mark(pid: int) -> str:
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return next(v.partition("=")[2] for v in variables if v.startswith(INSTANCE_VARIABLE))


def test_sweeps_tell_forks_from_their_template(host: TemplateHost) -> None:
    """What carries the mark of one attempt is killed, template and siblings are left."""
    template = host.template("asgi_app:app")
    first, second = host.fork(template, attempt=2), host.fork(template, attempt=20)
    first.expect(Ready)
    second.expect(Ready)
    assert kill_marked(f"{host.instance}/web/2") == [first.pid]
    assert first.wait() == -signal.SIGKILL
    assert kill_marked(f"{host.instance}/web/1") == [template.pid]
    assert template.wait() == -signal.SIGKILL
    assert alive(second.pid)


def test_output_and_stacks_are_the_forks_own(host: TemplateHost) -> None:
    """What a worker prints and dumps goes to its own pipes; what its template printed does not."""
    source = """
import sys
from drumd import forking
sys.stdout.write("half a line")
forking.after_fork(lambda: print("from the worker", flush=True))
"""
    template = host.template(**write(host, source, env={"PYTHONUNBUFFERED": ""}))
    worker = host.fork(template)
    worker.expect(Ready)
    said(worker, "from the worker\n")
    assert "half" not in worker.output
    said(template, "half a line")
    assert "from the worker" not in template.output
    assert "uvicorn_runtime.py" in worker.dump_stacks()
    assert "template.py" in template.dump_stacks()
    assert "template.py" not in worker.stacks


def test_a_fork_joins_its_own_cgroup(host: TemplateHost) -> None:
    """It writes itself into the file that its spec names; if it cannot, it says so and ends."""
    procs = Path(host.path("cgroup.procs"))
    procs.touch()
    template = host.template("asgi_app:app")
    host.fork(template, cgroup_procs=str(procs)).expect(Ready)
    assert procs.read_text() == "0"
    worker = host.fork(template, cgroup_procs="/no/such/cgroup.procs")
    assert worker.wait() == 1
    failed = worker.messages[-1]
    assert isinstance(failed, Failed)
    assert failed.error.startswith("cannot join the worker's cgroup by /no/such/cgroup.procs")
    assert not [m for m in template.messages if isinstance(m, Failed)]


def test_signals_of_a_fork_are_a_fresh_workers(host: TemplateHost) -> None:
    """A foreign SIGTERM makes it leave by itself, a SIGHUP does not end it, nor the template."""
    template = host.template("wsgi_app:app")
    worker = host.fork(template)
    worker.expect(Ready)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        worker.signal(number)
        template.signal(number)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    host.fork(template).expect(Ready)


def test_workers_draw_different_numbers(host: TemplateHost) -> None:
    """Python's and numpy's global random states are new in each worker."""
    source = """
import random, numpy
from drumd import forking
random.seed(1)
numpy.random.seed(1)
draw = lambda: print("drawn", random.random(), numpy.random.random(), "end", flush=True)
forking.after_fork(draw)
"""
    template = host.template(**write(host, source))
    drawn = set()
    for _ in range(3):
        worker = host.fork(template)
        said(worker, "end\n")
        drawn |= set(worker.output.split()[1:3])
    assert len(drawn) == 6


def test_forking_leaves_nothing_behind(host: TemplateHost) -> None:
    """After 20 forks template and supervisor have as many fds as before, and no zombie."""
    template = host.template("asgi_app:app")
    kill(host.fork(template))
    ours, theirs = count_open_fds(), len(fds(template.pid))
    for _ in range(20):
        worker = host.fork(template, lease=1)
        kill(worker)
        worker.control.close()
        worker.finished_output()
    wait_until(lambda: count_open_fds() <= ours, what="our fds closed")
    assert len(fds(template.pid)) == theirs
    assert not children(template.pid)


# --- what the app does around a fork --------------------------------------------------------------

HOOKS = """
import os
from drumd import forking
@forking.before_fork
def first(): print("before 1", flush=True)
@forking.before_fork
def second(): print("before 2", flush=True)
@forking.after_fork
def third(): print("after 1", flush=True)
@forking.after_fork
def fourth(): print("after 2", flush=True)
class Named:
    def before(): print("before named", flush=True)
    def after(): print("after named", os.getpid(), flush=True)
def wrong(): raise ValueError("not now")
async def slow(): ...
"""


def test_functions_are_called_around_each_fork(host: TemplateHost) -> None:
    """Before it in the template, the last registered first; after it in the worker, in order."""
    spec = write(host, HOOKS, before_fork="written:Named.before", after_fork="written:Named.after")
    template = host.template(**spec)
    assert template.output == ""
    worker = host.fork(template)
    worker.expect(Ready)
    said(template, "before named\nbefore 2\nbefore 1\n")
    said(worker, f"after 1\nafter 2\nafter named {worker.pid}\n")
    host.fork(template).expect(Ready)
    assert template.output.count("before") == 6
    assert "after" not in template.output


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("wrong", "cannot run written:wrong before the fork: ValueError: not now (written.py"),
        ("slow", "cannot call written:slow around a fork: it is async"),
    ],
)
def test_a_function_that_fails_before_the_fork_is_told_of(
    host: TemplateHost, name: str, told: str
) -> None:
    """The fork fails with its reason, each time, and the template goes on."""
    template = host.template(**write(host, HOOKS, before_fork=f"written:{name}"))
    for _ in range(2):
        assert host.refuse(template).error.startswith(told)
    said(template, f"drumd: {told}")
    assert template.process.poll() is None


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("wrong", "cannot run written:wrong after the fork: ValueError: not now (written.py"),
        ("slow", "cannot call written:slow around a fork: it is async"),
    ],
)
def test_a_function_that_fails_after_the_fork_ends_the_worker(
    host: TemplateHost, name: str, told: str
) -> None:
    """The worker says why by its own socket and exits with 1; its template has nothing to say."""
    template = host.template(**write(host, HOOKS, after_fork=f"written:{name}"))
    worker = host.fork(template)
    assert worker.wait() == 1
    failed = worker.messages[-1]
    assert isinstance(failed, Failed)
    assert failed.error.startswith(told)
    said(worker, f"drumd: {told}")
    assert host.fork(template).wait() == 1


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("written:thirt", "cannot find 'thirt' in written"),
        ("writen:third", "cannot import writen: there is no module 'writen'"),
        ("third", "cannot read after_fork 'third': write module:function, such as third:connect"),
        ("written:os.name", "cannot call after_fork 'written:os.name': it is no function"),
    ],
)
def test_a_wrong_name_of_a_function_fails_the_template(
    host: TemplateHost, name: str, told: str
) -> None:
    """The first fork is too late to learn that a function is not there."""
    template = host.template(ready=False, **write(host, HOOKS, after_fork=name))
    assert template.wait() == 1
    failed = template.messages[-1]
    assert isinstance(failed, Failed)
    assert failed.error.startswith(told)


def test_a_worker_without_preload_calls_nothing(host: TemplateHost) -> None:
    """Registering is all that happens where nothing is forked."""
    worker = host.spawn(**write(host, HOOKS, after_fork="written:wrong"))
    worker.expect(Ready)
    assert "after" not in worker.output


def test_threads_of_the_template_are_told_by_name(host: TemplateHost) -> None:
    """Those that a fork does not have: Python's by their names; not those that end for a fork."""
    source = """
import threading
threading.Thread(target=threading.Event().wait, name="poller", daemon=True).start()
"""
    template = host.template(**write(host, source))
    host.fork(template).expect(Ready)
    assert host.answers[-1].threads == ("poller",)


def test_native_threads_are_seen(host: TemplateHost) -> None:
    """A thread that Python does not know goes by the kernel's name for it."""
    source = """
import ctypes
libc = ctypes.CDLL(None)
thread, forever = ctypes.c_ulong(), ctypes.cast(libc.pause, ctypes.c_void_p)
assert libc.pthread_create(ctypes.byref(thread), None, forever, None) == 0
libc.pthread_setname_np(thread, b"native")
"""
    template = host.template(**write(host, source))
    host.fork(template).expect(Ready)
    assert host.answers[-1].threads == ("native",)


def test_threads_that_end_for_a_fork_are_not_told_of(host: TemplateHost) -> None:
    """numpy's BLAS ends its threads before a fork and starts them again: no fork misses them."""
    source = """
import os, numpy
numpy.ones((500, 500)) @ numpy.ones((500, 500))
print("threads", len(os.listdir("/proc/self/task")), flush=True)
"""
    template = host.template(**write(host, source))
    said(template, "threads")
    assert "threads 1" not in template.output or len(os.sched_getaffinity(0)) == 1
    host.fork(template).expect(Ready)
    assert host.answers[-1].threads == ()


# --- the template's own life ----------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["auto", "uvicorn", "gunicorn", "flask"])
def test_an_import_fails_as_in_a_worker(host: TemplateHost, runtime: str) -> None:
    """The template says what a worker would say, and exits with 1."""
    wanted: dict[str, Any] = {"runtime": runtime, "env": {"HOW": "raise"}}
    template = host.template("broken:app", ready=False, **wanted)
    worker = host.spawn("broken:app", **wanted)
    assert template.wait() == worker.wait() == 1
    assert template.messages == worker.messages
    assert isinstance(template.messages[-1], Failed)


def test_an_idle_template_sleeps(host: TemplateHost) -> None:
    """Nothing wakes it while another one loads its app and forks."""
    template = host.template("asgi_app:app")
    kill(host.fork(template))
    wait_until(lambda: "State:\tS" in Path(f"/proc/{template.pid}/status").read_text())
    before = switches(template.pid)
    host.fork(host.template("asgi_app:app")).expect(Ready)
    assert switches(template.pid) == before


def switches(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [line for line in lines if line.startswith("voluntary_ctxt")]


def test_a_killed_template_leaves_its_workers_alone(host: TemplateHost) -> None:
    """After kill -9 of a template its workers go on serving."""
    template = host.template("asgi_app:app")
    listener = host.listen()
    worker = host.fork(template)
    worker.expect(Ready)
    worker.accept(listener)
    with Connection(listener) as connection:
        assert connection.ask().status == 200
        kill(template)
        assert connection.ask().body == str(worker.pid).encode()
    worker.drain()
    assert worker.wait() == 0


@pytest.mark.parametrize("how", ["stop", "drain", "gone", "SIGTERM"])
def test_a_template_ends_when_told(host: TemplateHost, how: str) -> None:
    """It ends at once by message, signal, or the supervisor's end; the app's own end is run."""
    source = "import atexit; atexit.register(print, 'goodbye')\n"
    template = host.template(**write(host, source))
    worker = host.fork(template)
    worker.expect(Ready)
    match how:
        case "stop":
            template.stop()
        case "drain":
            template.drain()
        case "gone":
            template.control.shutdown(socket.SHUT_RDWR)
        case _:
            template.signal(signal.SIGTERM)
    code = template.process.wait(CAP)
    assert code == {"stop": 0, "drain": 0, "gone": 1, "SIGTERM": -signal.SIGTERM}[how]
    assert ("goodbye" in template.finished_output()) is (how != "SIGTERM")
    assert worker.process.poll() is None


def test_a_spec_of_another_version_ends_the_template(host: TemplateHost) -> None:
    """After an upgrade of the supervisor an old template says why it is of no use."""
    template = host.template("asgi_app:app")
    _spec, fork = host.prepare(template, version=999)
    ask(template, fork)
    assert template.wait() == 1
    fork.abandon()
    failed = template.messages[-1]
    assert isinstance(failed, Failed)
    assert failed.error.startswith("cannot read the worker spec: version 999")


def test_a_template_without_room_for_fds_says_so(host: TemplateHost) -> None:
    """A fork whose fds do not all arrive is refused with the advice, and the next one may work."""
    source = """
import itertools, os, resource
used = {int(fd) for fd in os.listdir("/proc/self/fd")}
free = itertools.filterfalse(used.__contains__, itertools.count())
limit = list(itertools.islice(free, 4))[-1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
"""
    template = host.template(**write(host, source))
    answer = host.refuse(template)
    assert "raise the limit of open files" in answer.error
    assert template.process.poll() is None


def test_a_fork_that_nobody_waits_for_leaves(host: TemplateHost) -> None:
    """A worker whose supervisor's end was closed before it came ends by itself."""
    template = host.template("asgi_app:app")
    _spec, fork = host.prepare(template)
    ask(template, fork)
    fork.abandon()
    pid = template.expect(Forked).pid
    assert os.waitpid(pid, 0)[1] != 0


def test_forks_are_answered_in_order(host: TemplateHost) -> None:
    """Ten that are asked for at once are all made, each with its own attempt."""
    template = host.template("asgi_app:app")
    forks = [host.prepare(template, attempt=100 + n, lease=0) for n in range(10)]
    for _spec, fork in forks:
        ask(template, fork)
    for spec, fork in forks:
        answer = template.expect(Forked)
        assert answer.attempt == spec.attempt
        child = fork.complete(answer.pid)
        child.signal(signal.SIGKILL)
        os.waitpid(child.pid, 0)
        child.close()
