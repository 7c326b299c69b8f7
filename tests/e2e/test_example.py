"""The example models, served and asked as the documents tell."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.daemon import CHECKOUT, Daemon, free_port
from tests.needs import needs

EXAMPLE = CHECKOUT / "examples/diabetes"
README = EXAMPLE / "README.md"
IRIS = CHECKOUT / "examples/iris"

POOL = """
[pools.web]
app = "{app}:app"
app_dir = "{directory}"
bind = "127.0.0.1:{port}"
workers = 2
"""


@pytest.fixture(scope="module", autouse=True)
def _models() -> None:
    for directory in (EXAMPLE, IRIS):
        if not (directory / "model.joblib").exists():
            subprocess.run([sys.executable, str(directory / "train.py")], check=True)


def question_and_answer(document: Path) -> tuple[str, str]:
    """Return the first curl command of a document, and the line below it."""
    lines = document.read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if line.startswith("$ curl "))
    return lines[number].removeprefix("$ "), lines[number + 1]


@pytest.mark.parametrize("app", ["app_fastapi", "app_flask"])
def test_readme_tells_the_answer(app: str, daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """The curl command of the example's README gets the answer that stands below it."""
    needs("curl", "curl")
    question, answer = question_and_answer(README)
    port = free_port()
    config = tmp_path / "drumd.toml"
    config.write_text(POOL.format(app=app, directory=EXAMPLE, port=port))
    daemon("run", "--config", str(config)).wait_ready(2)
    # The port alone differs: the README's may be in use on the machine that runs the tests.
    words = shlex.split(question.replace("127.0.0.1:8080", f"127.0.0.1:{port}"))
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == answer


def test_model_server_answers_as_its_document_tells(
    daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """The commands of docs/model-server.md get the answer that stands below them."""
    needs("curl", "curl")
    document = CHECKOUT / "docs/model-server.md"
    (data,) = (line for line in document.read_text().splitlines() if line.startswith("$ printf "))
    question, answer = question_and_answer(document)
    port = free_port()
    daemon("server", "--code-dir", str(IRIS), "--address", f"127.0.0.1:{port}").wait_ready(
        1, "model"
    )
    subprocess.run(data.removeprefix("$ "), shell=True, check=True, cwd=tmp_path)
    words = shlex.split(question.replace("127.0.0.1:8080", f"127.0.0.1:{port}"))
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    (got,), (told,) = json.loads(done.stdout)["predictions"], json.loads(answer)["predictions"]
    # The last digits are the CPU's.
    assert got == pytest.approx(told, abs=1e-6)


def test_both_readmes_ask_the_same() -> None:
    """The project's README shows the same question and answer as the example's."""
    assert question_and_answer(CHECKOUT / "README.md") == question_and_answer(README)


def test_example_config_is_valid() -> None:
    """`drumd check` finds nothing to say about the example's two pools."""
    command = [sys.executable, "-m", "drumd", "check", "--config", str(EXAMPLE / "drumd.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "app_flask:app" in done.stdout


def test_readme_asks_the_model_server_as_its_document() -> None:
    """The project's README asks for the flower of docs/model-server.md, and shows its answer."""
    readme = (CHECKOUT / "README.md").read_text().splitlines()
    document = (CHECKOUT / "docs/model-server.md").read_text().splitlines()
    start = next(i for i, line in enumerate(document) if line.startswith("$ printf "))
    assert "\n".join(document[start : start + 3]) in "\n".join(readme)
