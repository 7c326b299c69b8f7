"""What the model server does around its answers: queues, streams, clients that leave, metrics."""

import contextlib
import json
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import models
from tests.e2e.daemon import Daemon, get
from tests.e2e.model_servers import TYPES, Asked, ModelServer, Told, all_types, model_server
from tests.models.generative import chat_hook
from tests.waiting import wait_until

DATA = b"a,b\n1,2\n3,4\n"
CHUNKS = 200
MAX_BODY = 200_000

STEERED_CHAT = """
    import itertools
    import time
    from pathlib import Path

    HERE = Path(__file__).parent

    def chat(completion_create_params, model):
        return steered(completion_create_params)

    def steered(params):
        count = int(params["messages"][0]["content"])
        words = itertools.repeat("word", count) if count else itertools.repeat("word")
        try:
            for number, chunk in enumerate(chunks(params, words)):
                while number and not (HERE / "go").exists():
                    time.sleep(0.005)
                yield chunk
        finally:
            (HERE / "closed").touch()
"""
"""As many chunks as the message says, or without end for 0; the second one comes once there is a
file `go`, and the end leaves a file `closed`."""


LAYERED = "fastapi with a layer"
LAYER = """
def init_app(app):
    @app.middleware("http")
    async def layer(request, call_next):
        return await call_next(request)
"""
"""Starlette's BaseHTTPMiddleware, which stands between an answer and its client."""


def stream_of(count: int) -> bytes:
    message = {"role": "user", "content": str(count)}
    return json.dumps({"messages": [message], "stream": True}).encode()


def model_directory(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    return directory


def predict(server: ModelServer) -> Told:
    return server.post("/predict", DATA)


@contextlib.contextmanager
def asking(server: ModelServer, count: int) -> Iterator[list["Pending"]]:
    """Send that many requests to predict, without reading their answers."""
    with contextlib.ExitStack() as stack:
        pending = [Pending(server) for _ in range(count)]
        for each in pending:
            stack.callback(each.leave)
        yield pending


class Pending:
    """A request that was sent, and whose answer was not read yet."""

    def __init__(self, server: ModelServer, path: str = "/predict", body: bytes = DATA) -> None:
        self.connection = server.connect()
        content_type = "text/csv" if body is DATA else "application/json"
        server.send(self.connection, Asked("POST", path, body=body, content_type=content_type))

    def answer(self) -> tuple[int, bytes]:
        response = self.connection.getresponse()
        return response.status, response.read()

    def leave(self) -> None:
        self.connection.close()


# --- the pool of hooks, in FastAPI ----------------------------------------------------------------


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[tuple[ModelServer, Path]]:
    """Serve a slow model with two threads, and room for one that waits."""
    built = models.slow(model_directory(tmp_path))
    parameters = {
        "CUSTOM_MODEL_THREADS": 2,
        "CUSTOM_MODEL_QUEUE": 1,
        "DRUM_MAX_REQUEST_SIZE": MAX_BODY,
    }
    with model_server(tmp_path / "fastapi", built, "fastapi", parameters=parameters) as server:
        yield server, built.directory


def test_a_full_queue_is_503_with_retry_after(narrow: tuple[ModelServer, Path]) -> None:
    """With all threads busy and the queue full, a request is refused; the others are answered."""
    server, directory = narrow
    with asking(server, 2) as computed:
        wait_until((directory / "waiting-2").exists, what="two hooks that run")
        with asking(server, 1) as waiting:
            refused = wait_until(lambda: refusal(server), what="a full queue")
            assert refused is not None
            assert refused.headers["retry-after"] == "1"
            assert refused.json() == {
                "message": "ERROR: cannot answer now: 2 requests are computed and 1 wait; "
                "try again later"
            }
            assert not (directory / "waiting-3").exists()
            (directory / "go").touch()
            for each in (*computed, *waiting):
                assert each.answer() == (200, b'{"predictions":[1.0,3.0]}')
    assert predict(server).status == 200


def test_bodies_that_fill_the_room_are_refused_with_retry_after(
    narrow: tuple[ModelServer, Path],
) -> None:
    """A worker holds so many bytes of bodies, though nobody has sent one to its end."""
    server, directory = narrow
    (directory / "go").touch()
    body = b"a,b\n" + b"1,2\n" * (MAX_BODY // 4 - 1)
    with contextlib.ExitStack() as stack:
        begun = {}
        for _ in range(7):
            connection = stack.enter_context(contextlib.closing(server.connect()))
            connection.putrequest("POST", "/predict")
            connection.putheader("Content-Type", "text/csv")
            connection.putheader("Content-Length", str(MAX_BODY))
            connection.endheaders(body[:-1])
            begun[connection.sock] = connection
        # Room is for three: as many as there are threads, and one more.
        refused = wait_until(
            lambda: found if len(found := select.select(begun, (), (), 0)[0]) == 4 else [],
            what="four refusals",
        )
        for each in refused:
            response = begun.pop(each).getresponse()
            assert response.status == 503
            assert response.getheader("retry-after") == "1"
            assert b"the bodies of requests fill the 600000 bytes" in response.read()
        assert predict(server).status == 503
        assert server.get("/ping").status == 200
        for connection in begun.values():
            connection.send(body[-1:])
            assert connection.getresponse().status == 200
    assert predict(server).status == 200


def test_a_worker_whose_threads_all_hang_is_replaced(tmp_path: Path) -> None:
    """Hooks that hang are told with their stacks, and another worker answers, clients or not."""
    built = models.slow(model_directory(tmp_path))
    parameters = {"CUSTOM_MODEL_THREADS": 2, "DRUM_CLIENT_REQUEST_TIMEOUT": 1}
    config = {"DRUMD_POOLS__MODEL__GRACE_PERIOD": "1s", "DRUMD_POOLS__MODEL__STOP_TIMEOUT": "1s"}
    with model_server(
        tmp_path / "fastapi", built, "fastapi", parameters=parameters, environ=config
    ) as server:
        (before,) = server.daemon.wait_ready(1, "model")
        with asking(server, 2):
            wait_until((built.directory / "waiting-2").exists, what="two hooks that run")
        # Their clients are gone, so no request is in flight any more.
        server.daemon.wait_for("worker.exited", pid=before["pid"])
        (built.directory / "go").touch()
        assert predict(server).status == 200
        log = server.daemon.text()
        assert "all 2 threads for hooks are stuck" in log
        assert "in score" in log


def refusal(server: ModelServer) -> Told | None:
    """Return the refusal of a request; None, after leaving, where it is taken in."""
    connection = server.connect()
    connection.timeout = 0.2
    with contextlib.closing(connection), contextlib.suppress(TimeoutError):
        told = server.ask_on(
            connection, Asked("POST", "/predict", body=DATA, content_type="text/csv")
        )
        return told if told.status == 503 else None
    return None


def test_a_client_that_leaves_the_queue_frees_its_place(
    narrow: tuple[ModelServer, Path],
) -> None:
    """When the client that waits goes away, another one gets its place, and no hook runs for it."""
    server, directory = narrow
    with asking(server, 2) as computed:
        wait_until((directory / "waiting-2").exists, what="two hooks that run")
        with asking(server, 1):
            wait_until(lambda: refusal(server), what="a full queue")
        # Left; `refusal` itself takes the place in turn, and gives it up again.
        wait_until(lambda: not refusal(server), what="a free place")
        (directory / "go").touch()
        assert [each.answer()[0] for each in computed] == [200, 200]
    wait_until(lambda: predict(server).status == 200)
    stats = server.get("/stats").json()["requests"]["predict"]
    ran = len(list(directory.glob("waiting-*")))
    assert ran < stats["count"]


def test_the_small_endpoints_never_wait_for_hooks(narrow: tuple[ModelServer, Path]) -> None:
    """With every thread busy and the queue full, /ping, /health, /info and /stats answer."""
    server, directory = narrow
    with asking(server, 3):
        wait_until((directory / "waiting-2").exists, what="two hooks that run")
        for path in ("/ping", "/health", "/info", "/stats", "/capabilities"):
            assert server.get(path).status == 200
        (directory / "go").touch()


# --- streams --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chats(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[dict[str, ModelServer], dict[str, Path]]]:
    """Serve a chat that is steered by files, from a directory of its own by each server type."""
    home = tmp_path_factory.mktemp("chats")
    with contextlib.ExitStack() as stack:
        servers, directories = {}, {}
        for each in (*TYPES, LAYERED):
            directories[each] = home / each / "model"
            directories[each].mkdir(parents=True)
            built = chat_hook(directories[each], STEERED_CHAT)
            if each is LAYERED:
                (directories[each] / "custom_fastapi.py").write_text(LAYER)
            server_type = each.partition(" ")[0]
            server = model_server(home / each / "run", built, server_type)
            servers[each] = stack.enter_context(server)
        yield servers, directories


@pytest.mark.parametrize("server_type", [*TYPES, LAYERED])
def test_events_are_sent_as_they_are_made(
    chats: tuple[dict[str, ModelServer], dict[str, Path]], server_type: str
) -> None:
    """The first event arrives while the second one is still being made."""
    server, directory = chats[0][server_type], chats[1][server_type]
    (directory / "go").unlink(missing_ok=True)
    pending = Pending(server, "/chat/completions", stream_of(CHUNKS))
    response = pending.connection.getresponse()
    assert response.status == 200
    assert response.getheader("content-type") == "text/event-stream; charset=utf-8"
    first = response.readline()
    assert json.loads(first.removeprefix(b"data: "))["choices"][0]["delta"] == {"content": "word"}
    assert server.get("/ping").status == 200
    (directory / "go").touch()
    events = (first + response.read()).split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    assert len(events) == CHUNKS + 2
    pending.leave()


@pytest.mark.parametrize("server_type", [*TYPES, LAYERED])
def test_a_client_that_leaves_a_stream_ends_it(
    chats: tuple[dict[str, ModelServer], dict[str, Path]], server_type: str
) -> None:
    """The model's generator is closed when its reader is gone, and the server serves on."""
    server, directory = chats[0][server_type], chats[1][server_type]
    for name in ("go", "closed"):
        (directory / name).unlink(missing_ok=True)
    pending = Pending(server, "/chat/completions", stream_of(0))
    assert pending.connection.getresponse().readline().startswith(b"data: {")
    pending.leave()
    assert not (directory / "closed").exists()
    (directory / "go").touch()
    wait_until((directory / "closed").exists, what="the generator's end")
    assert server.get("/ping").status == 200


# --- what the log and the client are told ---------------------------------------------------------


@pytest.fixture(scope="module")
def moody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ModelServer]]:
    """Serve the moody model by each server type."""
    home = tmp_path_factory.mktemp("moody")
    built = models.moody(model_directory(home))
    with all_types(home, built) as servers:
        yield servers


