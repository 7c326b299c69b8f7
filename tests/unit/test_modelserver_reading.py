import contextlib
import io
import json
import math
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from drumd.modelserver import reading
from drumd.modelserver.errors import RequestError
from drumd.modelserver.payload import Payload
from tests.models.built import (
    ARROW_FILE,
    ARROW_STREAM,
    CSV,
    JSON,
    MATRIX_MARKET,
    arrow_of,
    csv_of,
    json_of,
    matrix_market_of,
)

FRAME = pd.DataFrame({"a": [1, 2, 3], "b": [0.5, None, 2.5], "c": ["x", "grün", "z"]})
HEADER = b"%%MatrixMarket matrix coordinate real general\n"


def refused(payload: Payload) -> RequestError:
    with pytest.raises(RequestError) as caught:
        reading.read(payload)
    assert str(caught.value).startswith("cannot read ")
    return caught.value


@pytest.mark.parametrize(
    "payload",
    [csv_of(FRAME), json_of(FRAME), arrow_of(FRAME), arrow_of(FRAME, ARROW_FILE)],
    ids=["csv", "json", "arrow stream", "arrow file"],
)
def test_every_format_becomes_the_same_table(payload: Payload) -> None:
    """Columns, types and missing values are equal, whichever format they came in."""
    pd.testing.assert_frame_equal(reading.read(payload), FRAME, check_dtype=False)


@pytest.mark.parametrize(
    "content_type", ["", "application/octet-stream", "application/csv", "TEXT/CSV; charset=UTF-8"]
)
def test_what_names_no_format_is_csv(content_type: str) -> None:
    """Without a content type, or with one that says nothing, the data are taken for CSV."""
    assert list(reading.read(Payload(b"a,b\n1,2\n", content_type))["b"]) == [2]


@pytest.mark.parametrize(
    "content_type", ["text/html", "text/plain", "multipart/form-data", "application/x-nothing"]
)
def test_an_unknown_content_type_is_met_with_the_known_ones(content_type: str) -> None:
    """It is answered with 415, and with what can be sent."""
    error = refused(Payload(b"a,b\n1,2\n", content_type))
    assert error.status == 415
    for known in (CSV, JSON, MATRIX_MARKET, ARROW_STREAM, ARROW_FILE):
        assert known in str(error)


@pytest.mark.parametrize("charset", ["latin-1", "utf-16", '"cp1252"', "UTF-8"])
def test_the_charset_of_the_content_type_is_honoured(charset: str) -> None:
    """Text arrives as it was meant, in whichever charset it was sent."""
    data = "grün\nschön\n".encode(charset.strip('"'))
    frame = reading.read(Payload(data, f"text/csv; charset={charset}"))
    assert list(frame["grün"]) == ["schön"]


@pytest.mark.parametrize("charset", ["klingon", "base64", "punycode", "a" * 100, "x\0y"])
def test_a_charset_that_is_none_is_refused(charset: str) -> None:
    """Neither an unknown name nor a codec of Python's that is no charset is tried."""
    assert refused(Payload(b"a\n1\n", f"text/csv; charset={charset}")).status == 415


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    """A CSV file that Excel wrote has the same columns as any other."""
    assert list(reading.read(Payload(b"\xef\xbb\xbfa,b\n1,2\n"))) == ["a", "b"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "the body is empty"),
        (b" \n\n", "the body is empty"),
        (b"a,b\n", "there is a header but no row"),
        (b"gr\xfcn,b\n1,2\n", "byte 2 (0xfc) is not valid"),
        (b"a,b\n1,2\n3\n", "the row that ends in line 3 has 1 fields, the header 2"),
        (b'a,b\n"x\ny",2\n\n3\n', "the row that ends in line 5 has 1 fields, the header 2"),
        (b"a,b\n0,1,2\n1,3,4\n", "the row that ends in line 2 has 3 fields, the header 2"),
        (b"a;b\n1,5;2\n", "the header 1; there is one column, 'a;b': separate the fields with"),
        (b"a,b\n1,2\n3,4,5\n", "Expected 2 fields in line 3, saw 3"),
        (b'a,b\n1,"2\n', "EOF inside string"),
        (b"a,b\n1,\x00\n", "character 6 is NUL"),
        (b"a,b,a\n1,2,3\n", "the column 'a' is there twice"),
    ],
)
def test_unreadable_csv_is_told_of_by_its_line(data: bytes, told: str) -> None:
    """The message says what is wrong and where, with status 422."""
    error = refused(Payload(data))
    assert told in str(error)
    assert error.status == 422


