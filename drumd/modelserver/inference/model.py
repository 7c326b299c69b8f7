"""A model directory, loaded: what a server and a batch run ask for answers."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Self

from drumd.config.modelserver.settings import ModelSettings
from drumd.config.modelserver.target import Target
from drumd.modelserver import reading
from drumd.modelserver.inference import endpoints, tables
from drumd.modelserver.inference.directory import Loaded, load_directory
from drumd.modelserver.inference.predicting import Predicting, row_count
from drumd.modelserver.inference.running import Runner, Watcher
from drumd.modelserver.payload import Payload, Predictions, Table, Unstructured


class Model:
    """Answers for one model directory, from any number of threads."""

    def __init__(self, settings: ModelSettings, loaded: Loaded, load_seconds: float) -> None:
        self.settings = settings
        self.load_seconds = load_seconds
        """Seconds that custom.py, its hooks and the artifact took to load."""
        self.kind = loaded.kind
        """`custom.py` if that loads the model, or the artifact's kind, such as `scikit-learn`."""
        self._loaded = loaded
        self._runner: Runner = loaded.runner
        self._predicting = Predicting(loaded, settings.target)

    @classmethod
    def load(cls, settings: ModelSettings) -> Self:
        """Load a model directory; raise `LoadError`."""
        started = time.perf_counter()
        loaded = load_directory(settings)
        return cls(settings, loaded, time.perf_counter() - started)

    @property
    def target(self) -> Target:
        """What the model predicts."""
        return self.settings.target

    @property
    def loaded(self) -> Any:
        """What load_model returned, or the artifact holds; None where hooks need neither."""
        return self._loaded.model

    @property
    def hooks(self) -> frozenset[str]:
        """Names of the hooks that custom.py has."""
        return frozenset(self._loaded.hooks)

    @property
    def on_hook(self) -> Watcher | None:
        """Is called with the name of each hook that ran and the seconds that it took."""
        return self._runner.watcher

    @on_hook.setter
    def on_hook(self, watcher: Watcher | None) -> None:
        self._runner.watcher = watcher

    def read(self, payload: Payload) -> Any:
        """Return a DataFrame, a sparse matrix, or what read_input_data made of the bytes.

        Raises `RequestError`.
        """
        hook = self._loaded.hooks.get("read_input_data")
        if hook is not None:
            return self._runner.run(hook.name, hook, payload.data)
        return reading.read(payload)

    def predict_data(self, data: Any, **kwargs: Any) -> Predictions:
        """Return checked predictions; the score hook gets those of `kwargs` that it takes.

        Raises `RequestError` or `HookError`.
        """
        endpoints.check_predict(self.target.type, self._predicting.can_predict, self.hooks)
        return self._predicting.predict(data, **kwargs)

    def predict(self, payload: Payload, **kwargs: Any) -> Predictions:
        """Return checked predictions for what a client sent; raise as `predict_data`."""
        endpoints.check_predict(self.target.type, self._predicting.can_predict, self.hooks)
        return self._predicting.predict(self.read(payload), **kwargs)

    def transform(self, payload: Payload) -> Table:
        """Return the transformed data: Arrow for Arrow, Matrix Market for sparse, else CSV."""
        endpoints.check_transform(self.target.type)
        data = self.read(payload)
        returned = self._predicting.transform(data)
        return tables.written(returned, row_count(data), payload.content_type)

    def predict_unstructured(
        self, data: bytes, content_type: str, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> Unstructured:
        """Return what score_unstructured answers; raise `RequestError` or `HookError`."""
        from drumd.modelserver.inference import unstructured  # noqa: PLC0415 - few models need it

        endpoints.check_unstructured(self.target.type)
        return unstructured.answer(self._loaded, data, content_type, query, headers)

    def chat(
        self, params: dict[str, Any], **kwargs: Any
    ) -> dict[str, Any] | Iterator[dict[str, Any]]:
        """Return a chat completion, or an iterator of its chunks if `params` asks for a stream.

        Close the iterator when nobody reads on. Raises `RequestError` or `HookError`; so does the
        iterator.
        """
        from drumd.modelserver.inference import chat  # noqa: PLC0415 - as above

        return chat.answer(self._loaded, params, **kwargs)

    def supported_models(self) -> list[dict[str, Any]]:
        """Return the models that a chat can name: `[{"id": …, "object": "model"}]`."""
        from drumd.modelserver.inference import chat  # noqa: PLC0415 - as above

        return chat.supported_models(self._loaded)
