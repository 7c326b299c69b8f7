"""What the model predicts: its target type and its labels, from flags, environment and files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drumd.config.modelserver.metadata import METADATA, Metadata
from drumd.config.modelserver.sayings import Sayings, flag_of
from drumd.config.modelserver.target import Target, TargetType
from drumd.config.problems import ABSENT, Problem, nearest

TARGET_TYPE = "TARGET_TYPE"
POSITIVE = "POSITIVE_CLASS_LABEL"
NEGATIVE = "NEGATIVE_CLASS_LABEL"
LABELS = "CLASS_LABELS"
LABELS_FILE = "CLASS_LABELS_FILE"
TARGET_NAME = "TARGET_NAME"

_LEAST_LABELS = 2


def read_target(
    sayings: Sayings, metadata: Metadata, directory: Path
) -> tuple[Target, list[Problem]]:
    """Return the target and all that is wrong with it; a file of labels is looked for here."""
    reader = _Reader(sayings, metadata, directory)
    return reader.target(), reader.problems


@dataclass(slots=True)
class _Reader:
    """Reads one thing after the other, and goes on after a problem."""

    sayings: Sayings
    metadata: Metadata
    directory: Path
    problems: list[Problem] = field(default_factory=list)

    def target(self) -> Target:
        kind = self._type()
        name = self.sayings.get(TARGET_NAME) or self.metadata.label("targetName")
        labels: tuple[str, ...] = ()
        if kind is TargetType.BINARY:
            labels = self._binary()
        elif kind is not None and kind.has_labels:
            labels = self._several(kind)
        found = Target(kind or TargetType.UNSTRUCTURED, labels)
        return Target(found.type, labels, name[0]) if name else found

    def _type(self) -> TargetType | None:
        said = self.sayings.get(TARGET_TYPE) or self.metadata.text("targetType")
        types = ", ".join(TargetType)
        if said is None:
            self._wrong(
                TARGET_TYPE,
                "is missing: what does the model predict?",
                f"set --target-type, {TARGET_TYPE}, or targetType in {METADATA}, to one of {types}",
            )
            return None
        text, origin = said
        try:
            return TargetType(text.strip().lower())
        except ValueError:
            meant = nearest(text, TargetType)
            hint = f"did you mean {meant}?" if meant else ""
            self._wrong(TARGET_TYPE, f"must be one of {types}", hint, text, origin)
            return None

    def _binary(self) -> tuple[str, ...]:
        labels: list[str] = []
        origin = ""
        for variable, name in ((POSITIVE, "positiveClassLabel"), (NEGATIVE, "negativeClassLabel")):
            said = self.sayings.get(variable) or self.metadata.label(name)
            if said is None:
                self._wrong(
                    variable,
                    "is missing: a binary model has two labels",
                    f"set {flag_of(variable)}, {variable}, or inferenceModel: {name} in {METADATA}",
                )
            else:
                labels.append(said[0])
                origin = said[1]
        if len(labels) == _LEAST_LABELS and labels[0] == labels[1]:
            why = "must be another label than the positive one"
            self._wrong(NEGATIVE, why, "", labels[1], origin)
        return tuple(labels)

    def _several(self, kind: TargetType) -> tuple[str, ...]:
        said = self.sayings.one_of(LABELS, LABELS_FILE)
        if len(said) > 1:
            self._wrong(
                LABELS,
                f"cannot be set beside {LABELS_FILE}: which of them is meant?",
                "leave one out",
            )
            return ()
        if said and said[0].variable == LABELS_FILE:
            return self._from_file(said[0].text, said[0].origin)
        if said:
            found = self._from_text(said[0].text, said[0].origin)
            return () if found is None else self._checked(found, LABELS, said[0].origin)
        listed = self.metadata.texts("classLabels")
        if listed is not None:
            return self._checked(listed[0], "inferenceModel.classLabels", listed[1])
        named = self.metadata.label("classLabelsFile")
        if named is not None:
            return self._from_file(*named)
        self._wrong(
            LABELS,
            f"is missing: a {kind} model has a label for each class",
            f"set --class-labels, --class-labels-file, {LABELS}, {LABELS_FILE}, "
            f"or inferenceModel: classLabels in {METADATA}",
        )
        return ()

    def _from_file(self, text: str, origin: str) -> tuple[str, ...]:
        file = self.directory / Path(text).expanduser()
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else "no UTF-8"
            self._wrong(LABELS_FILE, f"cannot read the labels: {why.lower()}", "", text, origin)
            return ()
        return self._checked(_stripped(lines), LABELS_FILE, origin)

    def _from_text(self, text: str, origin: str) -> list[Any] | None:
        if text.lstrip().startswith("["):
            try:
                return list(json.loads(text, parse_int=str, parse_float=str, parse_constant=str))
            except (ValueError, RecursionError):
                self._wrong(LABELS, "is no JSON list", 'write ["a", "b"], or a,b', text, origin)
                return None
        separator = "\n" if "\n" in text.strip() else ","
        return _stripped(text.split(separator))

    def _checked(self, labels: Sequence[Any], key: str, origin: str) -> tuple[str, ...]:
        texts = tuple(each for each in labels if isinstance(each, str))
        twice = {each for each in texts if texts.count(each) > 1}
        if len(texts) < len(labels) or not all(texts):
            self._wrong(
                key, "must be a list of labels, none of them empty", "", list(labels), origin
            )
        elif len(texts) < _LEAST_LABELS:
            self._wrong(key, "must have at least two labels", "", list(labels), origin)
        elif twice:
            what = ", ".join(map(repr, sorted(twice)))
            self._wrong(key, f"has a label twice: {what}", "", list(labels), origin)
        return texts

    def _wrong(
        self, key: str, message: str, suggestion: str = "", value: Any = ABSENT, origin: str = ""
    ) -> None:
        self.problems.append(
            Problem(key=key, value=value, message=message, suggestion=suggestion, origin=origin)
        )


def _stripped(parts: Sequence[str]) -> list[str]:
    """Return what is there of each part: no blanks around it, and no empty ones."""
    return [part.strip() for part in parts if part.strip()]
