"""Model directories to test with, written into a directory when asked for.

Each builder takes an empty directory, fills it, and returns what was `Built`. Their data ship with
scikit-learn; to train one takes some milliseconds, to import scikit-learn a second or two.
"""

from tests.models.built import Built
from tests.models.generative import chat, chat_hook, text_generation
from tests.models.hooked import (
    binary_hooks,
    failing_hooks,
    failing_load,
    moody,
    slow,
    transform,
    unstructured,
    with_custom,
)
from tests.models.onnx import (
    onnx_anomaly,
    onnx_binary,
    onnx_multiclass,
    onnx_regression,
    onnx_whole_numbers,
)
from tests.models.tabular import anomaly, binary, multiclass, multilabel, regression, sparse

__all__ = [
    "Built",
    "anomaly",
    "binary",
    "binary_hooks",
    "chat",
    "chat_hook",
    "failing_hooks",
    "failing_load",
    "moody",
    "multiclass",
    "multilabel",
    "onnx_anomaly",
    "onnx_binary",
    "onnx_multiclass",
    "onnx_regression",
    "onnx_whole_numbers",
    "regression",
    "slow",
    "sparse",
    "text_generation",
    "transform",
    "unstructured",
    "with_custom",
]
