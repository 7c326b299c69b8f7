"""`drumd.RuntimeParameters`, as a model's code uses it: in processes of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
METADATA = """\
runtimeParameterDefinitions:
- {fieldName: THRESHOLD, type: numeric, defaultValue: 0.5, maxValue: 1}
- {fieldName: LOGIN, type: credential}
"""


def run(directory: Path, code: str, **environ: str) -> tuple[int, str, str]:
    """Run a program in a model directory."""
    said = {name: text for name, text in os.environ.items() if not name.startswith("MLOPS_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=directory,
        env={**said, "PYTHONPATH": str(CHECKOUT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.strip(), done.stderr


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model-metadata.yaml").write_text(METADATA)
    return tmp_path


def test_a_model_reads_its_parameters(model: Path) -> None:
    """`has` and `get` know environment, file and defaults of the model directory."""
    (model / "p.yaml").write_text("THRESHOLD: 0.25\n")
    code = (
        "from drumd import RuntimeParameters as R\n"
        "print(R.get('THRESHOLD'), R.has('LOGIN'), R.get('LOGIN'), R.has('X'), R.get('WORDS'))"
    )
    words = '{"type": "string", "payload": "a b"}'
    _, printed, _ = run(model, code, MLOPS_RUNTIME_PARAM_WORDS=words)
    assert printed == "0.5 False None False a b"
    said = {"MLOPS_RUNTIME_PARAM_WORDS": "4", "MLOPS_RUNTIME_PARAM_X": "true"}
    _, printed, _ = run(model, code, RUNTIME_PARAMS_FILE="p.yaml", **said)
    assert printed == "0.25 False None True 4"


def test_a_missing_one_says_which_exist(model: Path) -> None:
    """`get` of a parameter that there is not raises a ValueError that names those that are."""
    code = (
        "from drumd import RuntimeParameters\n"
        "try: RuntimeParameters.get('TRESHOLD')\n"
        "except ValueError as error: print(error)"
    )
    code_of, printed, _ = run(model, code)
    assert code_of == 0
    assert printed.startswith(
        "cannot find the runtime parameter 'TRESHOLD': there are LOGIN, THRES"
    )
    assert "set MLOPS_RUNTIME_PARAM_TRESHOLD" in printed


def test_a_credential_prints_as_stars(model: Path) -> None:
    """A credential is a dict that can be used and sent, and whose print shows nothing."""
    login = json.dumps({"type": "credential", "payload": {"user": "ada", "password": "hunter2"}})
    code = (
        "import json, pprint\nfrom drumd import RuntimeParameters\n"
        "login = RuntimeParameters.get('LOGIN')\n"
        "assert login['password'] == 'hunter2' and isinstance(login, dict)\n"
        "assert json.dumps(login) == json.dumps(dict(login))\n"
        "assert {**login} == login == dict(login)\n"
        "print(login, f'{login}', [login]); pprint.pprint(login)\n"
        "raise KeyError(login)"
    )
    _, printed, error = run(model, code, MLOPS_RUNTIME_PARAM_LOGIN=login)
    assert printed.count("'password': '***'") == 4
    assert "hunter2" not in printed + error.split("KeyError")[-1]


def test_wrong_parameters_are_told_to_the_model(model: Path) -> None:
    """Outside of a server, too, a value out of its range is an error that says so."""
    code = "from drumd import RuntimeParameters\nRuntimeParameters.get('THRESHOLD')"
    code_of, _, error = run(model, code, MLOPS_RUNTIME_PARAM_THRESHOLD="7")
    assert code_of == 1
    assert "THRESHOLD = '7' (environment MLOPS_RUNTIME_PARAM_THRESHOLD): must be at most 1" in error


def test_the_directory_that_was_read_counts(model: Path) -> None:
    """After `read_settings` for a directory, a model's code has the parameters of that one."""
    elsewhere = model / "elsewhere"
    elsewhere.mkdir()
    code = (
        "from pathlib import Path\nfrom drumd import RuntimeParameters\n"
        "from drumd.config.modelserver.reading import read_settings\n"
        "read_settings({'TARGET_TYPE': 'regression'}, Path('..'))\n"
        "print(RuntimeParameters.get('THRESHOLD'))"
    )
    _, printed, error = run(elsewhere, code)
    assert printed == "0.5", error


def test_importing_drumd_imports_nothing_else() -> None:
    """`import drumd` is cheap: what models import from it is loaded when it is asked for."""
    code = (
        "import sys, drumd\n"
        "print(sorted(name for name in sys.modules if name[:5] == 'drumd' or name == 'yaml'))\n"
        "try: drumd.Nothing\nexcept AttributeError as error: print(error)"
    )
    _, printed, _ = run(CHECKOUT, code)
    assert printed.splitlines() == ["['drumd']", "module 'drumd' has no attribute 'Nothing'"]


def test_models_import_their_names_from_drumd() -> None:
    """`RuntimeParameters` and `ModelError` are there for a model's code."""
    code = (
        "from drumd import ModelError, RuntimeParameters; print(ModelError('x', status=402).status)"
    )
    assert run(CHECKOUT, code)[:2] == (0, "402")


@pytest.mark.parametrize("said", ["X: 1", ""])
def test_yaml_is_imported_only_for_a_file(tmp_path: Path, said: str) -> None:
    """PyYAML is needed where there is a file, and then its extra is named if it is missing."""
    if said:
        (tmp_path / "model-metadata.yaml").write_text(said)
    code = (
        "import sys\nsys.modules['yaml'] = None\n"
        "from drumd import RuntimeParameters\nprint(RuntimeParameters.get('A'))"
    )
    code_of, printed, error = run(tmp_path, code, MLOPS_RUNTIME_PARAM_A="1")
    if said:
        assert code_of == 1
        assert "PyYAML is not installed; install it with pip install 'drumd[model]'" in error
    else:
        assert printed == "1"
