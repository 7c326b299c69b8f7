"""A real systemd, booted as PID 1 of namespaces of its own on a throw-away copy of this machine."""

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.waiting import wait_until

BOOT_SCRIPT = Path(__file__).with_name("boot.sh")


class BootedSystem:
    """The handle of one booted systemd. Files in it are reached through `root`."""

    def __init__(self, directory: Path) -> None:
        self._cgroup = _own_cgroup() / f"drumd-tests-{os.getpid()}"
        self._console = directory / "console.log"
        stage = directory / "stage"
        stage.mkdir()
        self._cgroup.mkdir()
        # systemd takes the cgroup that it is born in for the root of all: hence one for it alone.
        enter = f'echo $$ >"{self._cgroup}/cgroup.procs"; exec "$@"'
        unshare = ["unshare", "--pid", "--mount", "--ipc", "--uts", "--cgroup", "--net"]
        site_packages = sysconfig.get_path("purelib")
        boot = ["sh", str(BOOT_SCRIPT), str(stage), sys.base_prefix, site_packages]
        with self._console.open("wb") as console:
            self._unshare = subprocess.Popen(
                ["sh", "-c", enter, "sh", *unshare, "--fork", "--kill-child", *boot],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self.init = wait_until(self._find_init, what="systemd's pid")
            wait_until(self._is_up, what="a running systemd")
        except AssertionError as problem:
            self.shut_down()
            problem.add_note(self._console.read_text(errors="replace"))
            raise

    @property
    def root(self) -> Path:
        """The booted system's root directory, seen from outside."""
        return Path(f"/proc/{self.init}/root")

    def _find_init(self) -> int:
        pid = self._unshare.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def _is_up(self) -> bool:
        if self._unshare.poll() is not None:
            raise AssertionError(f"systemd ended while booting, with {self._unshare.returncode}")
        # Until then nsenter would find a half-made mount namespace.
        if Path(f"/proc/{self.init}/comm").read_text().strip() != "systemd":
            return False
        return self.run("systemctl", "is-system-running", check=False).strip() == "running"

    def command(self, *arguments: str | Path) -> list[str]:
        """Return the command line that runs `arguments` inside."""
        return ["nsenter", "--all", "--target", str(self.init), "--", *map(str, arguments)]

    def run(self, *arguments: str | Path, check: bool = True) -> str:
        """Run a command inside and return what it prints; raise unless it ends with 0."""
        done = self.attempt(*arguments)
        if check and done.returncode != 0:
            raise AssertionError(f"{arguments} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def attempt(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command inside, whatever comes of it."""
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=120, check=False
        )

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start a command inside and go on."""
        return subprocess.Popen(
            self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file inside."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def exists(self, path: str) -> bool:
        """Say whether there is such a file inside."""
        return (self.root / path.lstrip("/")).exists()

    def shut_down(self) -> None:
        """End all its processes at once; what it wrote goes with them."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._unshare.pid, signal.SIGKILL)
        (self._cgroup / "cgroup.kill").write_text("1")
        self._unshare.wait(timeout=30)
        events = self._cgroup / "cgroup.events"
        wait_until(lambda: "populated 0" in events.read_text(), what="an empty cgroup")
        for directory, _, _ in os.walk(self._cgroup, topdown=False):
            Path(directory).rmdir()


def _own_cgroup() -> Path:
    """Return the directory of this process's group in the version 2 hierarchy (cgroups(7))."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] == "cgroup2":
            mount_point = Path(fields[4])
            break
    else:
        raise AssertionError("no cgroup2 file system is mounted here")
    group = next(
        line.removeprefix("0::")
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if line.startswith("0::")
    )
    return mount_point / group.strip("/")
