"""A part of a file that is a request of its own."""

from typing import NamedTuple

from drumd.modelserver.payload import Payload


class Piece(NamedTuple):
    """Some rows, in the format of their file."""

    rows: int
    payload: Payload
    share: float | None
    """What part of the file has been read, 0 to 1."""
