"""Whether a directory can be a model's: it has code of its own, or one artifact."""

from importlib.metadata import entry_points
from pathlib import Path

CUSTOM = "custom.py"
ARTIFACTS = (".pkl", ".joblib", ".onnx")
"""Suffixes of files that are loaded without code of the model's own."""
EXTENSIONS = "drumd.artifacts"
"""The group of entry points by which packages load further kinds."""


def refuse_directory(code_dir: Path) -> tuple[str, str]:
    """Return what keeps a directory from being a model's, and what to do; nothing if all is well.

    Nothing of the model's is imported, and no extension either, so with one of those installed any
    file may be an artifact.
    """
    try:
        if not code_dir.exists():
            return "there is no such directory", "name the model directory with --code-dir"
        if not code_dir.is_dir():
            return "is no directory", f"name the directory that it is in: {code_dir.parent}"
        there = [each.name for each in code_dir.iterdir() if each.is_file()]
    except OSError as error:
        return f"cannot be read: {(error.strerror or '').lower()}", "see its permissions"
    return _refuse_files(sorted(name for name in there if not name.startswith(".")))


def _refuse_files(there: list[str]) -> tuple[str, str]:
    if CUSTOM in there or entry_points(group=EXTENSIONS):
        return "", ""
    artifacts = [name for name in there if Path(name).suffix.lower() in ARTIFACTS]
    if len(artifacts) > 1:
        return (
            f"has several artifacts and no {CUSTOM}: {', '.join(artifacts)}",
            f"leave one, or write a {CUSTOM} whose load_model says which",
        )
    if not artifacts:
        return (
            f"has neither a {CUSTOM} nor an artifact ({', '.join(ARTIFACTS)})",
            f"write a {CUSTOM} with load_model and score, or put the model's file there",
        )
    return "", ""
