# ruff: noqa: PD011 - Predictions have values, too

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse

from drumd.config.modelserver.target import Target, TargetType
from drumd.modelserver.errors import HookError
from drumd.modelserver.inference.checks import Checker
from drumd.modelserver.payload import Predictions

REGRESSION = Target(TargetType.REGRESSION)
BINARY = Target(TargetType.BINARY, ("yes", "no"))
MULTICLASS = Target(TargetType.MULTICLASS, ("1", "2", "3"))
MULTILABEL = Target(TargetType.MULTILABEL, ("large", "wide"))
ANOMALY = Target(TargetType.ANOMALY)
TEXT = Target(TargetType.TEXT_GENERATION, name="answer")

ONE_TWO = [1.0, 2.0]
YES_NO = [{"yes": 0.75, "no": 0.25}, {"yes": 0.5, "no": 0.5}]
THIRDS = [{"1": 0.5, "2": 0.25, "3": 0.25}] * 2


def checked(target: Target, returned: Any, classes: list[Any] | None = None) -> Predictions:
    return Checker(target, classes).predictions("score", returned, 2)


@pytest.mark.parametrize(
    ("target", "returned", "values"),
    [
        (REGRESSION, [1, 2], ONE_TWO),
        (REGRESSION, (1, 2), ONE_TWO),
        (REGRESSION, [[1], [2]], ONE_TWO),
        (REGRESSION, np.array([1, 2], dtype=np.float32), ONE_TWO),
        (REGRESSION, np.array([[1], [2]]), ONE_TWO),
        (REGRESSION, pd.Series([1, 2], name="any"), ONE_TWO),
        (REGRESSION, pd.DataFrame({"any": ["1", "2"]}), ONE_TWO),
        (REGRESSION, pd.DataFrame({"any": [1, 2]}, index=[7, 8]), ONE_TWO),
        (REGRESSION, pa.table({"any": [1, 2]}), ONE_TWO),
        (REGRESSION, scipy.sparse.csr_matrix([[1], [2]]), ONE_TWO),
        (REGRESSION, [{"any": 1}, {"any": 2}], ONE_TWO),
        (REGRESSION, [True, False], [1.0, 0.0]),
        (REGRESSION, np.array([(1.0,), (2.0,)], dtype=[("any", float)]), ONE_TWO),
        (ANOMALY, np.array([-1, 1]), [-1.0, 1.0]),
        (BINARY, [0.75, 0.5], YES_NO),
        (BINARY, np.array([0.75, 0.5]), YES_NO),
        (BINARY, pd.DataFrame({"any": [0.75, 0.5]}), YES_NO),
        (BINARY, pd.DataFrame({"no": [0.25, 0.5], "yes": [0.75, 0.5]}), YES_NO),
        (BINARY, np.array([[0.75, 0.25], [0.5, 0.5]]), YES_NO),
        (MULTICLASS, pd.DataFrame({3: [0.25] * 2, 1: [0.5] * 2, 2: [0.25] * 2}), THIRDS),
        (MULTICLASS, pd.DataFrame({3.0: [0.25] * 2, 1.0: [0.5] * 2, 2.0: [0.25] * 2}), THIRDS),
        (MULTICLASS, np.array([[0.5, 0.25, 0.25]] * 2), THIRDS),
        (MULTILABEL, [{"wide": 0.9, "large": 0.8}] * 2, [{"large": 0.8, "wide": 0.9}] * 2),
        (TEXT, ["a", "ü"], ["a", "ü"]),
        (TEXT, pd.DataFrame({"any": ["a", "ü"]}), ["a", "ü"]),
    ],
)
def test_many_forms_of_predictions_are_one(
    target: Target, returned: Any, values: list[Any]
) -> None:
    """Tables, arrays and lists become plain values, by the labels' names and in their order."""
    assert checked(target, returned) == Predictions(values)


@pytest.mark.parametrize("target", [REGRESSION, BINARY, TEXT])
def test_values_are_pythons_own(target: Target) -> None:
    """JSON and other writers need not know of numpy."""
    returned = ["a", "b"] if target is TEXT else np.array([0.5, 0.5], dtype=np.float32)
    for value in checked(target, returned).values:
        for each in value.values() if isinstance(value, dict) else [value]:
            assert type(each) in (float, str)


def test_an_array_has_the_columns_of_the_models_classes() -> None:
    """What `predict_proba` returns is in the order of `classes_`, not of the target's labels."""
    array = np.array([[0.25, 0.75], [0.5, 0.5]])
    assert checked(BINARY, array, ["no", "yes"]).values == YES_NO
    assert checked(BINARY, array, ["other", "classes"]).values[0] == {"yes": 0.25, "no": 0.75}


def test_further_columns_are_extra() -> None:
    """They come along with plain values, missing and infinite ones as None."""
    frame = pd.DataFrame(
        {
            "yes": [0.75, 0.5],
            "score": [1.5, float("nan")],
            "no": [0.25, 0.5],
            "count": np.array([1, 2], dtype=np.uint8),
            "why": [["age"], None],
            "when": pd.Series([pd.Timestamp("2026-01-02"), pd.NaT]),
            "most": [np.float32(0.5), float("inf")],
            7: ["x", pd.NA],
        }
    )
    assert checked(BINARY, frame) == Predictions(
        YES_NO,
        {
            "score": [1.5, None],
            "count": [1, 2],
            "why": [["age"], None],
            "when": ["2026-01-02 00:00:00", None],
            "most": [0.5, None],
            "7": ["x", None],
        },
    )


