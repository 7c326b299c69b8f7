"""What `custom_flask.py` and `custom_fastapi.py` add: routes, layers, authentication."""

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests import models
from tests.e2e.model_servers import TYPES, Asked, ModelServer, answers, model_server
from tests.models import Built

FLASK = """
    from flask import abort, jsonify, request
    from werkzeug.datastructures import WWWAuthenticate
    from werkzeug.exceptions import TooManyRequests, Unauthorized

    def init_app(app):
        @app.before_request
        def check():
            if request.headers.get("Authorization") != "Bearer letmein":
                abort(401, "the token is wrong")

        @app.after_request
        def sign(response):
            response.headers["X-Signed"] = "yes"
            return response

        @app.get("/mine/<int:number>")
        def mine(number):
            return jsonify(number=number)

        @app.post("/ping")
        def posted():
            return jsonify(posted=True)

        @app.get("/broken")
        def broken():
            raise ValueError("a secret")

        @app.get("/gone")
        def gone():
            abort(410, "it was here")

        @app.get("/private")
        def private():
            raise Unauthorized("your name, please", www_authenticate=WWWAuthenticate("basic"))

        @app.get("/busy")
        def busy():
            raise TooManyRequests("not so fast", retry_after=7)

        @app.get("/started")
        def started():
            return "yes"
"""
FASTAPI = """
    from fastapi import HTTPException, Request
    from fastapi.responses import HTMLResponse, JSONResponse

    def init_app(app):
        @app.middleware("http")
        async def check(request: Request, call_next):
            if request.headers.get("Authorization") != "Bearer letmein":
                return JSONResponse({"message": "ERROR: the token is wrong"}, 401)
            response = await call_next(request)
            response.headers["X-Signed"] = "yes"
            return response

        @app.get("/mine/{number}")
        def mine(number: int):
            return {"number": number}

        @app.post("/ping")
        def posted():
            return {"posted": True}

        @app.get("/broken")
        def broken():
            raise ValueError("a secret")

        @app.get("/gone")
        def gone():
            raise HTTPException(410, "it was here")

        @app.get("/private")
        def private():
            raise HTTPException(401, "your name, please", {"WWW-Authenticate": "Basic"})

        @app.get("/busy")
        def busy():
            raise HTTPException(429, "not so fast", {"Retry-After": "7"})

        @app.on_event("startup")
        async def start():
            app.state.started = "yes"

        @app.get("/started")
        def started():
            return HTMLResponse(app.state.started)
"""
TOKEN = {"Authorization": "Bearer letmein"}
DATA = b"mood\nfine\n"


def extended(directory: Path, **files: str) -> Built:
    directory.mkdir()
    built = models.moody(directory)
    for name, source in files.items():
        (directory / f"{name}.py").write_text(dedent(source))
    return built


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ModelServer]]:
    """Serve a model with both extensions by each server type."""
    home = tmp_path_factory.mktemp("extended")
    built = extended(home / "model", custom_flask=FLASK, custom_fastapi=FASTAPI)
    with (
        model_server(home / "flask", built, "flask") as flask,
        model_server(home / "gunicorn", built, "gunicorn") as gunicorn,
        model_server(home / "fastapi", built, "fastapi") as fastapi,
    ):
        yield {"flask": flask, "gunicorn": gunicorn, "fastapi": fastapi}


REQUESTS = {
    "nobody": Asked("GET", "/ping", 401),
    "nobody predicts": Asked("POST", "/predict", 401, DATA, "text/csv"),
    "nobody, nowhere": Asked("GET", "/nowhere", 401),
    "ping": Asked("GET", "/ping", 200, headers=TOKEN),
    "predict": Asked("POST", "/predict/", 200, DATA, "text/csv", headers=TOKEN),
    "nowhere": Asked("GET", "/nowhere", 404, headers=TOKEN),
    "mine": Asked("GET", "/mine/7", 200, headers=TOKEN),
    "a method of both": Asked("POST", "/ping", 200, headers=TOKEN),
    "a method of neither": Asked("PUT", "/ping", 405, headers=TOKEN),
    "not mine": Asked("POST", "/mine/7", 405, headers=TOKEN),
    "gone": Asked("GET", "/gone", 410, headers=TOKEN),
    "private": Asked("GET", "/private", 401, headers=TOKEN),
    "started": Asked("GET", "/started", 200, headers=TOKEN),
    "busy": Asked("GET", "/busy", 429, headers=TOKEN),
}


