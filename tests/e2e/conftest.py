"""What the end-to-end tests share: a daemon that ends with its test, and tells why it failed."""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemon import APPS, Daemon, free_port
from tests.e2e.served import Served, toml


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


@pytest.fixture
def serve(daemon: Callable[..., Daemon], tmp_path: Path) -> Callable[..., Served]:
    """Start `drumd run` with the given pools (`web={…}`); what is not said has quick values."""
    started = 0

    def start(terminal: int | None = None, **pools: Mapping[str, Any]) -> Served:
        nonlocal started
        started += 1
        steer = tmp_path / f"steer-{started}"
        steer.mkdir()
        ports = {name: free_port() for name in pools}
        config = tmp_path / f"drumd-{started}.toml"
        config.write_text(
            toml(
                {
                    "supervisor": {
                        "admin_socket": str(tmp_path / f"daemon-{started - 1}/admin.sock")
                    },
                    "pools": {
                        name: {
                            "app": "unruly:asgi",
                            "app_dir": str(APPS),
                            "bind": [f"127.0.0.1:{ports[name]}"],
                            "linger": 0,
                            **pool,
                            "environment": {"STEER": str(steer), **pool.get("environment", {})},
                        }
                        for name, pool in pools.items()
                    },
                }
            )
        )
        return Served(daemon("run", "--config", str(config), terminal=terminal), steer, ports)

    return start
