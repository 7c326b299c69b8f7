"""Train the example model on the diabetes data that ships with scikit-learn, and save it.

    python examples/diabetes/train.py

The data: 442 patients, ten measurements of each, and how far the disease had progressed a year
later (Efron et al., "Least Angle Regression", 2004). Training takes a moment, and always gives the
same model.
"""

import os
from pathlib import Path

import joblib
from sklearn.datasets import load_diabetes
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

MODEL_PATH = Path(__file__).with_name("model.joblib")


def train() -> Pipeline:
    """Return a model that takes the ten measurements as they were taken, in the data's order."""
    rows, progression = load_diabetes(return_X_y=True, scaled=False)
    return make_pipeline(StandardScaler(), RidgeCV()).fit(rows, progression)


def save(model: Pipeline, path: Path = MODEL_PATH) -> None:
    """Replace the model file in one step: a worker that starts meanwhile reads a whole one."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    joblib.dump(model, unfinished)
    unfinished.replace(path)


if __name__ == "__main__":
    save(train())
