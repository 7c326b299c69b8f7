"""Reading Apache Arrow's streams and files."""

import re
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.ipc

from drumd.modelserver.errors import RequestError
from drumd.modelserver.payload import Payload
from drumd.modelserver.reading.arrow_sizes import decompressed_size
from drumd.modelserver.reading.arrow_values import unfolded_size
from drumd.modelserver.reading.bounds import bound_cells, bound_size, refuse_duplicates
from drumd.modelserver.reading.mediatype import MediaType

_FILE_MAGIC = b"ARROW1"
_STREAM_IN_FILE = 8
# How pandas writes an index that is not 0, 1, 2 …; it is no column of the data.
_INDEX = re.compile(r"__index_level_\d+__")


def read(payload: Payload, media_type: MediaType) -> pd.DataFrame:
    """Return the table as a DataFrame; raise `RequestError`.

    The notes that pandas leaves in the schema are not looked at: they are a client's to write.
    """
    del media_type  # a stream and a file tell themselves apart
    try:
        table = _table(payload.data)
        names = [name for name in table.column_names if not _INDEX.fullmatch(name)]
        refuse_duplicates(table.column_names)
        bound_cells(table.num_rows, max(1, table.num_columns), len(payload.data))
        bound_size(unfolded_size(table.columns), len(payload.data))
        frame: pd.DataFrame = table.select(names).to_pandas(ignore_metadata=True, use_threads=False)
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, MemoryError) as error:
        told = str(error).partition("\n")[0] or type(error).__name__
        raise RequestError(f"cannot read the data as Arrow: {told}") from None
    if not len(frame) or not len(frame.columns):
        raise RequestError(
            f"cannot read the data: the table has {len(frame)} rows and {len(frame.columns)} "
            "columns; send at least one of each"
        )
    return frame


def _table(data: bytes) -> Any:
    stream = pa.py_buffer(data)
    if data.startswith(_FILE_MAGIC):
        # A file holds a stream, and then an index of it that a client may have written wrongly.
        stream = stream.slice(_STREAM_IN_FILE)
    bound_size(decompressed_size(stream), len(data))
    options = pa.ipc.IpcReadOptions(use_threads=False)
    table = pa.ipc.open_stream(stream, options=options).read_all()
    # Offsets and lengths are as the client wrote them; what follows would read wherever they point.
    table.validate(full=True)
    return table
