"""How much of a request's body is read."""

from http import HTTPStatus

from drumd.modelserver.errors import RequestError
from drumd.modelserver.serving.body_room import Place

_DIGITS = 100
"""More than those of any body that could be taken, also with zeros before them."""


class Body:
    """A request's body while it arrives: never more than `limit` bytes of it."""

    def __init__(self, declared: str | None, limit: int, place: Place) -> None:
        """Take it in at a place.

        Raises `RequestError` when the declared length is no number, or more than `limit`.
        """
        self._limit = limit
        self._place = place
        self._size = 0
        self.length: int | None = None
        """What Content-Length says; None without one."""
        if declared:
            # int() would take " 1", "+1", "1_0" and other digits than ASCII's as well.
            if not (declared.isascii() and declared.isdigit()):
                raise RequestError(
                    f"cannot read the body: Content-Length is {declared[:40]!r}; "
                    "it must be a number of bytes",
                    HTTPStatus.BAD_REQUEST,
                )
            # Python refuses to read thousands of digits.
            self.length = int(declared) if len(declared) <= _DIGITS else limit + 1
            self._check(self.length)

    @property
    def missing(self) -> int:
        """Return how many bytes may still come: of those declared, or one above the limit."""
        end = self._limit + 1 if self.length is None else self.length
        return end - self._size

    def add(self, piece: bytes) -> None:
        """Take what arrived; raise `RequestError` when it is too much, here or in the room."""
        self._size += len(piece)
        self._check(self._size)
        self._place.add(piece)

    def whole(self) -> bytes:
        """Return all of it, once no more comes; raise `RequestError` when that is too early."""
        if self.length is not None and self._size < self.length:
            raise RequestError(
                f"cannot read the body: it ended after {self._size} of {self.length} bytes",
                HTTPStatus.BAD_REQUEST,
            )
        return self._place.whole()

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise RequestError(
                f"cannot read the body: it is larger than {self._limit} bytes "
                "(DRUM_MAX_REQUEST_SIZE); send fewer rows at once",
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            )
