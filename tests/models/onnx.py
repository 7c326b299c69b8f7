"""Models of scikit-learn, converted to ONNX."""

# ruff: noqa: PLC0415 - to import scikit-learn takes seconds, and not every test needs it

from pathlib import Path
from typing import Any

from drumd.config.modelserver.target import Target, TargetType
from tests.models.built import Built, tabular
from tests.models.tabular import CLASSES, ROWS, cancer, irises, trained_anomaly, trained_binary


def onnx_regression(directory: Path, *, columns: bool = False) -> Built:
    """Build a regression of diabetes; with `columns`, each is an input of its own."""
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data, target = load_diabetes(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), LinearRegression()).fit(data, target)
    _convert(model, data, directory, columns=columns)
    return tabular(directory, Target(TargetType.REGRESSION), data.head(ROWS))


def onnx_whole_numbers(directory: Path) -> Built:
    """Build a regression, 11 times the rooms and the age, of two inputs of whole numbers."""
    import pandas as pd
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import Int64TensorType
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data = pd.DataFrame({"rooms": [1, 2, 3, 4], "age": [10, 0, 20, 5]})
    model = make_pipeline(StandardScaler(), LinearRegression())
    model.fit(data, 11 * data["rooms"] + data["age"])
    inputs = [(name, Int64TensorType([None, 1])) for name in data.columns]
    converted = to_onnx(model, initial_types=inputs)
    (directory / "model.onnx").write_bytes(converted.SerializeToString())
    return tabular(directory, Target(TargetType.REGRESSION), data)


def onnx_binary(directory: Path, *, zipmap: bool = True) -> Built:
    """Build a classifier of tumours; without `zipmap` its probabilities are a plain array."""
    data, _ = cancer()
    _convert(trained_binary(), data, directory, zipmap=zipmap)
    return tabular(directory, Target(TargetType.BINARY, ("yes", "no")), data.head(ROWS))


def onnx_multiclass(directory: Path, *, zipmap: bool = True, model: Any = None) -> Built:
    """Build a classifier of irises, of `model`, which is trained here, or a linear one."""
    from sklearn.linear_model import LogisticRegression

    data, names = irises()
    model = LogisticRegression(max_iter=200) if model is None else model
    _convert(model.fit(data, names), data, directory, zipmap=zipmap)
    return tabular(directory, Target(TargetType.MULTICLASS, CLASSES[::-1]), data[::8])


def onnx_anomaly(directory: Path) -> Built:
    """Build the isolation forest of irises."""
    data, _ = irises()
    # Of what it is made, its runtime knows no newer version.
    _convert(trained_anomaly(), data, directory, versions={"": 17, "ai.onnx.ml": 3})
    return tabular(directory, Target(TargetType.ANOMALY), data[::8])


def _convert(
    model: Any,
    data: Any,
    directory: Path,
    *,
    columns: bool = False,
    zipmap: bool | None = None,
    versions: dict[str, int] | None = None,
) -> None:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    count = len(data.columns)
    inputs = [(name, FloatTensorType([None, 1])) for name in data.columns]
    converted = to_onnx(
        model,
        initial_types=inputs if columns else [("X", FloatTensorType([None, count]))],
        options=None if zipmap is None else {"zipmap": zipmap},
        target_opset=versions,
    )
    (directory / "model.onnx").write_bytes(converted.SerializeToString())
