"""The apps' own metrics: what prometheus_client's multiprocess files of all workers add up to.

Workers write `TYPE_L3.db` (gauges: `gauge_MODE_L3.db`) with the lease as the identifier, so a
lease's next worker goes on with its files. A process that a worker forked writes `TYPE_L3-PID.db`,
a program that it started `TYPE_PID.db`; once that has ended, its numbers move to `TYPE_folded.db`,
which only the supervisor writes. So the number of files depends on the leases, not on how many
processes there ever were.

Read in prometheus_client 0.26: the `pid` label of gauges is what stands between the last
underscore and `.db`. Files are read with that package's own reader, whatever state they are in.
"""

import contextlib
import re
import shutil
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drumd.supervisor.observe.families import definitions, family_of, join

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

FOLDED = "folded"
_NAME = re.compile(
    r"(?P<kind>counter|histogram|summary|gauge_(?P<mode>[a-z]+))"
    r"_(L(?P<lease>\d+)(-(?P<pid>\d+))?|(?P<program>\d+))\.db"
)
_COUNTS = ("counter_", "histogram_", "summary_")
"""What files begin with whose numbers only grow."""
_SWEEP_ABOVE = 64
"""Files of forked processes in a directory above which a scrape looks for ended ones."""
_OURS = ("drumd_", "process_")
"""Prefixes of families that drumd reports itself; an app's of the same name are left out."""


@dataclass(frozen=True, slots=True)
class _File:
    """One file of a worker, of a process that it forked, or of a program that it started.

    `pid` is None for the worker itself, `lease` for a program: that has prometheus_client's own
    naming, by pid (multiprocessing's `spawn` starts such ones).
    """

    path: Path
    kind: str
    mode: str
    lease: int | None
    pid: int | None

    @property
    def ended(self) -> bool:
        """Whether it is of a process that is no worker and lives no more."""
        return self.pid is not None and not Path(f"/proc/{self.pid}").exists()


