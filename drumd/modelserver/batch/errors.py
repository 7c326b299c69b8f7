"""What ends the scoring of a file."""

from drumd.errors import PlainError


class BatchError(PlainError):
    """cannot score the file."""


class BatchUsageError(PlainError):
    """cannot score what the flags say: the files, not the rows in them, are the mistake."""