@pytest.mark.parametrize("server_type", TYPES)
def test_a_hooks_traceback_is_for_the_log_alone(
    moody: dict[str, ModelServer], server_type: str
) -> None:
    """The client gets the hook and the exception; the log gets its lines, once, with the id."""
    server = moody[server_type]
    told = server.ask(
        Asked(
            "POST",
            "/predict",
            body=b"mood\nraise\n",
            content_type="text/csv",
            headers={"X-Request-ID": "the-bad-one"},
        )
    )
    assert told.status == 500
    assert told.headers["x-request-id"] == "the-bad-one"
    said = "cannot predict: score in custom.py raised ValueError: no such colour"
    assert told.json() == {"message": f"ERROR: {said}"}
    lines = wait_until(
        lambda: [line for line in server.output() if "no such colour" in line][2:],
        what="the traceback in the log",
    )
    assert lines == ["ValueError: no such colour"]
    assert server.output().count(f"request the-bad-one: {said}") == 1
    assert server.output().count("Traceback (most recent call last):") == 1
    assert not [line for line in server.output() if "drumd/modelserver" in line]


@pytest.mark.parametrize("server_type", TYPES)
def test_a_body_that_is_cut_off_is_not_predicted(
    moody: dict[str, ModelServer], server_type: str
) -> None:
    """Rows that arrived before the client went away are not answered as if they were all."""
    server = moody[server_type]
    with socket.create_connection(("127.0.0.1", server.port), 30) as client:
        client.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
            b"Content-Length: 30\r\n\r\nmood\nfine\nfine\n"
        )
        client.shutdown(socket.SHUT_WR)
        answer = client.makefile("rb").read()
    # Uvicorn takes a client that says no more for one that is gone.
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    counted = wait_until(
        lambda: server.get("/stats").json()["requests"].get("predict"), what="the request counted"
    )
    assert counted["errors"] >= 1