class AppMetrics:
    """Read and look after the files. Safe in threads; each method may take as long as a disk.

    A lock keeps a scrape from seeing numbers both where they were and where they are moved to.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._skipped: Counter[str] = Counter()

    @property
    def skipped(self) -> Mapping[str, int]:
        """How often something was left out of a scrape, by pool: a broken file, a name in use."""
        return dict(self._skipped)

    @contextlib.contextmanager
    def settled(self, timeout: float) -> Iterator[bool]:
        """Let nothing be moved between files meanwhile; give False when that takes too long.

        For an exec, which ends threads in the middle of whatever they do.
        """
        locked = self._lock.acquire(timeout=timeout)
        try:
            yield locked
        finally:
            if locked:
                self._lock.release()

    def resume(self, skipped: Mapping[str, int]) -> None:
        """Go on counting from before a re-exec."""
        self._skipped = Counter(skipped)

    def collect(self, directories: Mapping[str, Sequence[Path]]) -> list["Metric"]:
        """Return the families of all pools, by the directories of their generations.

        Each sample has its pool. A family that two pools have is one. What cannot be read is
        skipped and counted, and so is what a generation defines otherwise than the one before it.
        """
        families: dict[str, Metric] = {}
        for pool, generations in directories.items():
            own: dict[str, Metric] = {}
            for directory in generations:
                left_out = join(own, self._read(pool, directory))
                if left_out:
                    self._skipped[pool] += left_out
            for metric in own.values():
                family = families.setdefault(metric.name, metric)
                if metric.name.startswith(_OURS) or family.type != metric.type:
                    self._skipped[pool] += 1
                    if family is metric:
                        del families[metric.name]
                    continue
                samples = [_with_pool(sample, pool) for sample in metric.samples]
                family.samples = samples if family is metric else family.samples + samples
        return list(families.values())

    def retire(self, directory: Path, lease: int) -> None:
        """Settle the files of `lease` after its worker exited, before the lease is used again.

        What was true only while it lived goes (`live*` gauges), and what its forked processes,
        gone by now, have counted is folded. Call it in a thread: it waits for a running scrape.
        """
        with self._lock:
            for file in list(_files(directory)):
                mine = file.lease == lease
                if mine and file.mode.startswith("live"):
                    file.path.unlink(missing_ok=True)
                elif (mine and file.pid is not None) or (file.lease is None and file.ended):
                    self._fold(file)

    def end(self, directory: Path, into: Path | None) -> None:
        """Remove an ended generation's files, after its last worker exited; call it in a thread.

        What it has counted goes on in `into`, where nothing is defined otherwise under its name.
        """
        with self._lock:
            with contextlib.suppress(Exception):  # a file of an app's can hold anything
                if into is not None:
                    self._move_counts(directory, into)
            shutil.rmtree(directory, ignore_errors=True)

    @staticmethod
    def _move_counts(directory: Path, into: Path) -> None:
        mapped = _mapped_dict()
        counts = [
            (path.name.partition("_")[0], key, value)
            for path in _databases(directory)
            if path.name.startswith(_COUNTS) and _size(path)
            for key, value, _at, _ in mapped.read_all_values_from_file(str(path))
        ]
        mine = definitions((kind, key) for kind, key, _ in counts)
        theirs = definitions(
            (path.name.partition("_")[0], key)
            for path in _databases(into)
            if _size(path)
            for key, *_ in mapped.read_all_values_from_file(str(path))
        )
        for kind in {kind for kind, *_ in counts}:
            _add_to(
                into / f"{kind}_{FOLDED}.db",
                "",
                [
                    (key, value, 0.0)
                    for each, key, value in counts
                    if each == kind
                    and theirs.get(family_of(key), mine[family_of(key)]) == mine[family_of(key)]
                ],
            )

    def _read(self, pool: str, directory: Path) -> Iterable["Metric"]:
        """Merge the files of one directory; leave out those that cannot be read."""
        with self._lock:
            forked = [file for file in _files(directory) if file.pid is not None]
            if len(forked) > _SWEEP_ABOVE:
                for file in forked:
                    if file.ended:
                        self._fold(file)
            # A worker has just created an empty one: nothing is in it yet.
            paths = [str(path) for path in _databases(directory) if _size(path)]
            try:
                return _merge(paths)
            except Exception:  # noqa: BLE001 - a file of an app's can hold anything
                whole = [path for path in paths if self._readable(path)]
                self._skipped[pool] += len(paths) - len(whole)
            try:
                return _merge(whole)
            except Exception:  # noqa: BLE001 - each is whole, together they make no sense
                self._skipped[pool] += len(whole)
                return []

    @staticmethod
    def _readable(path: str) -> bool:
        try:
            _merge([path])
        except Exception:  # noqa: BLE001 - see above
            return False
        return True

    def _fold(self, file: _File) -> None:
        """Move the numbers of an ended process to the folded file of their kind."""
        # A gauge that is shown by process means nothing without it, and would pile up for ever.
        keep = file.mode in ("", "sum", "max", "min", "mostrecent")
        # One that cannot be read is lost; keeping it would make each scrape stumble.
        with contextlib.suppress(Exception):
            if keep and _size(file.path):
                values = _mapped_dict().read_all_values_from_file(str(file.path))
                _add_to(
                    file.path.with_name(f"{file.kind}_{FOLDED}.db"),
                    file.mode,
                    [(key, value, at) for key, value, at, _ in values],
                )
        file.path.unlink(missing_ok=True)


def _merge(paths: list[str]) -> list["Metric"]:
    """Return the families that the files add up to."""
    # Imported when first needed (0.1 s): a daemon starts its workers first.
    from prometheus_client import multiprocess  # noqa: PLC0415

    collector: Any = multiprocess.MultiProcessCollector
    return list(collector.merge(paths))


def _mapped_dict() -> Any:
    """Return prometheus_client's reader and writer of one file, which has no types."""
    from prometheus_client.mmap_dict import MmapedDict  # noqa: PLC0415 - as above

    return MmapedDict


def _add_to(path: Path, mode: str, values: Iterable[tuple[str, float, float]]) -> None:
    """Add values and their timestamps, by key, to a file that only the supervisor writes."""
    folded = _mapped_dict()(str(path))
    try:
        known = {key: (value, at) for key, value, at in folded.read_all_values()}
        for key, value, at in values:
            known[key] = _combined(mode, known.get(key), (value, at))
            folded.write_value(key, *known[key])
    finally:
        folded.close()


def _combined(
    mode: str, old: tuple[float, float] | None, new: tuple[float, float]
) -> tuple[float, float]:
    """Return the value and timestamp that stand for both; counters have no mode and add up."""
    if old is None:
        return new
    if mode == "max":
        return max(old, new)
    if mode == "min":
        return min(old, new)
    if mode == "mostrecent":
        return max(old, new, key=lambda pair: pair[1])
    return old[0] + new[0], 0.0


def _with_pool(sample: Any, pool: str) -> Any:
    """Label `sample` with its pool; an app's own label of that name moves aside, as in scrapes."""
    labels = dict(sample.labels)
    if "pool" in labels:
        labels["exported_pool"] = labels.pop("pool")
    return sample._replace(labels={"pool": pool, **labels})


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _databases(directory: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(path for path in directory.iterdir() if path.suffix == ".db")
    return []


def _files(directory: Path) -> Iterator[_File]:
    for path in _databases(directory):
        if match := _NAME.fullmatch(path.name):
            lease, pid = match["lease"], match["pid"] or match["program"]
            yield _File(
                path=path,
                kind=match["kind"],
                mode=match["mode"] or "",
                lease=int(lease) if lease else None,
                pid=int(pid) if pid else None,
            )
