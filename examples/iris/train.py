"""Train a model on the iris data that ships with scikit-learn, and save it beside this file.

    python examples/iris/train.py

The data: 150 flowers of three species, four measurements of each (Fisher, "The Use of Multiple
Measurements in Taxonomic Problems", 1936). Training takes a moment, and always gives one model.
"""

from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

MODEL_PATH = Path(__file__).with_name("model.joblib")


def main() -> None:
    """Train the model and save it."""
    flowers = load_iris(as_frame=True)
    rows = flowers.data.rename(columns=lambda name: name.removesuffix(" (cm)").replace(" ", "_"))
    species = flowers.target.map(dict(enumerate(flowers.target_names)))
    joblib.dump(LogisticRegression(max_iter=500).fit(rows, species), MODEL_PATH)


if __name__ == "__main__":
    main()
