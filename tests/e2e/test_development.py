"""`--reload`: the code is watched, and a change of it is served, unless it is broken."""

from collections.abc import Callable
from pathlib import Path

from tests.e2e.daemon import Daemon, free_port
from tests.e2e.visitor import Address
from tests.waiting import wait_until

APP = """
import helper
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    body = helper.TEXT.encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""


def serve(daemon: Callable[..., Daemon], code: Path, *flags: str) -> tuple[Daemon, Address]:
    """Serve the app in `code`, watched."""
    (code / "app.py").write_text(APP)
    (code / "helper.py").write_text("TEXT = 'one'")
    port = free_port()
    drumd = daemon(
        *("serve", "app:app", "--app-dir", str(code), "--bind", f"127.0.0.1:{port}"),
        *("--reload", *flags),
    )
    drumd.wait_for("daemon.ready")
    address = Address(port)
    assert address.get().body == "one"
    return drumd, address


def answers(address: Address, body: str) -> None:
    """Wait until that is the answer; no request fails meanwhile."""
    wait_until(lambda: address.get().body == body, what=f"the answer {body!r}")


def test_change_is_served(daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """Each change of a module is served, also one of the same second and size."""
    drumd, address = serve(daemon, tmp_path)
    for text in ("two", "six", "ten"):
        (tmp_path / "helper.py").write_text(f"TEXT = {text!r}")
        answers(address, text)
    started = drumd.wait_for("rollout.started")
    assert "a change of helper.py" in started["reason"]


def test_broken_change_leaves_the_last_good_one(
    daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """A syntax error is told and serves nobody; the correction is served."""
    drumd, address = serve(daemon, tmp_path, "--preload")
    (tmp_path / "helper.py").write_text("TEXT = 'two")
    aborted = drumd.wait_for("rollout.aborted")
    assert "SyntaxError" in aborted["reason"]
    assert address.get().body == "one"
    (tmp_path / "helper.py").write_text("TEXT = 'two'")
    answers(address, "two")


def test_other_files_are_no_change(daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """What the app writes beside its code rolls nothing."""
    drumd, address = serve(daemon, tmp_path)
    (tmp_path / "data.csv").write_text("1,2")
    (tmp_path / "helper.py").write_text("TEXT = 'two'")
    answers(address, "two")
    drumd.wait_for("rollout.done")
    started = [line["reason"] for line in drumd.log() if line["event"] == "rollout.started"]
    assert len(started) == 1
    assert "data.csv" not in started[0]
