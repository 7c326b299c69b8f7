"""Forms: which part is the data, what its type is, and what is refused."""

import time

import pytest

from drumd.modelserver.errors import RequestError
from drumd.modelserver.payload import Payload
from drumd.modelserver.serving.multipart import is_form, payload_of
from tests.e2e.model_requests import FORM, Part, form, part

CSV = b"a,b\r\n1,2\r\n"


@pytest.mark.parametrize(
    ("sent", "content_type"),
    [
        (part("X", CSV), "text/csv"),
        (part("X", CSV, "x.csv", "text/csv; charset=latin-1"), "text/csv; charset=latin-1"),
        (part("X", CSV, "x", "application/json"), "application/json"),
        (part("X", CSV, "x.mtx"), "text/mtx"),
        (part("X", CSV, "X.MTX", "application/octet-stream"), "text/mtx"),
        (part("X", CSV, "x.json", "application/octet-stream"), "application/json"),
        (part("X", CSV, "x.arrow"), "application/vnd.apache.arrow.stream"),
        (part("X", CSV, "x.mtx", "text/csv"), "text/csv"),
        (part("X", CSV, "x.txt", "text/plain; charset=utf-16"), "text/csv; charset=utf-16"),
        (part("X", CSV, "noname", "application/octet-stream"), "text/csv"),
    ],
)
def test_a_parts_own_type_counts_then_its_file_name(sent: Part, content_type: str) -> None:
    """A type that says nothing gives way to the file's name; without either it is CSV."""
    payload = payload_of(form(sent), FORM)
    assert payload == Payload(CSV, content_type.replace("; charset=utf-16", "; charset=utf-16"))


def test_names_of_columns_come_along() -> None:
    """The field X.colnames goes with the data, whatever else is sent."""
    body = form(part("X.colnames", b"a\nb"), part("y", b"1"), part("X", CSV, "x.mtx"))
    assert payload_of(body, FORM) == Payload(CSV, "text/mtx", b"a\nb")


def test_data_may_hold_what_looks_like_a_boundary() -> None:
    """Only the boundary at the begin of a line ends a part; any bytes may stand in it."""
    data = b"-----her\r\n-----here\r\n--" + bytes(range(256)) + b"\r\n------her"
    assert payload_of(form(part("X", data)), FORM).data == data


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (form(part("x", CSV), part("Zörn", CSV)), "the form has 'x', 'Zörn'; send the data as"),
        (form(), "the form has no field at all"),
        (form(*[part(f"f{n}", b"") for n in range(50)]), "'f9'; send"),
        (form(*[part(f"f{n}", b"") for n in range(101)]), "more than 100 fields"),
        (form(("X: y", CSV)), "no Content-Disposition with a name"),
        (form(("Content-Disposition: attachment; name=X", CSV)), "no Content-Disposition with"),
        (form(part("X", CSV))[:-4], "it ends before its last boundary"),
        (b"--", "it ends before its last boundary, after 2 bytes"),
        (b"\r\n" * 100, "it ends before its last boundary"),
        (b"nothing", "cannot read the form: "),
        (b"", "the body is empty"),
    ],
)
def test_what_is_no_form_is_refused_by_what_came(body: bytes, said: str) -> None:
    """Each refusal is the client's error and names what came."""
    with pytest.raises(RequestError) as refused:
        payload_of(body, FORM)
    assert said in str(refused.value)
    assert refused.value.status == 422


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_form_needs_its_boundary(content_type: str) -> None:
    """Without it nothing can be read, and the message says who sets it."""
    with pytest.raises(RequestError, match="names no boundary"):
        payload_of(form(part("X", CSV)), content_type)


def test_forms_are_told_by_their_media_type() -> None:
    """Whatever its letters and parameters; other kinds of multipart are no forms."""
    assert is_form(" Multipart/Form-Data;boundary=x")
    assert not is_form("multipart/mixed; boundary=x")
    assert not is_form("")


@pytest.mark.parametrize(
    "header",
    [
        b'Content-Disposition: form-data; name="' + b";" * 100_000,
        b"Content-Disposition: form-data; name=X" + b";a=b" * 25_000,
        b"".join(b"a%d: b\r\n" % number for number in range(10_000)) + b"a: b",
    ],
    ids=["quote", "parameters", "headers"],
)
def test_the_headers_of_a_field_are_bounded(header: bytes) -> None:
    """To read them takes far more than their bytes, with some releases of the parser."""
    body = b"--b\r\n%b\r\n\r\n1\r\n--b--\r\n" % header
    started = time.process_time()
    with pytest.raises(RequestError, match=r"[hH]eader"):
        payload_of(body, "multipart/form-data; boundary=b")
    assert time.process_time() - started < 5
