"""What is wrong with data, said to somebody who has a file and sends no request."""

from drumd.modelserver.errors import EmptyDataError, EncodingError


def unreadable(error: Exception, name: str, part: str) -> str | None:
    """Return what is told of a file whose bytes are the trouble; None where they are not.

    `part` is what was read of the file with that name, for people.
    """
    if isinstance(error, EmptyDataError):
        return f"cannot read {name}: it is empty; write a header and rows into it"
    if isinstance(error, EncodingError):
        return f"cannot read {part}: {error.fact}; convert it, e.g. with iconv"
    return None