@pytest.mark.parametrize("name", ["Predictions", "price"])
def test_the_predictions_column_is_found_among_others(name: str) -> None:
    """Of several columns it is the one with the target's name, or `Predictions`."""
    frame = pd.DataFrame({"lower": [0.0, 1.0], name: [1.0, 2.0]})
    target = Target(TargetType.REGRESSION, name="price")
    assert checked(target, frame) == Predictions([1.0, 2.0], {"lower": [0.0, 1.0]})


def test_small_deviations_are_no_errors() -> None:
    """Of 32-bit numbers a sum of 1.0005 is accepted, and a probability just above 1 is 1."""
    frame = pd.DataFrame({"yes": [1.0000001, 0.5005], "no": [0.0, 0.5]})
    assert checked(BINARY, frame).values[0] == {"yes": 1.0, "no": 0.0}


@pytest.mark.parametrize(
    ("target", "returned", "told"),
    [
        (REGRESSION, None, "returned None; it may lack its return"),
        (REGRESSION, 3, "returned an int; expected one column of numbers"),
        (REGRESSION, "12", "returned a str; expected one column of numbers"),
        (REGRESSION, {"a": [1, 2]}, "returned a dict; expected one column of numbers"),
        (REGRESSION, (each for each in [1, 2]), "returned a generator"),
        (REGRESSION, [[1], [2, 3]], "returned a list that is no table"),
        (REGRESSION, [1, 2, 3], "returned 3 rows for 2; expected 2"),
        (REGRESSION, [], "returned 0 rows for 2"),
        (REGRESSION, np.zeros((2, 2, 2)), "returned a ndarray of 3 dimensions"),
        (REGRESSION, np.float64(3), "of 0 dimensions"),
        (REGRESSION, np.zeros((2, 2)), "returned 2 columns without names"),
        (REGRESSION, pd.DataFrame({"a": [1, 2], "b": [1, 2]}), "the columns 'a', 'b'"),
        (REGRESSION, ["1", "two"], "returned 'two' for 'Predictions' in row 1; expected numbers"),
        (REGRESSION, [1, None], "expected finite numbers"),
        (REGRESSION, [1.0, float("nan")], "returned nan for 'Predictions' in row 1"),
        (REGRESSION, [1.0, float("inf")], "returned inf for 'Predictions' in row 1"),
        (REGRESSION, [1j, 2j], "expected numbers"),
        (REGRESSION, [{"any": 1}, 5], "returned {'any': 1} for 'Predictions' in row 0"),
        (BINARY, [0.5, 1.5], "returned 1.5 for 'yes' in row 1; expected probabilities from 0 to 1"),
        (BINARY, [-0.1, 0.5], "returned -0.1 for 'yes' in row 0"),
        (BINARY, np.array([[0.5, 0.6], [0.5, 0.5]]), "that sum to 1.1 in row 0"),
        (BINARY, pd.DataFrame({"no": [0.5, 0.5]}), "returned no column for 'yes'"),
        (
            BINARY,
            pd.DataFrame({"yes": [0.5] * 2, "maybe": [0.5] * 2}),
            "returned no column for 'no' and has 'maybe' instead; expected columns for the labels",
        ),
        (BINARY, pd.DataFrame([[0.5, 0.5]] * 2, columns=["yes", "yes"]), "of the same name"),
        (BINARY, ["yes", "no"], "returned 'yes' for 'yes' in row 0; expected numbers"),
        (MULTICLASS, np.full((2, 2), 0.5), "returned 2 columns without names"),
        (MULTICLASS, [0.5, 0.5], "returned 1 columns without names"),
        (MULTICLASS, [{"1": 1, "2": 0}] * 2, "returned no column for '3'"),
        (MULTICLASS, [{"1": 0.1, "2": 0.1, "3": 0.1}] * 2, "that sum to 0.3"),
        (MULTILABEL, [{"large": 2, "wide": 0}] * 2, "from 0 to 1"),
        (TEXT, [1, 2], "returned 1 in row 0; expected text"),
        (TEXT, ["a", None], "in row 1; expected text"),
        (TEXT, pd.DataFrame({"a": ["a", "b"], "b": ["a", "b"]}), "or one called 'answer'"),
    ],
)
def test_what_does_not_fit_is_told_by_hook_expected_and_got(
    target: Target, returned: Any, told: str
) -> None:
    """The message names the hook, the row, the column and the value."""
    with pytest.raises(HookError) as caught:
        checked(target, returned)
    assert str(caught.value).startswith("cannot predict: score in custom.py returned ")
    assert told in str(caught.value)
    assert (caught.value.hook, caught.value.status) == ("score", 500)


def test_rows_that_cannot_be_counted_are_not_checked() -> None:
    """What read_input_data returns may be anything."""
    assert Checker(REGRESSION).predictions("score", [1, 2, 3], None).values == [1.0, 2.0, 3.0]