def test_csv_that_looks_odd_is_read_all_the_same() -> None:
    """Empty lines, missing values at the end, and names such as a.1 are no mistakes."""
    frame = reading.read(Payload(b'a,a.1,last\r\n1,"x\ny",\r\n\r\n2,"1,5",3\r\n'))
    assert list(frame["a"]) == [1, 2]
    assert list(frame["a.1"]) == ["x\ny", "1,5"]
    assert math.isnan(frame["last"][0])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"a": 1}', "the JSON is an object"),
        (b"[]", "the list has no rows"),
        (b"[1]", "row 0 of the JSON is a number"),
        (b'[{"a": 1}, null]', "row 1 of the JSON is null"),
        (b"[{}]", "the records have no columns"),
        (b'[{"a": NaN}]', "NaN is not JSON"),
        (b'[{"a": -Infinity}]', "-Infinity is not JSON"),
        (b'[{"a": 1}', "Expecting ',' delimiter"),
        (b"[" * 100_000, "nested too deeply"),
        (b'[{"a": ' + b"9" * 5000 + b"}]", "Exceeds the limit"),
        (b'[{"\\ud800": "\\udfff"}]', "half a surrogate pair"),
        (b'[{"a": "gr\xfcn"}]', "byte 10 (0xfc) is not valid"),
    ],
)
def test_unreadable_json_says_what_is_expected(data: bytes, told: str) -> None:
    """Only a list of objects, in strict JSON, is a table."""
    error = refused(Payload(data, JSON))
    assert told in str(error)
    assert error.status == 422


def sparse_records(columns: int, rows: int, given: int) -> Payload:
    """Return records of which each has a few of the columns, and all of them each column."""
    names = [f"word_{number}" for number in range(columns)]
    return json_payload(
        {names[(row * given + each) % columns]: 1 for each in range(given)} for row in range(rows)
    )


def json_payload(records: Iterable[object]) -> Payload:
    return Payload(json.dumps(list(records), separators=(",", ":")).encode(), JSON)


def test_sparse_records_are_read() -> None:
    """Each may have one column in fifty; in a small table, less than that."""
    assert reading.read(sparse_records(1000, 5000, 20)).shape == (5000, 1000)
    assert reading.read(sparse_records(1000, 1000, 1)).shape == (1000, 1000)


