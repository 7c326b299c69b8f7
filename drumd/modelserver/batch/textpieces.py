"""Pieces of CSV, JSON and JSON Lines."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO

from drumd.modelserver.batch.pieces import Piece
from drumd.modelserver.batch.records import LONGEST, records
from drumd.modelserver.payload import Payload
from drumd.modelserver.reading import CSV, JSON


def csv_pieces(stream: BinaryIO, rows: int) -> Iterator[Piece]:
    """Yield pieces with the header before each: a piece is a CSV of its own."""
    size = _size(stream)
    lines = records(stream)
    header = next(lines, b"")
    body = list(islice(lines, rows))
    while True:
        share = stream.tell() / size if size else None
        yield Piece(len(body), Payload(b"".join([header, *body]), CSV), share)
        body = list(islice(lines, rows))
        if not body:
            return


def lines_pieces(stream: BinaryIO, rows: int) -> Iterator[Piece]:
    """Yield pieces of JSON Lines: as a list, which is what a client sends."""
    size = _size(stream)
    lines = (line for line in iter(lambda: stream.readline(LONGEST), b"") if line.strip())
    body = list(islice(lines, rows))
    while True:
        share = stream.tell() / size if size else None
        data = b"[%s]" % b",".join(line.strip() for line in body)
        yield Piece(len(body), Payload(data, JSON), share)
        body = list(islice(lines, rows))
        if not body:
            return


def json_pieces(stream: BinaryIO, rows: int) -> Iterator[Piece]:
    """Yield pieces of a list of records; the file is read as a whole."""
    data = stream.read()
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, list) or len(document) <= rows:
        # What is wrong with it is said by whom reads it.
        yield Piece(len(document) if isinstance(document, list) else 0, Payload(data, JSON), 1.0)
        return
    for begin in range(0, len(document), rows):
        part = document[begin : begin + rows]
        share = (begin + len(part)) / len(document)
        yield Piece(len(part), Payload(json.dumps(part).encode(), JSON), share)


def _size(stream: BinaryIO) -> int:
    """Return its bytes; 0 where it has no end yet, as a pipe."""
    if not stream.seekable():
        return 0
    here = stream.tell()
    size = stream.seek(0, 2)
    stream.seek(here)
    return size
