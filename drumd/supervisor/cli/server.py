"""The command line of `drumd server`: the model directory, its target, and how it is served."""

import argparse
import json
from typing import TYPE_CHECKING

from drumd.supervisor.cli.arguments import Parser

if TYPE_CHECKING:
    from drumd.config.modelserver.command import ModelServer

POOL_FLAGS = ("workers", "preload", "start_timeout")
"""Keys of the pool; each is the name of its flag, too."""

_VARIABLES = (
    "TARGET_TYPE",
    "POSITIVE_CLASS_LABEL",
    "NEGATIVE_CLASS_LABEL",
    "CLASS_LABELS_FILE",
    "TARGET_NAME",
    "URL_PREFIX",
    "RUNTIME_PARAMS_FILE",
)
"""Variables that a flag of the same name overrides."""


def arguments(parser: Parser) -> None:
    """Add the flags."""
    add = parser.add_argument
    add("--code-dir", metavar="DIR", help="the model directory (or CODE_DIR)")
    add(
        "--address",
        metavar="HOST:PORT",
        help="where to serve (or ADDRESS; default: 127.0.0.1:8000)",
    )
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
    add("--url-prefix", metavar="PATH", help="what all paths begin with, such as /models/diabetes")
    add("--runtime-params-file", metavar="FILE", help="YAML, NAME: value")
    add("--workers", metavar="N", help="how many, as with `drumd serve` (or CUSTOM_MODEL_WORKERS)")
    add("--preload", action="store_true", default=None, help="load the model once, and fork")
    add("--start-timeout", metavar="T", help="how long a worker may load (default: 10m)")


def model_server(given: argparse.Namespace) -> "ModelServer":
    """Return what was said of the model."""
    # Imported when needed: `--help` and a typing error are to be answered at once.
    from drumd.config.modelserver.command import ModelServer  # noqa: PLC0415

    flags = {name: getattr(given, name.lower()) for name in _VARIABLES}
    labels = given.class_labels
    if labels is not None:
        # A single one may be a list in itself; several are what they are, commas included.
        flags["CLASS_LABELS"] = labels[0] if len(labels) == 1 else json.dumps(labels)
    return ModelServer(
        code_dir=given.code_dir,
        address=given.address,
        flags={name: text for name, text in flags.items() if text is not None},
    )


def pool_flags(given: argparse.Namespace) -> dict[str, object]:
    """Return what was said of the pool, by the config's keys."""
    from drumd.config.modelserver.command import POOL  # noqa: PLC0415 - as above

    return {f"pools.{POOL}.{key}": getattr(given, key) for key in POOL_FLAGS}