def test_records_without_the_columns_of_the_first_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three bytes must not become a hundred values: pandas does not even see them."""
    monkeypatch.setattr(pd, "DataFrame", None)
    first = {f"{number:x}": 1 for number in range(100)}
    error = refused(json_payload([first, *([{}] * 100_000)]))
    assert "would become 100001 rows of 100 columns, nearly all of them empty" in str(error)
    assert error.status == 422


def test_what_a_record_lacks_is_a_missing_value() -> None:
    """Records need not have all of the columns, nor in the same order."""
    frame = reading.read(Payload(b'[{"a": 1, "b": 2}, {"b": 3}]', JSON))
    assert list(frame["b"]) == [2, 3]
    assert math.isnan(frame["a"][1])


@pytest.mark.parametrize(
    "matrix",
    [
        scipy.sparse.random(5, 4, 0.5, random_state=1),
        scipy.sparse.eye(5),
        scipy.sparse.csr_matrix([[0, -1.5], [1.5, 0]]),
        scipy.sparse.csr_matrix([[0, 2], [3, 0]]),
        scipy.sparse.csr_matrix([[np.nan, 1.0], [0.0, 2.0]]),
        scipy.sparse.csr_matrix((3, 3)),
        np.arange(6.0).reshape(3, 2),
        np.array([[1.0, 2.0], [2.0, 3.0]]),
        np.array([[0.0, 2.0, 4.0], [-2.0, 0.0, 5.0], [-4.0, -5.0, 0.0]]),
    ],
    ids=lambda matrix: f"{type(matrix).__name__}{matrix.shape}",
)
def test_whatever_scipy_writes_is_read(matrix: Any) -> None:
    """Sparse and dense, general, symmetric and skew-symmetric matrices come out as they were."""
    read = reading.read(matrix_market_of(matrix))
    assert scipy.sparse.issparse(read)
    expected = matrix if isinstance(matrix, np.ndarray) else matrix.toarray()
    # The last bit is up to how pandas reads a number, which differs between its versions.
    np.testing.assert_allclose(read.toarray(), expected, rtol=1e-15)


def test_a_pattern_has_a_one_for_each_entry() -> None:
    """Entries without values, as of a graph or of words, count as 1."""
    text = b"%%MatrixMarket matrix coordinate pattern general\n% a note\n2 3 2\n1 3\n2 1\n"
    assert reading.read(Payload(text, MATRIX_MARKET)).toarray().tolist() == [[0, 0, 1], [1, 0, 0]]


def test_names_of_sparse_columns_make_a_table() -> None:
    """With X.colnames, one name a line, sparse data have names and stay sparse."""
    matrix = scipy.sparse.random(5, 3, 0.5, random_state=1)
    frame = reading.read(matrix_market_of(matrix, ["a", "b", "grün"]))
    assert list(frame) == ["a", "b", "grün"]
    np.testing.assert_allclose(frame.sparse.to_coo().toarray(), matrix.toarray(), rtol=1e-15)


@pytest.mark.parametrize(
    ("data", "columns", "told"),
    [
        (b"1 2 3\n", None, "it has no header"),
        (HEADER, None, "its line of sizes does not fit"),
        (HEADER + b"2 2\n1 1 1\n", None, "its line of sizes does not fit"),
        (HEADER + b"2 -2 1\n1 1 1\n", None, "its line of sizes does not fit"),
        (HEADER + b"2 2 1\n1 x 1\n", None, "'x'"),
        (HEADER + b"2 2 1\n1 1\n", None, "could not convert"),
        (HEADER + b"2 2 1\n1 1 1 1\n", None, "its lines have more than 3 numbers"),
        (HEADER + b"2 2 1\n3 1 1\n", None, "an entry has the row 3 of 2"),
        (HEADER + b"2 2 1\n1 0 1\n", None, "an entry has the column 0 of 2"),
        (HEADER + b"2 2 2\n1 1 1\n", None, "it claims 2 entries, but has 1"),
        (HEADER + b"2 2 0\n1 1 1\n", None, "it claims no entries, but has some"),
        (HEADER + b"0 2 0\n", None, "it has 0 rows"),
        (HEADER.replace(b"real", b"complex") + b"1 1 1\n1 1 1 1\n", None, "it is complex"),
        (HEADER.replace(b"general", b"symmetric") + b"1 2 0\n", None, "not square"),
        (HEADER + b"2 2 1\n1 1 1\n", b"a\n", "X.colnames names 1 columns, X has 2"),
        (HEADER + b"2 2 1\n1 1 1\n", b"a\na\n", "the column 'a' is there twice"),
        (HEADER + b"2 2 1\n1 1 1\n", b"a\n\xff\n", "byte 2 (0xff) is not valid"),
    ],
)
def test_unreadable_matrices_say_what_is_wrong(
    data: bytes, columns: bytes | None, told: str
) -> None:
    """Header, sizes, entries and names must fit each other."""
    error = refused(Payload(data, MATRIX_MARKET, columns))
    assert told in str(error)
    assert error.status == 422


def test_a_number_that_is_cut_off_crashes_nothing() -> None:
    """The bytes with which scipy's own reader ends the process are refused."""
    text = HEADER + b"5 4 3\n1 3 7.593E-1\n1 4 8.3E3807081505401E-1\n3 4 8.79336466646549E--11"
    refused(Payload(text, MATRIX_MARKET))


