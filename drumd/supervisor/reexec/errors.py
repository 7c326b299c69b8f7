"""What can go wrong with a re-exec, in words for people."""


class ReexecError(Exception):
    """cannot replace drumd's own program. The message says why; the old one carries on."""
