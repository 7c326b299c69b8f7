"""Trying a model out: step by step, from its settings to its answers."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import psutil

from drumd.config.modelserver.misspelt import misspelt_parameters
from drumd.config.modelserver.reading import Reading
from drumd.config.modelserver.settings import ModelSettings
from drumd.config.modelserver.target import TargetType
from drumd.exitcodes import BatchExit
from drumd.modelserver.batch.chunks import Input
from drumd.modelserver.batch.errors import BatchError
from drumd.modelserver.errors import LoadError
from drumd.modelserver.inference.model import Model
from drumd.modelserver.validation.extensions import try_extensions
from drumd.modelserver.validation.packages import check_packages
from drumd.modelserver.validation.samples import Sample, made_up, sample_of
from drumd.modelserver.validation.steps import State, Step, failed, ok, skipped, warning
from drumd.modelserver.validation.trials import (
    no_sample,
    try_chat,
    try_predictions,
    try_transform,
    try_unstructured,
)

_TRIALS = {
    TargetType.TRANSFORM: ("transform", try_transform),
    TargetType.UNSTRUCTURED: ("predictUnstructured", try_unstructured),
}


class Validation:
    """One model that is tried out. `exit` says what came of it, after the last step."""

    def __init__(self, reading: Reading, source: Input | None) -> None:
        self._settings = reading.settings
        self._parameters = reading.parameters
        self._problems = reading.problems
        self._source = source
        self.exit = BatchExit.DONE

    def steps(self) -> Iterator[Step]:
        """Try one thing after the other, as far as it goes."""
        if self._problems:
            self.exit = BatchExit.CONFIG
            for problem in self._problems:
                yield failed("settings", str(problem))
            step = self._parameters_step()
            if step.state is State.WARNING:  # one that is missing may be there, but misspelt
                yield step
            return
        yield ok("settings", _told(self._settings))
        yield self._parameters_step()
        yield check_packages(self._settings.code_dir)
        try:
            model, step = _loaded(self._settings)
        except LoadError as error:
            self.exit = BatchExit.LOAD_FAILED
            yield failed("load", str(error), traceback=error.traceback)
            return
        yield step
        for step in chain(try_extensions(model), self._trials(model)):
            if step.state is State.FAILED:
                self.exit = BatchExit.FAILED
            yield step

    def _parameters_step(self) -> Step:
        told = [f"{each.name} ({each.origin})" for each in self._parameters.by_name.values()]
        if not told:
            return skipped("parameters", "the model has no runtime parameters")
        misspelt = [str(problem) for problem in misspelt_parameters(self._parameters)]
        if misspelt:
            return warning("parameters", ", ".join(told), *misspelt)
        return ok("parameters", ", ".join(told))

    def _trials(self, model: Model) -> Iterator[Step]:
        kind = model.target.type
        chats = kind is TargetType.TEXT_GENERATION and "chat" in model.hooks
        if chats:
            yield from try_chat(model)
            if "score" not in model.hooks:
                return
        name, trial = _TRIALS.get(kind, ("predict", try_predictions))
        try:
            sample = self._sample(model)
        except (BatchError, OSError) as error:
            yield failed("sample", str(error))
            return
        if sample is None:
            yield no_sample(name)
        else:
            yield from trial(model, sample)

    def _sample(self, model: Model) -> Sample | None:
        return made_up(model) if self._source is None else sample_of(self._source, model)


def _told(settings: ModelSettings) -> str:
    target = settings.target
    labels = f" with the labels {', '.join(target.labels)}" if target.labels else ""
    return f"{settings.code_dir}, {target.type}{labels}"


def _loaded(settings: ModelSettings) -> tuple[Model, Step]:
    process = psutil.Process()
    before, began = process.memory_info().rss, time.monotonic()
    with _warnings() as said:
        model = Model.load(settings)
    seconds, grown = time.monotonic() - began, process.memory_info().rss - before
    hooks = f", hooks {', '.join(sorted(model.hooks))}" if model.hooks else ""
    megabytes = max(0, grown) / 2**20
    text = f"{model.kind}{hooks}; {seconds:.1f} s, {megabytes:.0f} MiB"
    return model, warning("load", text, *said) if said else ok("load", text)


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect what the model server would warn of in its log."""
    said: list[str] = []
    handler = _Collector(said)
    log = logging.getLogger("drumd.modelserver")
    log.addHandler(handler)
    try:
        yield said
    finally:
        log.removeHandler(handler)


class _Collector(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())
