"""CSV cut between its records, without parsing their fields."""

from collections.abc import Iterator
from typing import BinaryIO

from drumd.modelserver.batch.errors import BatchError

LONGEST = 64 * 1024 * 1024
"""Bytes that one record may have: a file without line ends must not fill the memory."""


def records(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the records of a CSV, each with its line end; blank lines are none.

    A line end within quotes belongs to its record. What counts as quoted is what pandas' parser
    takes for it: quotes that begin a field, doubled ones within. Raise `BatchError` when a record
    is too long to be one.
    """
    record = b""
    quoted = False
    while line := stream.readline(LONGEST + 1):
        # Most lines of most files have no quotes at all.
        if quoted or b'"' in line:
            quoted = _quoted_after(line, quoted)
        record = record + line if record else line
        if len(record) > LONGEST:
            raise BatchError(
                f"a record is longer than {LONGEST} bytes; is a quote not closed, or the file no "
                "CSV?"
            )
        if quoted:
            continue
        if not _blank(record):
            yield record
        record = b""
    if record and not _blank(record):
        yield record


def _quoted_after(line: bytes, quoted: bool) -> bool:  # noqa: FBT001 - a state in, a state out
    """Say whether quotes are open at the end of `line`, which begins within some or in a field."""
    at = 0 if quoted else _opening(line, 0)
    while at >= 0:
        quote = line.find(b'"', at)
        if quote < 0:
            return True
        if line.startswith(b'"', quote + 1):
            at = quote + 2  # doubled: a quote in the text
            continue
        # What follows a closing quote, up to the comma, is text in which quotes mean nothing.
        comma = line.find(b",", quote + 1)
        if comma < 0:
            return False
        at = _opening(line, comma + 1)
    return False


def _opening(line: bytes, field: int) -> int:
    """Return where the text of the next quoted field begins, from the one at `field` on; or -1."""
    if line.startswith(b'"', field):
        return field + 1
    begin = line.find(b',"', field)
    return begin + 2 if begin >= 0 else -1


def _blank(record: bytes) -> bool:
    return not record.strip(b" \t\r\n")
