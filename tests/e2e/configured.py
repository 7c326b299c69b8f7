"""A daemon whose config file the test changes while it runs."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.e2e.daemon import Daemon, Document, free_port
from tests.e2e.served import Served, toml

QUICK: Mapping[str, Any] = {"linger": 0, "rollout": {"min_ready": 0}}


class Configured(Served):
    """One running daemon, and what its file says: change `pools` or `supervisor`, then `write`."""

    def __init__(
        self,
        start: Callable[..., Daemon],
        directory: Path,
        app_dir: Path,
        *,
        environ: Mapping[str, str] | None = None,
        **pools: Mapping[str, Any],
    ) -> None:
        self.config = directory / "drumd.toml"
        self.app_dir = app_dir
        self.supervisor: dict[str, Any] = {
            "admin_socket": str(directory / "daemon-0" / "admin.sock")
        }
        self.pools = {name: self.pool_of(**pool) for name, pool in pools.items()}
        self.write()
        options = {} if environ is None else {"environ": environ}
        daemon = start("run", "--config", str(self.config), **options)
        ports = {name: port_of(pool["bind"][0]) for name, pool in self.pools.items()}
        super().__init__(daemon, directory, ports)

    def pool_of(self, **pool: Any) -> dict[str, Any]:
        """Return a pool of this app at an address of its own."""
        return {
            "app": "steady:asgi",
            "app_dir": str(self.app_dir),
            "bind": [f"127.0.0.1:{free_port()}"],
            **QUICK,
            **pool,
        }

    def write(self) -> None:
        """Write the file anew."""
        self.config.write_text(toml({"supervisor": self.supervisor, "pools": self.pools}))

    def reload(self, *arguments: str, code: int = 0) -> str:
        """Run `drumctl reload`, which must end with `code`; return all that it said."""
        return self.ctl("reload", *arguments, code=code)

    def ctl(self, *arguments: str, code: int = 0) -> str:
        """Run drumctl, which must end with `code`; return all that it said."""
        done = self.daemon.drumctl(*arguments)
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def in_force(self) -> Document:
        """Return the values of the config in force, by key."""
        keys = json.loads(self.ctl("config", "--json"))["keys"]
        return {each["key"]: each["value"] for each in keys}

    def names(self) -> list[str]:
        """Return the names of the pools that there are."""
        return [pool["name"] for pool in self.status()["pools"]]


def port_of(bind: str) -> int:
    """Return the port of an address."""
    return int(bind.rpartition(":")[2])