def test_extensions_see_every_route_and_differ_in_nothing(servers: dict[str, ModelServer]) -> None:
    """Authentication guards all routes; the same extension gives the same answers everywhere."""
    found = {each: answers(server, REQUESTS) for each, server in servers.items()}
    for told in found.values():
        assert {name: answer["status"] for name, answer in told.items()} == {
            name: asked.status for name, asked in REQUESTS.items()
        }
        assert told["nobody"]["body"] == {"message": "ERROR: the token is wrong"}
        assert told["nobody"]["headers"]["x-request-id"] == "made"
        assert told["gone"]["body"] == {"message": "ERROR: it was here"}
        assert told["private"]["headers"]["www-authenticate"] == "Basic"
        assert told["busy"]["headers"]["retry-after"] == "7"
        assert told["mine"]["body"] == {"number": 7}
        assert told["started"]["body"] == b"yes"
        # Flask answers OPTIONS and HEAD for what an extension adds; FastAPI does not.
        assert "PUT" not in told["a method of neither"]["headers"]["allow"]
        del told["not mine"], told["a method of neither"]
        for name in ("mine", "a method of both"):
            del told[name]["headers"]["content-length"]  # jsonify ends its text with a new line
    assert found["flask"] == found["gunicorn"] == found["fastapi"]


@pytest.mark.parametrize("server_type", TYPES)
def test_layers_of_an_extension_sign_every_answer(
    servers: dict[str, ModelServer], server_type: str
) -> None:
    """What an extension does to answers it does to the model server's own as well."""
    for path in ("/ping", "/info", "/mine/1", "/nowhere"):
        told = servers[server_type].ask(Asked("GET", path, headers=TOKEN))
        assert told.headers["x-signed"] == "yes"


@pytest.mark.parametrize("server_type", TYPES)
def test_what_an_extension_raises_is_told_to_the_log_alone(
    servers: dict[str, ModelServer], server_type: str
) -> None:
    """A route of the extension that raises is answered by 500 in the usual form, with the id."""
    server = servers[server_type]
    headers = {**TOKEN, "X-Request-ID": "the-broken-one"}
    told = server.ask(Asked("GET", "/broken", headers=headers))
    assert told.status == 500
    assert told.headers["x-request-id"] == "the-broken-one"
    assert told.json() == {
        "message": "ERROR: cannot answer: the server failed; "
        "its log says why, with request id the-broken-one"
    }
    server.daemon.wait_for("worker.output", line="ValueError: a secret")
    server.daemon.wait_for("worker.output", line="request the-broken-one: cannot answer")


@pytest.mark.parametrize(
    ("server_type", "source", "said"),
    [
        ("gunicorn", "x = 1", "cannot use custom_flask.py: it has no plain function init_app"),
        (
            "fastapi",
            "async def init_app(app): ...",
            "custom_fastapi.py: it has no plain",
        ),
        (
            "gunicorn",
            "def init_app(app):\n    raise ValueError('no way')",
            "cannot extend the app: init_app in custom_flask.py raised ValueError: no way",
        ),
        ("fastapi", "import nothing_like_it", "custom_fastapi.py raised ModuleNotFoundError"),
    ],
)
def test_an_extension_that_cannot_be_used_ends_the_server(
    tmp_path: Path, server_type: str, source: str, said: str
) -> None:
    """It ends with exit 3 and says what is wrong with which file."""
    own, other = "custom_flask", "custom_fastapi"
    if server_type == "fastapi":
        own, other = other, own
    # The other server's file is not even imported.
    built = extended(tmp_path / "model", **{own: source, other: "raise SystemExit(99)"})
    with (
        pytest.raises(AssertionError, match="ended with 3 before") as ended,
        model_server(tmp_path / "run", built, server_type),
    ):
        pass
    assert said in str(ended.value)


def test_each_server_type_imports_its_own_framework_alone(tmp_path: Path) -> None:
    """Flask comes without FastAPI, and the other way round; nor comes what this model needs not."""
    built = extended(tmp_path / "model")
    shown = """
        import sys

        def score(data, model):
            import pandas as pd
            names = ("fastapi", "starlette", "uvicorn", "flask", "werkzeug", "gunicorn",
                     "scipy", "httpx", "sklearn", "onnxruntime")
            loaded = ",".join(name for name in names if name in sys.modules)
            return pd.DataFrame({"Predictions": [1.0], "loaded": [loaded]})
    """
    (built.directory / "custom.py").write_text(dedent(shown))
    loaded = {}
    for each in TYPES:
        with model_server(tmp_path / each, built, each) as server:
            (extra,) = server.post("/predict", DATA).json()["extraModelOutput"]
            loaded[each] = set(extra["loaded"].split(","))
    assert loaded["flask"] == {"flask", "werkzeug"}
    assert loaded["gunicorn"] == {"flask", "werkzeug", "gunicorn"}
    assert loaded["fastapi"] == {"fastapi", "starlette", "uvicorn"}
