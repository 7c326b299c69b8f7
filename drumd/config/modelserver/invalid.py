"""What is wrong with what a model server is told, all of it at once."""

from collections.abc import Iterable

from drumd.config.problems import Problem
from drumd.errors import PlainError


class ModelSettingsInvalid(PlainError):  # noqa: N818 - named after the fact, as ConfigInvalid is
    """cannot serve the model."""

    final = True

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        said = [str(problem) for problem in self.problems]
        if len(said) == 1:
            message = f"cannot use the model's settings: {said[0]}"
        else:
            message = "\n  ".join((f"cannot use the model's settings: {len(said)} problems", *said))
        super().__init__(message)
