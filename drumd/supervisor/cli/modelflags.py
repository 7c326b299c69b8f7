"""Flags that say what a model is, of all commands that load one."""

import argparse
import json

from drumd.supervisor.cli.arguments import Parser

_VARIABLES = (
    "TARGET_TYPE",
    "POSITIVE_CLASS_LABEL",
    "NEGATIVE_CLASS_LABEL",
    "CLASS_LABELS_FILE",
    "TARGET_NAME",
    "RUNTIME_PARAMS_FILE",
)
"""Variables that a flag of the same name overrides."""
_LABELS = "CLASS_LABELS"


def add_model_flags(parser: Parser, *, or_here: bool) -> None:
    """Add the flags; `or_here`: without a model directory the current one is it."""
    add = parser.add_argument
    default = "; default: here" if or_here else ""
    add("--code-dir", metavar="DIR", help=f"the model directory (or CODE_DIR{default})")
    add(
        "--target-type",
        metavar="TYPE",
        help="regression, binary, multiclass, multilabel, anomaly, unstructured, textgeneration or "
        "transform (or TARGET_TYPE, or the model's model-metadata.yaml)",
    )
    add("--positive-class-label", metavar="LABEL", help="of a binary model")
    add("--negative-class-label", metavar="LABEL", help="of a binary model")
    add(
        "--class-labels",
        metavar="LABEL",
        nargs="+",
        help="of a multiclass or multilabel model: several, or one text a,b,c or a JSON list",
    )
    add("--class-labels-file", metavar="FILE", help="the same, one a line")
    add("--target-name", metavar="NAME", help="the column that is predicted")
    add("--runtime-params-file", metavar="FILE", help="YAML, NAME: value")


def said_of_model(given: argparse.Namespace) -> dict[str, str]:
    """Return what was said, by the name of the variable that says the same."""
    said = {name: getattr(given, name.lower()) for name in _VARIABLES}
    labels = given.class_labels
    if labels is not None:
        # A single one may be a list in itself; several are what they are, commas included.
        said[_LABELS] = labels[0] if len(labels) == 1 else json.dumps(labels)
    return {name: text for name, text in said.items() if text is not None}
