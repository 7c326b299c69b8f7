"""`drumd score`, as people run it."""

import csv
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests import models
from tests.e2e.batch import CAP, command, interrupted, on_terminal, run, surroundings, write_model
from tests.e2e.model_servers import model_server

REGRESSION = "targetType: regression\n"
SUM = """
    import pandas as pd
    print("custom.py prints")
    def score(data, model, **kwargs):
        print("score prints")
        return pd.DataFrame({"Predictions": data["a"] + data["b"]})
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), SUM, REGRESSION)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    path.write_text("a,b\n" + "".join(f"{row},{row / 2}\n" for row in range(25)))
    return path


EXPECTED = ["Predictions", *(str(row * 1.5) for row in range(25))]


def test_a_file_becomes_predictions(model: Path, data: Path, tmp_path: Path) -> None:
    """A CSV is scored in chunks, and away from a terminal one line says what was done."""
    output = tmp_path / "out.csv"
    done = run(
        *("score", "--code-dir", model, "--input", data, "--output", output, "--chunk-rows", 10)
    )
    assert (done.returncode, done.stdout) == (0, "custom.py prints\n" + "score prints\n" * 3)
    assert output.read_text().splitlines() == EXPECTED
    assert done.stderr.startswith("scored 25 rows in ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("queue", ["1", "none"])
def test_misspelt_parameters_are_warned_of(
    model: Path, data: Path, tmp_path: Path, queue: str
) -> None:
    """A variable that is nearly one of drumd's is told, also where another one is wrong."""
    prefix = "MLOPS_RUNTIME_PARAM_"
    done = run(
        *("score", "--code-dir", model, "--input", data, "--output", tmp_path / "out.csv"),
        environ={f"{prefix}CUSTOM_MODEL_QUEUE": queue, f"{prefix}DRUM_MAX_REQUEST_SIZ": "1"},
    )
    assert done.returncode == (78 if queue == "none" else 0)
    warning, second, *_ = done.stderr.splitlines()
    assert warning.startswith(f"drumd: warning: {prefix}DRUM_MAX_REQUEST_SIZ (environment): has no")
    assert warning.endswith("; did you mean DRUM_MAX_REQUEST_SIZE?")
    assert second.startswith("drumd: cannot use" if queue == "none" else "scored 25 rows")


def test_streams_carry_csv_and_nothing_else(model: Path, data: Path) -> None:
    """From standard input to standard output; what the model prints goes to standard error."""
    done = run("score", "--code-dir", model, "--input", "-", given=data.read_bytes())
    assert done.stdout.splitlines() == EXPECTED
    assert "score prints" in done.stderr
    assert done.returncode == 0


