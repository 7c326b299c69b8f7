"""Log lines for people."""

from typing import Any

import pytest

from drumd.supervisor.observe.console import ConsoleRenderer


def event(name: str, reason: str) -> dict[str, Any]:
    return {"time": 0.0, "level": "info", "event": name, "reason": reason}


@pytest.mark.parametrize("dated", [False, True])
def test_a_failure_is_said_once_to_who_watches(dated: bool) -> None:
    """On a terminal what follows from a failure does not repeat it; elsewhere lines stand alone."""
    render = ConsoleRenderer(colours=False, dated=dated)
    first = render(None, "", event("worker.failed", "cannot import app:app: no module"))
    assert "cannot import app:app: no module" in first
    then = render(
        None, "", event("slot.backoff", "waits 0.1 s after: cannot import app:app: no module")
    )
    assert ("waits 0.1 s after: as above" in then) is not dated
    again = render(None, "", event("worker.failed", "cannot import app:app: no module"))
    assert "cannot import app:app: no module" in again
