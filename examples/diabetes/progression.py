"""What both apps share: the model, and the numbers that it keeps about itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import joblib
from prometheus_client import Counter, Histogram

MODEL_PATH = Path(__file__).with_name("model.joblib")

MEASUREMENTS = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
"""The columns, in the order in which the model was trained."""

PREDICTIONS = Counter("diabetes_predictions", "Rows that were predicted.")
PROGRESSION = Histogram(
    "diabetes_progression", "What was predicted.", buckets=(50, 100, 150, 200, 250, 300)
)

Row = Mapping[str, float]


class ProgressionModel:
    """Predicts how far the disease will have progressed in a year, from 25 (little) to 346."""

    def __init__(self, path: Path = MODEL_PATH) -> None:
        if not path.exists():
            raise FileNotFoundError(f"cannot load {path}: there is none; run train.py beside it")
        self._pipeline = joblib.load(path)

    def predict(self, rows: Sequence[Row]) -> list[float]:
        """Return one number a row, rounded to one decimal place."""
        table = [[row[name] for name in MEASUREMENTS] for row in rows]
        predictions = [round(float(value), 1) for value in self._pipeline.predict(table)]
        PREDICTIONS.inc(len(predictions))
        for value in predictions:
            PROGRESSION.observe(value)
        return predictions
