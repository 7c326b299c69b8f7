"""`model-metadata.yaml`: what a model directory says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drumd.config.modelserver.yamlfile import YamlFile, read_yaml
from drumd.config.problems import Problem

CODE_DIR = "CODE_DIR"
"""The variable that names the model directory."""
METADATA = "model-metadata.yaml"
_MODEL = "inferenceModel"


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the file says; nothing where there is none."""

    file: YamlFile

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the file itself."""
        return self.file.problems

    def text(self, *path: str) -> tuple[str, str] | None:
        """Return the text at `path` as it is written, and where: `yes` is a label, no boolean.

        None where nothing is said, or nothing that is one text.
        """
        found = self._find(path)
        return (found, self.file.origin(*path)) if isinstance(found, str) and found else None

    def label(self, name: str) -> tuple[str, str] | None:
        """Return what `inferenceModel` says under `name`, and where."""
        return self.text(_MODEL, name)

    def texts(self, name: str) -> tuple[list[Any], str] | None:
        """Return the list that `inferenceModel` has under `name`, as it is written, and where."""
        found = self._find((_MODEL, name))
        return (found, self.file.origin(_MODEL, name)) if isinstance(found, list) else None

    def value(self, name: str) -> Any:
        """Return what the file says under `name`, or None."""
        return self.file.data.get(name)

    def _find(self, path: tuple[str, ...]) -> Any:
        found: Any = self.file.texts
        for name in path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found


def read_metadata(code_dir: Path) -> Metadata:
    """Read the file of a model directory, which need not have one."""
    file = code_dir / METADATA
    if not file.exists():
        return Metadata(YamlFile(name=METADATA))
    return Metadata(read_yaml(file, METADATA, "what the model says of itself"))
