"""Reading JSON records: a list of objects, one a row."""

from typing import Any

import pandas as pd

from drumd.modelserver import jsonbytes
from drumd.modelserver.errors import RequestError
from drumd.modelserver.payload import Payload
from drumd.modelserver.reading.bounds import TEXT_CELLS_PER_BYTE, bound_cells
from drumd.modelserver.reading.mediatype import MediaType, decode

_EXPECTED = 'send a list of objects, one a row: [{"age": 42, "name": "Ada"}]'


def read(payload: Payload, media_type: MediaType) -> pd.DataFrame:
    """Return the records as a DataFrame; what one of them lacks is a missing value."""
    records = jsonbytes.loads(decode(payload.data, media_type.charset))
    if not isinstance(records, list):
        raise RequestError(f"cannot read the data: the JSON is {kind_of(records)}; {_EXPECTED}")
    if not records:
        raise RequestError(f"cannot read the data: the list has no rows; {_EXPECTED}")
    columns: dict[str, None] = {}
    for row, record in enumerate(records):
        if not isinstance(record, dict):
            raise RequestError(
                f"cannot read the data: row {row} of the JSON is {kind_of(record)}; {_EXPECTED}"
            )
        columns.update(dict.fromkeys(record))
    if not columns:
        raise RequestError(f"cannot read the data: the records have no columns; {_EXPECTED}")
    bound_cells(len(records), len(columns), len(payload.data), TEXT_CELLS_PER_BYTE)
    try:
        return pd.DataFrame.from_records(records, columns=list(columns))
    # Numbers can be too big for any column.
    except (ValueError, TypeError, OverflowError) as error:
        raise RequestError(f"cannot read the data: no table can hold it: {error}") from None


def kind_of(value: Any) -> str:
    """Return what JSON calls a value: `an object`."""
    return _KINDS.get(type(value), "a value")


_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
