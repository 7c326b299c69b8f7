"""Libraries that are too old for Pydantic 2, found by what is installed."""

import sys
from pathlib import Path

import pytest

from drumd.config.versions import too_old


def install(directory: Path, name: str, version: str) -> None:
    """Write what pip leaves of an installed package."""
    info = directory / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.parametrize(
    ("name", "version", "told"),
    [
        ("langchain", "0.0.354", "pip install 'langchain>=0.1.0'"),
        ("langchain", "0.1.0rc1", "pip install 'langchain>=0.1.0'"),
        ("langchain", "0.1", ""),
        ("langchain", "0.1.0", ""),
        ("langchain", "0.10.2.post1", ""),
        ("mlflow", "2.8.1", "pip install 'mlflow>=2.9.0'"),
        ("mlflow", "2.9.0", ""),
        ("mlflow", "2.10.0", ""),
        ("mlflow", "3.0.0", ""),
        ("ray", "2.7.2", "pip install 'ray[serve]>=2.8.0'"),
        ("ray", "2.8.0", ""),
        ("ray", "2.8.0.dev0", "pip install 'ray[serve]>=2.8.0'"),
    ],
)
def test_old_versions_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str, told: str
) -> None:
    """A library below the first version that supports Pydantic 2 is told with what to install."""
    install(tmp_path, name, version)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = [str(each) for each in too_old()]
    if told:
        assert found == [f"{name} {version}: " + found[0].partition(": ")[2]]
        assert found[0].endswith(told)
        assert "is too old for Pydantic 2" in found[0]
    else:
        assert found == []
    assert name not in sys.modules


def test_nothing_installed_and_nothing_readable_are_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without these libraries, and with a broken one, nothing is told."""
    assert list(too_old()) == []
    (tmp_path / "ray-2.0.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(too_old()) == []
