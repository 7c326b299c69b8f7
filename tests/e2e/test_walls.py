"""The walls between the packages, read from the imports in the source."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PACKAGE = CHECKOUT / "drumd"

# Whoever imports these has a clock, chance, or the world at hand; the core has none of that.
IMPURE = {
    "asyncio", "ctypes", "io", "mmap", "multiprocessing", "os", "pathlib", "random", "secrets",
    "select", "selectors", "shutil", "signal", "socket", "subprocess", "tempfile", "threading",
    "time", "urllib",
}  # fmt: skip


def modules(package: str) -> Iterator[Path]:
    """Yield the source files of a package, by its dotted name below drumd."""
    found = sorted((PACKAGE / package.replace(".", "/")).rglob("*.py"))
    assert found, f"no modules in drumd.{package}"
    yield from found


def imports_of(path: Path) -> Iterator[str]:
    """Yield what a file of the checkout imports."""
    package = ".".join(path.relative_to(CHECKOUT).parent.parts)
    yield from imported_names(path.read_text(), package)


def imported_names(source: str, package: str) -> Iterator[str]:
    """Yield the absolute dotted names that a module in `package` imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *filter(None, [base])])
            # `from drumd import workers` names the package only together with the alias.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def breaches(package: str, forbidden: tuple[str, ...]) -> list[str]:
    """Return `file: name` for each import in `package` of something forbidden."""
    return [
        f"{path.relative_to(CHECKOUT)}: {name}"
        for path in modules(package)
        for name in imports_of(path)
        if any(is_in(name, other) for other in forbidden)
    ]


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("config", ("drumd.supervisor", "drumd.workers")),
        ("workers", ("drumd.supervisor",)),
        ("supervisor", ("drumd.workers",)),
        ("wire", ("drumd.config", "drumd.supervisor", "drumd.workers")),
        ("modelserver", ("drumd.supervisor", "drumd.workers", "drumd.wire")),
    ],
)
def test_package_does_not_reach_over_its_walls(package: str, forbidden: tuple[str, ...]) -> None:
    """Each package knows only what docs/design.md lets it know."""
    assert breaches(package, forbidden) == []


def test_core_is_pure() -> None:
    """The core imports itself, the exit codes and the pure part of the standard library alone."""

    def allowed(name: str) -> bool:
        if is_in(name, "drumd.supervisor.core") or is_in(name, "drumd.exitcodes"):
            return True
        top = name.partition(".")[0]
        return top in sys.stdlib_module_names and top not in IMPURE

    assert [
        f"{path.relative_to(CHECKOUT)}: {name}"
        for path in modules("supervisor.core")
        for name in imports_of(path)
        if not allowed(name)
    ] == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import drumd.workers.meter", ["drumd.workers.meter"]),
        ("from drumd import workers", ["drumd.workers"]),
        ("from ..workers import meter", ["drumd.workers.meter"]),
        ("from . import core", ["drumd.supervisor.core"]),
        ("def late():\n    from drumd.workers import meter", ["drumd.workers.meter"]),
    ],
)
def test_no_way_of_importing_is_overlooked(source: str, names: list[str]) -> None:
    """Imports are read as what they mean, in every spelling, and inside of functions too."""
    assert list(imported_names(source, "drumd.supervisor")) == names