def test_arrow_columns_of_the_index_are_none_of_the_data() -> None:
    """What pandas adds to a table for its index does not reach the model."""
    payload = arrow_of(FRAME.set_index(pd.Index([7, 8, 9])))
    assert list(reading.read(payload)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (Payload(b"ARROW1\0\0", ARROW_FILE), "Arrow"),
        (Payload(b"a,b\n1,2\n", ARROW_STREAM), "Arrow"),
        (Payload(arrow_of(FRAME).data[:-200], ARROW_STREAM), "Arrow"),
        (arrow_of(FRAME.head(0)), "0 rows and 3 columns"),
    ],
    ids=["magic", "csv", "cut", "no rows"],
)
def test_unreadable_arrow_is_refused(payload: Payload, told: str) -> None:
    """Cut, foreign and empty tables are the client's errors."""
    error = refused(payload)
    assert told in str(error)
    assert error.status == 422


def arrow_bytes(values: Any, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table({"a": values})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_compressed_arrow_is_read(compression: str) -> None:
    """Also dictionaries may be compressed."""
    texts = pa.array(["one", "two", None] * 1000).dictionary_encode()
    frame = reading.read(Payload(arrow_bytes(texts, compression), ARROW_STREAM))
    assert list(frame["a"][:2]) == ["one", "two"]
    assert len(frame) == 3000


def texts_of(count: int, text: str) -> Any:
    return pa.DictionaryArray.from_arrays(np.zeros(count, np.int8), pa.array([text]))


FOLDED = {
    "struct of nulls": pa.StructArray.from_arrays(
        [pa.nulls(100_000)] * 20, [f"f{number}" for number in range(20)]
    ),
    "list of nulls": pa.ListArray.from_arrays([0, 10_000_000], pa.nulls(10_000_000)),
    "fixed list of nulls": pa.FixedSizeListArray.from_arrays(pa.nulls(10_000_000), 10_000_000),
    "struct of one text": pa.StructArray.from_arrays([texts_of(100_000, "x" * 1000)], ["f"]),
    "dictionary of lists": pa.DictionaryArray.from_arrays(
        np.zeros(1000, np.int8), pa.ListArray.from_arrays([0, 1_000_000], pa.nulls(1_000_000))
    ),
    # Lists: the oldest pyarrow takes no length from an array.
    "run of one text": pa.RunEndEncodedArray.from_arrays([900_000], ["x" * 100]),
}
"""Arrow columns of few bytes that become many."""


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[0.5, 1.5]] * 1000),
        pa.array([{"x": 1, "y": ["a"]}] * 1000),
        pa.array([[("a", 1)]] * 1000, pa.map_(pa.string(), pa.int8())),
        pa.array([[1.0] * 512] * 100, pa.list_(pa.float32(), 512)),
        pa.array([[200] * 100_000] * 20, pa.list_(pa.uint8())),
        pa.array(["one text that is long enough", "two"] * 100, pa.string()).dictionary_encode(),
    ],
    ids=["list", "struct", "map", "vector", "image", "dictionary"],
)
def test_nested_arrow_is_read(values: Any) -> None:
    """A model may take lists and structs; those of usual size are in proportion."""
    assert len(reading.read(Payload(arrow_bytes(values), ARROW_STREAM))) == len(values)


@pytest.mark.parametrize(
    "payload",
    [
        Payload(b"," * 50_000 + b"\n" + b"1\n" * 50_000),
        Payload(b"[" + b",".join(b'{"%d": 1}' % number for number in range(20_000)) + b"]", JSON),
        Payload(HEADER + b"1000000000000 2 1\n1 1 1\n", MATRIX_MARKET),
        Payload(HEADER + b"2 2 1000000000000\n1 1 1\n", MATRIX_MARKET),
        Payload(HEADER + b"2 1000000000000 1\n1 1 1\n", MATRIX_MARKET),
        Payload(HEADER.replace(b"coordinate", b"array") + b"99999 99999\n1\n", MATRIX_MARKET),
        Payload(arrow_bytes(pa.nulls(1_000_000_000)), ARROW_STREAM),
        Payload(arrow_bytes(np.zeros(5_000_000), "zstd"), ARROW_STREAM),
        Payload(
            arrow_bytes(pa.array(["x" * 20_000_000]).dictionary_encode(), "zstd"), ARROW_STREAM
        ),
        *(Payload(arrow_bytes(values), ARROW_STREAM) for values in FOLDED.values()),
    ],
    ids=[
        "csv",
        "json",
        "mtx rows",
        "mtx entries",
        "mtx columns",
        "mtx array",
        "arrow",
        "zstd",
        "dictionary",
        *FOLDED,
    ],
)
def test_few_bytes_do_not_become_a_table_that_fills_the_memory(payload: Payload) -> None:
    """What would be out of all proportion to its body is refused before it is built."""
    assert refused(payload).status == 422


