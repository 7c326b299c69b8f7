"""Tempers what the model beside it answers: the one hook that this model needs."""

from typing import Any

import pandas as pd

from drumd import RuntimeParameters


def post_process(predictions: pd.DataFrame, model: Any) -> pd.DataFrame:
    """Return the probabilities drawn together, or apart, as much as the operator wants."""
    del model
    tempered = predictions ** (1 / RuntimeParameters.get("TEMPERATURE"))
    return tempered.div(tempered.sum(axis="columns"), axis="index")