def test_paths_are_from_here(data: Path, tmp_path: Path) -> None:
    """Relative files are those of the caller's directory, though the model runs in its own."""
    code = """
        import os, pandas as pd
        HERE = open("here.txt").read()
        import beside
        def score(data, model, **kwargs):
            return pd.DataFrame({"Predictions": data["a"] * 0 + beside.NUMBER})
    """
    write_model(tmp_path / "m", code, REGRESSION, here_txt="x", beside_py="NUMBER = 3\n")
    done = run(
        *("score", "--code-dir", "m", "--input", data.name, "--output", "out.json"), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.json").read_text()) == [{"Predictions": 3.0}] * 25


def test_flags_say_what_the_metadata_may(data: Path, tmp_path: Path) -> None:
    """Target, labels and runtime parameters can be given as flags, and reach the model's code."""
    code = """
        import os, pandas as pd
        from drumd import RuntimeParameters
        def score(data, model, **kwargs):
            assert os.environ["TARGET_TYPE"] == "binary"
            p = RuntimeParameters.get("SHARE")
            return pd.DataFrame({"yes": data["a"] * 0 + p, "no": data["a"] * 0 + 1 - p})
    """
    metadata = "runtimeParameterDefinitions:\n  - {fieldName: SHARE, type: numeric}\n"
    model = write_model(tmp_path / "m", code, metadata)
    (tmp_path / "params.yaml").write_text("SHARE: 0.25\n")
    done = run(
        *("score", "--code-dir", model, "--input", data, "--target-type", "binary"),
        *("--positive-class-label", "yes", "--negative-class-label", "no"),
        *("--runtime-params-file", "params.yaml"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["yes,no", "0.25,0.75"]


def test_no_server_is_chosen_or_started(data: Path, tmp_path: Path) -> None:
    """A server type that there is not does not matter; no server and no supervisor is imported."""
    code = """
        import sys, pandas as pd
        def score(data, model, **kwargs):
            print(*sorted(sys.modules), file=sys.stderr)
            return pd.DataFrame({"Predictions": data["a"]})
    """
    model = write_model(tmp_path / "m", code, REGRESSION)
    done = run(
        *("score", "--code-dir", model, "--input", data),
        environ={
            "DRUM_SERVER_TYPE": "nonsense",
            "MLOPS_RUNTIME_PARAM_DRUM_SERVER_TYPE": "nonsense",
        },
    )
    assert done.returncode == 0, done.stderr
    modules = set(done.stderr.split())
    assert "drumd.modelserver.inference.model" in modules
    servers = {"flask", "werkzeug", "gunicorn", "fastapi", "starlette", "uvicorn"}
    drumds = {"drumd.workers", "drumd.supervisor.daemon", "drumd.supervisor.running"}
    assert not modules & (servers | drumds)


def test_a_server_answers_the_same(tmp_path: Path) -> None:
    """What `drumd server` answers to /predict, to the last digit, is what a file gets.

    Of the same rows, that is: linear algebra rounds by how many there are.
    """
    directory = tmp_path / "m"
    directory.mkdir()
    built = models.binary_hooks(directory)
    with model_server(tmp_path / "server", built, "flask") as server:
        told = server.post("/predict", built.payload.data).json()
    source = tmp_path / "data.csv"
    source.write_bytes(built.payload.data)
    for name in ("out.csv", "out.jsonl"):
        done = run(
            *("score", "--code-dir", directory, "--input", source),
            *("--output", tmp_path / name),
            environ=built.environ,
        )
        assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    labels = built.target.labels
    assert [{label: row[label] for label in labels} for row in found] == told["predictions"]
    with (tmp_path / "out.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [{label: float(row[label]) for label in labels} for row in table] == told["predictions"]
    assert [row["decision"] for row in table] == [row["decision"] for row in found]
    assert all(row["decision"] in ("keep", "ask") for row in found)


# --- mistakes -----------------------------------------------------------------------------------

BROKEN = """
    import pandas as pd
    def score(data, model, **kwargs):
        if data["a"].max() > 15:
            raise ValueError("a is too much")
        return pd.DataFrame({"Predictions": data["a"]})
"""


def test_failing_rows_are_named(data: Path, tmp_path: Path) -> None:
    """Exit code 1, the rows, the hook, its exception and traceback; the old output stays."""
    model = write_model(tmp_path / "m", BROKEN, REGRESSION)
    output = tmp_path / "out.csv"
    output.write_text("old")
    done = run(
        *("score", "--code-dir", model, "--input", data, "--output", output, "--chunk-rows", 10)
    )
    assert done.returncode == 1
    *trace, last = done.stderr.splitlines()
    assert last == (
        f"drumd: cannot score rows 11 to 20 of {data}: cannot predict: score in custom.py raised "
        "ValueError: a is too much"
    )
    assert trace[0] == "Traceback (most recent call last):"
    assert any('custom.py", line 5, in score' in line for line in trace)
    assert "drumd/" not in "".join(trace)
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "m", "out.csv"]


def test_bad_data_are_told_as_a_client_is_told(model: Path, tmp_path: Path) -> None:
    """A row with more fields than the header is told by the reader, with the rows."""
    path = tmp_path / "bad.csv"
    path.write_text("a,b\n1,2\n1,2,3\n")
    done = run("score", "--code-dir", model, "--input", path)
    assert done.returncode == 1
    assert f"cannot score rows 1 to 2 of {path}: cannot read the data as CSV" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "cannot read {}: it is empty"),
        (b"a,b\n1,2\n3,\xfc\n", "cannot read {part}: the byte 0xfc is not UTF-8; convert it, e.g."),
    ],
)
def test_a_file_that_is_no_text_is_told_as_a_file(
    model: Path, tmp_path: Path, data: bytes, told: str
) -> None:
    """Nobody who scores or validates a file is told of bodies and content types."""
    path = tmp_path / "data.csv"
    path.write_bytes(data)
    done = run("score", "--code-dir", model, "--input", path)
    assert done.returncode == 1
    assert told.format(path, part=f"rows 1 to 2 of {path}") in done.stderr
    tried = run("validate", "--code-dir", model, "--input", path)
    assert tried.returncode == 1
    assert f"predict: {told.format(path, part=f'2 rows of {path}')}" in tried.stdout
    for text in (done.stderr, tried.stdout):
        assert "body" not in text
        assert "content type" not in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--input", "gone.csv"], "cannot read "),
        (["--input", "data.csv", "--output", "gone/out.csv"], "cannot write "),
        (["--input", "data.csv", "--output", "out.xls"], "let --output end with .csv"),
        (["--input", "data.csv", "--chunk-rows", "0"], "'0' is not a number of rows"),
        ([], "--input"),
    ],
)
def test_mistakes_in_flags_are_told(
    model: Path, data: Path, arguments: list[str], said: str
) -> None:
    """A wrong flag is exit code 2, in one line, and nothing is left behind."""
    done = run("score", "--code-dir", model, *arguments, cwd=data.parent)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list(data.parent.iterdir()) == [data]


