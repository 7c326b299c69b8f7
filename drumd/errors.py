"""What a person is told without a traceback of drumd's own."""


class PlainError(Exception):
    """cannot go on.

    The message says all that the user needs: what cannot be done, the name, the value and the next
    step. `traceback` is that of the user's own code, where there is one. With `final`, trying the
    same again would end in the same way.
    """

    final = False

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback
