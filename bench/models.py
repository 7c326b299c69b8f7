"""A model directory to predict with, the servers of `drumd server`, and its hooks without any."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.servers import START_CAP, BenchError, Job, Running, Server

ROWS = 100
TARGET = "regression"
_READY = '"daemon.ready"'


def train(directory: Path) -> Path:
    """Put a regression of scikit-learn's diabetes data there; return a CSV of 100 of their rows."""
    try:
        import joblib  # noqa: PLC0415 - this measure alone needs them
        from sklearn.datasets import load_diabetes  # noqa: PLC0415
        from sklearn.linear_model import LinearRegression  # noqa: PLC0415
    except ImportError as error:
        raise BenchError(f"cannot find {error.name}; run: pip install 'drumd[sklearn]'") from None
    data, target = load_diabetes(return_X_y=True, as_frame=True)
    model = directory / "model"
    model.mkdir()
    joblib.dump(LinearRegression().fit(data, target), model / "model.pkl")
    rows = directory / "rows.csv"
    data.head(ROWS).to_csv(rows, index=False)
    return rows


def server(server_type: str, threads: int | None, directory: Path) -> Server:
    """Return `drumd server` with the model that was trained there; `threads` of a worker."""

    def command(job: Job) -> Sequence[str]:
        parameters = job.scratch / "parameters.yaml"
        lines = [f"DRUM_SERVER_TYPE: {server_type}"]
        if threads is not None:
            lines.append(f"CUSTOM_MODEL_THREADS: {threads}")
        parameters.write_text("\n".join(lines))
        return [
            *("-m", "drumd", "server"),
            *("--code-dir", str(directory / "model")),
            *("--address", f"127.0.0.1:{job.port}"),
            *("--target-type", TARGET),
            *("--runtime-params-file", str(parameters)),
            *("--workers", str(job.workers)),
            *("--admin-socket", str(job.scratch / "admin.sock")),
            *("--log-format", "json"),
        ]

    return Server(f"{server_type}, {threads} threads", "http", command)


def wait_ready(running: Running) -> None:
    """Wait until all of its workers serve; raise `BenchError` when they do not."""
    output = running.scratch / "output"
    end = time.monotonic() + START_CAP
    while _READY not in output.read_text(errors="replace"):
        if running.ended or time.monotonic() > end:
            said = output.read_text(errors="replace")[-2000:]
            raise BenchError(f"cannot start {running.name}: it said:\n{said}")
        time.sleep(0.05)
    running.processes()


class Stages:
    """What one request takes in this process, stage by stage, in seconds of CPU: no server."""

    def __init__(self, directory: Path, rows: Path) -> None:
        from drumd.config.modelserver.reading import read_settings  # noqa: PLC0415 - as above
        from drumd.modelserver.inference.model import Model  # noqa: PLC0415
        from drumd.modelserver.payload import Payload  # noqa: PLC0415
        from drumd.modelserver.serving.handlers import predictions_answer  # noqa: PLC0415

        settings = read_settings({"TARGET_TYPE": TARGET}, directory / "model")
        model = Model.load(settings)
        payload = Payload(rows.read_bytes())
        self._model = model
        self._steps: tuple[Callable[[Any], Any], ...] = (
            lambda _: model.read(payload),
            model.predict_data,
            predictions_answer,
        )
        self.read = self.hooks = self.check = self.json = 0.0

    def run(self, seconds: float) -> None:
        """Go through a request again and again for so long; the stages are then a request's."""
        data = self._steps[0](None)
        totals = [0.0] * len(self._steps)
        direct = 0.0
        count = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value: Any = None
            for number, step in enumerate(self._steps):
                took, value = _timed(step, value)
                totals[number] += took
            direct += _timed(self._model.loaded.predict, data)[0]
            count += 1
        self.hooks = direct / count
        self.read, predicting, self.json = (total / count for total in totals)
        self.check = predicting - self.hooks

    @property
    def whole(self) -> float:
        """Return what all of it takes."""
        return self.read + self.hooks + self.check + self.json


def _timed(step: Callable[[Any], Any], value: Any) -> tuple[float, Any]:
    began = time.thread_time()
    result = step(value)
    return time.thread_time() - began, result