def test_a_model_that_cannot_be_loaded_is_exit_code_3(data: Path, tmp_path: Path) -> None:
    """The hook and the exception are told, with the model's own traceback."""
    code = "def load_model(code_dir):\n    raise OSError('no weights')\n"
    model = write_model(tmp_path / "m", code, REGRESSION)
    done = run("score", "--code-dir", model, "--input", data)
    assert done.returncode == 3
    assert "load_model in custom.py raised OSError: no weights" in done.stderr.splitlines()[-1]


def test_a_directory_that_is_no_models_is_exit_code_78(data: Path, tmp_path: Path) -> None:
    """A directory that is not there, or has no model in it, is told with what to do."""
    (tmp_path / "empty").mkdir()
    for name, said in (
        ("gone", "there is no such directory"),
        ("empty", "has neither a custom.py"),
    ):
        done = run("score", "--code-dir", name, "--input", data, cwd=tmp_path)
        assert done.returncode == 78
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_invalid_settings_are_exit_code_78(data: Path, tmp_path: Path) -> None:
    """What is missing in the settings is told, with how to say it."""
    done = run("score", "--code-dir", write_model(tmp_path / "m", SUM), "--input", data)
    assert done.returncode == 78
    assert "set --target-type" in done.stderr


# --- how far it is --------------------------------------------------------------------------------


def test_a_terminal_shows_a_bar(model: Path, data: Path, tmp_path: Path) -> None:
    """On a terminal progress is a line that is written over; what stays is the end of it."""
    code, said = on_terminal(
        *("score", "--code-dir", model, "--input", data, "--output", tmp_path / "out.csv"),
        *("--chunk-rows", 10),
        NO_COLOR="1",
    )
    assert code == 0
    last = said.rstrip("\n").split("\r\x1b[J")[-1]
    assert last.splitlines()[-1].startswith("scored 25 rows in ")
    assert "[███" in said
    assert "10 rows, " in said
    bars = [line for line in said.replace("\r", "\n").split("\n") if "[█" in line]
    assert all(len(bar.replace("\x1b[J", "")) < 80 for bar in bars)


