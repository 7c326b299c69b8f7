"""What the end-to-end tests share: a daemon that ends with its test, and tells why it failed."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Start `drumd` with the given arguments, in the test's own directory."""
    started: list[Daemon] = []

    def start(*arguments: str, **options: object) -> Daemon:
        directory = tmp_path / f"daemon-{len(started)}"
        directory.mkdir()
        started.append(Daemon(directory, arguments, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for each in started:
        each.end()
        sys.stdout.write(each.text())  # captured, and shown when the test failed
