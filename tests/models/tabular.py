"""Models of scikit-learn without any custom.py, from data that ship with it."""

# ruff: noqa: PLC0415 - to import scikit-learn takes seconds, and not every test needs it

from pathlib import Path
from typing import Any

import pandas as pd

from drumd.config.modelserver.target import Target, TargetType
from tests.models.built import Built, matrix_market_of, tabular

ROWS = 20
CLASSES = ("setosa", "versicolor", "virginica")

_TEXTS = {
    "good": ["a fine day", "what a fine meal", "fine and warm", "a warm welcome"],
    "bad": ["a cold day", "what a cold meal", "cold and wet", "a wet welcome"],
}


def regression(directory: Path) -> Built:
    """Build a linear regression of diabetes: ten columns of numbers with names."""
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import LinearRegression

    data, target = load_diabetes(return_X_y=True, as_frame=True)
    _dump(LinearRegression().fit(data, target), directory / "model.joblib")
    return tabular(directory, Target(TargetType.REGRESSION), data.head(ROWS))


def binary(directory: Path) -> Built:
    """Build a classifier of tumours; the labels are "yes", the positive one, and "no"."""
    data, _ = cancer()
    _dump(trained_binary(), directory / "model.pkl")
    return tabular(directory, Target(TargetType.BINARY, ("yes", "no")), data.head(ROWS))


def multiclass(directory: Path) -> Built:
    """Build a classifier of irises by name; the labels are in another order than its classes."""
    data, names = irises()
    from sklearn.linear_model import LogisticRegression

    _dump(LogisticRegression(max_iter=200).fit(data, names), directory / "model.joblib")
    return tabular(directory, Target(TargetType.MULTICLASS, CLASSES[::-1]), data[::8])


def multilabel(directory: Path) -> Built:
    """Build a forest that says of an iris whether it is large, and whether it is wide."""
    from sklearn.ensemble import RandomForestClassifier

    data, _ = irises()
    large, wide = data.iloc[:, 0] > data.iloc[:, 0].mean(), data.iloc[:, 1] > data.iloc[:, 1].mean()
    answers = pd.DataFrame({"large": large, "wide": wide}).astype(int)
    model = RandomForestClassifier(n_estimators=5, random_state=0).fit(data, answers)
    _dump(model, directory / "model.joblib")
    return tabular(directory, Target(TargetType.MULTILABEL, ("large", "wide")), data[::8])


def anomaly(directory: Path) -> Built:
    """Build an isolation forest of irises."""
    data, _ = irises()
    _dump(trained_anomaly(), directory / "model.joblib")
    return tabular(directory, Target(TargetType.ANOMALY), data[::8])


def sparse(directory: Path) -> Built:
    """Build a classifier of texts, which takes counts of words as a sparse matrix."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    texts = [text for each in _TEXTS.values() for text in each]
    answers = [label for label, each in _TEXTS.items() for _ in each]
    words = CountVectorizer()
    counts = words.fit_transform(texts)
    _dump(LogisticRegression().fit(counts, answers), directory / "model.joblib")
    payload = matrix_market_of(counts, list(words.get_feature_names_out()))
    return Built(directory, Target(TargetType.BINARY, ("good", "bad")), payload, len(texts))


def cancer() -> tuple[pd.DataFrame, Any]:
    """Return the tumours, and whether each is benign: yes or no."""
    from sklearn.datasets import load_breast_cancer

    data, target = load_breast_cancer(return_X_y=True, as_frame=True)
    return data, target.map({0: "no", 1: "yes"})


def trained_binary() -> Any:
    """Return a trained classifier of tumours."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression()).fit(*cancer())


def trained_anomaly() -> Any:
    """Return a trained isolation forest of irises."""
    from sklearn.ensemble import IsolationForest

    return IsolationForest(n_estimators=5, random_state=0).fit(irises()[0])


def irises() -> tuple[pd.DataFrame, Any]:
    """Return the irises, and the name of each."""
    from sklearn.datasets import load_iris

    data, target = load_iris(return_X_y=True, as_frame=True)
    return data, target.map(dict(enumerate(CLASSES)))


def _dump(model: Any, path: Path) -> None:
    import joblib

    joblib.dump(model, path)
