"""Loading a model from a single file: its suffix says how.

Other kinds come from packages, by entry points of the group `drumd.artifacts`. Each names an object
with these attributes; its entry point's name is shown as the kind of the model:

    suffixes                          such as (".cbm",), in lower case
    load(path)                        returns the model; what it raises is shown
    predict(model, data, target)      optional: returns what a score hook may return. Without it
                                      the model's own `predict` or `predict_proba` is called.

They win over the kinds that are built in, so that a package may read `.pkl` in its own way.
"""

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drumd.config.modelserver.target import Target
from drumd.modelserver.errors import LoadError
from drumd.modelserver.inference.blame import advice, described
from drumd.modelserver.inference.interruptions import is_the_users_own
from drumd.modelserver.shown import some_of

ENTRY_POINTS = "drumd.artifacts"

Predict = Callable[[Any, Any, Target], Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of artifact."""

    name: str
    suffixes: tuple[str, ...]
    load: Callable[[Path], Any]
    predict: Predict | None = None
    extra: str = ""
    """The extra of drumd that brings what `load` imports."""
    packages: tuple[str, ...] = ()
    """What that extra brings, as it is imported."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A loaded file."""

    model: Any
    kind: Kind


def find(code_dir: Path) -> list[Path]:
    """Return the files of a model directory that are artifacts of a known kind."""
    kinds = _kinds()
    return sorted(path for path in _files(code_dir) if path.suffix.lower() in kinds)


def load(path: Path) -> Artifact:
    """Load an artifact; raise `LoadError`."""
    kind = _kinds()[path.suffix.lower()]
    try:
        return Artifact(kind.load(path), kind)
    except BaseException as error:
        if not is_the_users_own(error):
            raise
        raise LoadError(
            f"cannot load the model: reading {path.name} as {kind.name} raised "
            f"{described(error)}{_advice(error, kind)}"
        ) from error


def choices(code_dir: Path) -> str:
    """Return what a model directory may hold, and what this one does, for a message."""
    found = [path.name for path in sorted(code_dir.iterdir()) if not path.name.startswith(".")]
    suffixes = ", ".join(_kinds())
    return (
        f"{code_dir} has {some_of(found) or 'no files'}; it must have a custom.py with load_model, "
        f"or one file that ends in {suffixes}"
    )


def _files(code_dir: Path) -> list[Path]:
    return [path for path in code_dir.iterdir() if path.is_file() and not path.name.startswith(".")]


def _kinds() -> Mapping[str, Kind]:
    kinds = {suffix: kind for kind in _BUILT_IN for suffix in kind.suffixes}
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            found = point.load()
            kind = Kind(
                point.name, tuple(found.suffixes), found.load, getattr(found, "predict", None)
            )
        except Exception as error:
            raise LoadError(
                f"cannot load the model: the extension {point.name} ({point.value}) of "
                f"{ENTRY_POINTS} raised {described(error)}; update or remove its package"
            ) from error
        kinds |= dict.fromkeys(kind.suffixes, kind)
    return kinds


def _advice(error: BaseException, kind: Kind) -> str:
    if isinstance(error, ModuleNotFoundError):
        missing = (error.name or "").partition(".")[0]
        if missing in kind.packages:
            return f"; run pip install 'drumd[{kind.extra}]'"
    return advice(error)


def _load_pickle(path: Path) -> Any:
    import joblib  # noqa: PLC0415 - it is in an extra, and only this kind needs it

    return joblib.load(path)


def _load_onnx(path: Path) -> Any:
    from drumd.modelserver.inference import onnx_models  # noqa: PLC0415 - as above

    return onnx_models.load(path)


_BUILT_IN = (
    Kind(
        "scikit-learn",
        (".pkl", ".joblib"),
        _load_pickle,
        extra="sklearn",
        packages=("joblib", "sklearn"),
    ),
    Kind("onnxruntime", (".onnx",), _load_onnx, extra="onnx", packages=("onnxruntime",)),
)