@pytest.mark.parametrize(
    "data",
    [
        b"a," * 200_000 + b"a\n" + b"1," * 200_000 + b"1\n",
        b'"' + b"x" * 200_000 + b'",' + b"a," * 200_000 + b"a\n",
        b"a\n" + b"1," * 500_000 + b"1\n",
    ],
    ids=["one name", "behind a long name", "long row"],
)
def test_odd_headers_cost_no_more_time_than_their_bytes(data: bytes) -> None:
    """What the parser would take minutes for is refused before it sees it."""
    started = time.process_time()
    assert refused(Payload(data)).status == 422
    assert time.process_time() - started < 5


@pytest.mark.parametrize("before", [b"", b'"' + b"x" * 200_000 + b'"' + b",1" * 99 + b"\n"])
def test_short_rows_are_refused_before_they_are_filled(
    before: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that lack nearly all of many columns are no table, also behind a long text."""
    monkeypatch.setattr(pd, "read_csv", None)
    header = b",".join(b"c%d" % number for number in range(100)) + b"\n"
    assert refused(Payload(header + before + b"1\n" * 100_000)).status == 422


def test_long_texts_of_many_lines_are_read() -> None:
    """Rows that are complete are a table, however many lines their texts have."""
    header = ",".join(f"c{number}" for number in range(100))
    text = "x\n" * 50_000
    frame = reading.read(Payload(f'{header}\n"{text}"{",1" * 99}\n'.encode()))
    assert list(frame["c0"]) == [text]


SAMPLES = {
    CSV: csv_of(FRAME).data,
    JSON: json_of(FRAME).data,
    ARROW_STREAM: arrow_of(FRAME).data,
    ARROW_FILE: arrow_of(FRAME, ARROW_FILE).data,
    f"{ARROW_STREAM}; of=zstd": arrow_bytes(["one", "two"] * 200, "zstd"),
    MATRIX_MARKET: matrix_market_of(scipy.sparse.random(5, 4, 0.5, random_state=1)).data,
}
ODD = [b"NaN", b"1e999", b'"', b"\0", b"\xff", b",,", b"[[", b"9" * 25, b"\r", b"-1", b"\\ud800"]


@st.composite
def damaged(draw: st.DrawFn, sample: bytes) -> bytes:
    """Draw bytes of no meaning, or a sample of which some have been changed."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=200))
    data = bytearray(sample)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 6))] = draw(
            st.one_of(st.sampled_from(ODD), st.binary(max_size=3))
        )
    return bytes(data)


@pytest.mark.parametrize("content_type", list(SAMPLES))
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_bytes_are_more_than_refused(content_type: str, data: st.DataObject) -> None:
    """Whatever a client sends is read or refused; no reader raises anything else."""
    payload = Payload(data.draw(damaged(SAMPLES[content_type])), content_type)
    with contextlib.suppress(RequestError):
        assert reading.read(payload).shape[0] > 0


@settings(max_examples=50, deadline=None)
@given(content_type=st.text(max_size=60), data=st.binary(max_size=50))
def test_no_content_type_is_more_than_refused(content_type: str, data: bytes) -> None:
    """The header is as much a client's to write as the body."""
    with contextlib.suppress(RequestError):
        reading.read(Payload(data, content_type))


def test_the_writer_of_the_samples_is_scipys() -> None:
    """What is read here is what clients of scipy send."""
    assert scipy.io.mmread(io.BytesIO(SAMPLES[MATRIX_MARKET])).shape == (5, 4)