def test_the_bar_is_not_drawn_for_each_chunk(tmp_path: Path) -> None:
    """However many chunks there are, the terminal is written to a few times a second only."""
    code = SUM.replace("print(", "str(")
    path = tmp_path / "long.csv"
    path.write_text("a,b\n" + "1,2\n" * 400)
    exited, said = on_terminal(
        *("score", "--code-dir", write_model(tmp_path / "m", code, REGRESSION), "--input", path),
        *("--output", tmp_path / "out.csv", "--chunk-rows", 1),
    )
    assert exited == 0
    assert (tmp_path / "out.csv").read_text().count("\n") == 401
    seconds = float(said.split("scored 400 rows in ")[1].split()[0])
    assert said.count("rows/s") <= 2 + 10 * (seconds + 0.1)


def test_rows_are_scored_as_they_come(model: Path, tmp_path: Path) -> None:
    """Of a pipe each chunk is scored once its rows are there: nothing reads the input whole."""
    path = tmp_path / "pipe.csv"
    os.mkfifo(path)
    with subprocess.Popen(
        command(
            *("score", "--code-dir", model, "--input", path, "--output", tmp_path / "out.csv"),
            *("--chunk-rows", 5, "--verbose"),
        ),
        env=surroundings(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stderr is not None
        with path.open("w", buffering=1) as pipe:
            pipe.write("a,b\n" + "1,2\n" * 5)
            lines = [child.stderr.readline(), child.stderr.readline()]
            assert lines[-1].startswith("5 rows, "), lines
            pipe.write("1,2\n" * 7)
            assert child.stderr.readline().startswith("10 rows, ")
        assert child.stderr.readline().startswith("12 rows, ")
        assert child.wait(CAP) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_nothing_behind(
    data: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C and SIGTERM end it with 128 + their number; no half file is there."""
    code = f"""
        import pathlib, signal
        def score(data, model, **kwargs):
            pathlib.Path({str(tmp_path / "mark")!r}).touch()
            while True:
                try:
                    signal.pause()
                except Exception:
                    pass
    """
    model = write_model(tmp_path / "m", code, REGRESSION)
    output = tmp_path / "out.csv"
    done = interrupted(
        number, tmp_path / "mark",
        *("score", "--code-dir", model, "--input", data, "--output", output),
    )  # fmt: skip
    assert done.returncode == 128 + number
    assert done.stderr == f"drumd: interrupted by {number.name}: {output} is as it was before\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "m", "mark"]


def test_a_reader_that_has_enough_ends_it_quietly(model: Path, data: Path) -> None:
    """Of `drumd score ... | head -1` nobody hears of a broken pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command("score", "--code-dir", model, "--input", data),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env=surroundings(),
        check=False,
        timeout=CAP,
    )
    os.close(writing)
    assert done.returncode == 0
    assert set(done.stderr.splitlines()) == {"custom.py prints", "score prints"}


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A file of 40 MB takes hardly more memory than one of 40 kB."""
    code = """
        import resource, sys
        def score(data, model, **kwargs):
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
            return data["number"]
    """
    model = write_model(tmp_path / "m", code, REGRESSION)
    rows = ("1," + 1000 * "x" + "\n") * 40

    def most(times: int) -> int:
        path = tmp_path / f"{times}.csv"
        with path.open("w") as file:
            file.write("number,text\n")
            for _ in range(times):
                file.write(rows)
        done = run("score", "--code-dir", model, "--input", path, "--chunk-rows", 1000)
        assert done.returncode == 0, done.stderr
        return int(done.stderr.splitlines()[-2])

    small, big = most(1), most(1000)
    assert big - small < 20_000, "KiB"


def test_a_signal_that_is_ignored_stays_so(data: Path, tmp_path: Path) -> None:
    """What a background shell or nohup has ignored does not end it."""
    code = """
        import os, signal
        def score(data, model, **kwargs):
            os.kill(os.getpid(), signal.SIGINT)
            return data["a"]
    """
    model = write_model(tmp_path / "m", code, REGRESSION)
    done = subprocess.run(
        [
            *("/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh"),
            *command("score", "--code-dir", model, "--input", data),
        ],
        env=surroundings(),
        capture_output=True,
        text=True,
        timeout=CAP,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 26
