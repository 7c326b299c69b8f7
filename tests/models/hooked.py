"""Models that a custom.py makes: with hooks of their own, slow ones, failing ones."""

from pathlib import Path
from textwrap import dedent

import pandas as pd

from drumd.config.modelserver.target import Target, TargetType
from drumd.modelserver.payload import Payload
from tests.models import tabular as trained
from tests.models.built import Built, tabular

_NUMBERS = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [10.0, 20.0, 30.0]})


def with_custom(
    directory: Path,
    source: str,
    target: Target = Target(TargetType.REGRESSION),  # noqa: B008 - it cannot be changed
    frame: pd.DataFrame = _NUMBERS,
) -> Built:
    """Build a model directory of a custom.py alone; its payload has columns a and b."""
    (directory / "custom.py").write_text(dedent(source))
    return tabular(directory, target, frame)


def binary_hooks(directory: Path) -> Built:
    """Build the binary classifier with hooks around it: it answers as the artifact, and more."""
    built = trained.binary(directory)
    return with_custom(
        directory,
        """
        from pathlib import Path

        import joblib
        import pandas as pd

        STARTED = []

        def init(code_dir):
            STARTED.append(code_dir)

        def load_model(code_dir):
            assert STARTED == [code_dir]
            print("the model is read")
            return joblib.load(Path(code_dir) / "model.pkl")

        def transform(data, model):
            return data.fillna(0.0)

        def score(data, model, **kwargs):
            positive = model.predict_proba(data)[:, list(model.classes_).index("yes")]
            labels = kwargs["positive_class_label"], kwargs["negative_class_label"]
            return pd.DataFrame({labels[0]: positive, labels[1]: 1 - positive})

        def post_process(predictions, model):
            decision = predictions["yes"].gt(0.5).map({True: "keep", False: "ask"})
            return predictions.assign(decision=decision)
        """,
        built.target,
        built.frame,
    )


FAILING_HOOKS = ("read_input_data", "transform", "score", "post_process")


def failing_hooks(directory: Path) -> Built:
    """Build a model with all hooks of a prediction; it answers any bytes with twice their length.

    Data that begin with the name of a hook make this one fail, with the status behind the name.
    """
    source = """
        import drumd

        def meet(hook, data):
            name, _, status = data.decode().partition(" ")
            if name == hook:
                if status:
                    raise drumd.ModelError(f"not in {hook}", status=int(status))
                raise LookupError(f"no way through {hook}")

        def init(code_dir):
            global directory
            directory = code_dir

        def load_model(code_dir):
            assert directory == code_dir
            return {"factor": 2}

        def read_input_data(input_binary_data):
            meet("read_input_data", input_binary_data)
            return input_binary_data

        def transform(data, model):
            meet("transform", data)
            return [data]

        def score(data, model):
            meet("score", data[0])
            model["last"] = data[0]
            return [len(each) for each in data]

        def post_process(predictions, model):
            meet("post_process", model["last"])
            return predictions * model["factor"]
    """
    (directory / "custom.py").write_text(dedent(source))
    payload = Payload(bytes(range(128)), "application/x-own")
    return Built(directory, Target(TargetType.REGRESSION), payload)


def transform(directory: Path) -> Built:
    """Build a model that turns a and b into their sum and their product."""
    return with_custom(
        directory,
        """
        import pandas as pd

        def transform(data, model):
            return pd.DataFrame({"sum": data.a + data.b, "product": data.a * data.b})
        """,
        Target(TargetType.TRANSFORM),
    )


def unstructured(directory: Path) -> Built:
    """Build a model that answers with the data in upper case, in the way that `?as=` says."""
    (directory / "custom.py").write_text(
        dedent("""
        def load_model(code_dir):
            return "upper"

        def score_unstructured(model, data, query, mimetype, charset, headers, **kwargs):
            upper = data.upper()
            match query.get("as"):
                case "bytes":
                    return upper if isinstance(upper, bytes) else upper.encode()
                case "json":
                    return {"model": model, "type": type(data).__name__, "mimetype": mimetype,
                            "charset": charset, "query": query}
                case "html":
                    return f"<p>{upper}</p>", {"mimetype": "text/html", "charset": "latin-1"}
                case "png":
                    return b"PNG", {"mimetype": "image/png"}
                case "header":
                    return headers["x-colour"]
                case "nothing":
                    return None
                case "broken":
                    raise ValueError("no such way")
            return upper
        """)
    )
    return Built(
        directory,
        Target(TargetType.UNSTRUCTURED),
        Payload("grün ist schön".encode(), "text/plain; charset=utf-8"),
    )


def slow(directory: Path) -> Built:
    """Build a model that answers once there is a file `go`; it makes `waiting-N` for the Nth."""
    return with_custom(
        directory,
        """
        import itertools
        import time
        from pathlib import Path

        HERE = Path(__file__).parent
        numbers = itertools.count(1)

        def score(data, model):
            (HERE / f"waiting-{next(numbers)}").touch()
            while not (HERE / "go").exists():
                time.sleep(0.005)
            return data["a"]
        """,
    )


MOODS = (
    "fine",
    "raise",
    "exit",
    "own status",
    "starlette",
    "werkzeug",
    "not a number",
    "text",
    "too few",
    "two columns",
    "none",
    "long",
)


def moody(directory: Path) -> Built:
    """Build a model that behaves as the column `mood` of its first row says: see `MOODS`."""
    return with_custom(
        directory,
        """
        import sys

        import numpy as np

        import drumd

        def score(data, model):
            match data["mood"].iloc[0]:
                case "raise":
                    raise ValueError("no such colour")
                case "exit":
                    sys.exit("enough")
                case "own status":
                    raise drumd.ModelError("the customer is not known", status=404)
                case "starlette":
                    from starlette.exceptions import HTTPException

                    raise HTTPException(429, "come back later")
                case "werkzeug":
                    from werkzeug.exceptions import Conflict

                    raise Conflict("another has it")
                case "not a number":
                    return [float("nan")] * len(data)
                case "text":
                    return ["three"] * len(data)
                case "too few":
                    return [1.0] * (len(data) - 1)
                case "two columns":
                    return np.zeros((len(data), 2))
                case "none":
                    return None
                case "long":
                    raise ValueError("x" * 100_000)
            return [1.0] * len(data)
        """,
        frame=pd.DataFrame({"mood": ["fine", "fine"]}),
    )


def failing_load(directory: Path, hook: str = "load_model", failure: str = "") -> Built:
    """Build a model whose `init` or `load_model`, or whose import (""), fails."""
    failure = failure or 'raise ValueError("the file is damaged")'
    body = f"def {hook}(code_dir):\n    helped()\n" if hook else "helped()\n"
    source = f"def helped():\n    {failure}\n\n{body}"
    return with_custom(directory, source)