# --- metrics --------------------------------------------------------------------------------------


def samples(daemon: Daemon) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return what Prometheus would scrape of the model, without the pool's label."""
    status, text = get("/metrics", over=daemon.directory / "admin.sock")
    assert status == 200
    return {
        (sample.name, tuple(sorted(set(sample.labels.items()) - {("pool", "model")}))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("model_") and not sample.name.endswith("_created")
    }


def requests_of(found: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> dict[str, float]:
    return {
        " ".join(dict(labels)[name] for name in ("route", "method", "status")): value
        for (name, labels), value in found.items()
        if name == "model_requests_total"
    }


@pytest.mark.parametrize(
    ("server_type", "preload"),
    [
        pytest.param("flask", (), id="flask"),
        pytest.param("gunicorn", ("--preload",), id="gunicorn-preload"),
        pytest.param("fastapi", (), id="fastapi"),
        pytest.param("fastapi", ("--preload",), id="fastapi-preload"),
    ],
)
def test_prometheus_is_told_of_routes_hooks_and_the_load(
    tmp_path: Path, server_type: str, preload: tuple[str, ...]
) -> None:
    """Requests by route, method and status; their seconds; those in flight; hooks; the load."""
    built = models.moody(model_directory(tmp_path))
    with model_server(tmp_path / "run", built, server_type, arguments=preload) as server:
        for mood in ("fine", "fine", "raise"):
            server.post("/predictions/", f"mood\n{mood}\n".encode())
        server.get("/nowhere/1")
        server.get("/nowhere/2")
        server.get("/predict")
        server.ask(Asked("HEAD", "/ping"))
        found = wait_until(
            lambda: now if (now := samples(server.daemon)) and len(requests_of(now)) == 5 else {},
            what="the requests counted",
        )
    assert requests_of(found) == {
        "predict POST 200": 2,
        "predict POST 500": 1,
        "predict GET 405": 1,
        "none GET 404": 2,
        "ping HEAD 200": 1,
    }
    assert {
        " ".join(value for _, value in labels): count
        for (name, labels), count in found.items()
        if name == "model_request_seconds_count"
    } == {"predict 200": 2, "predict 500": 1, "predict 405": 1, "none 404": 2, "ping 200": 1}
    assert found[("model_hook_seconds_count", (("hook", "score"),))] == 3
    assert found[("model_requests_in_flight", (("route", "predict"),))] == 0
    assert found[("model_load_seconds", ())] > 0


@pytest.mark.parametrize("server_type", ["gunicorn", "fastapi"])
def test_requests_in_flight_are_those_being_answered(tmp_path: Path, server_type: str) -> None:
    """The gauge follows a request from its begin to its end."""
    built = models.slow(model_directory(tmp_path))
    in_flight = ("model_requests_in_flight", (("route", "predict"),))
    with model_server(tmp_path / "run", built, server_type) as server, asking(server, 1) as asked:
        wait_until((built.directory / "waiting-1").exists, what="a hook that runs")
        assert samples(server.daemon)[in_flight] == 1
        (built.directory / "go").touch()
        assert asked[0].answer()[0] == 200
        wait_until(lambda: samples(server.daemon)[in_flight] == 0, what="none in flight")
