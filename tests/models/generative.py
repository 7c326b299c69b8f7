"""Models that answer with text: as a table, and as a chat."""

from pathlib import Path
from textwrap import dedent

import pandas as pd

from drumd.config.modelserver.target import Target, TargetType
from drumd.modelserver.payload import Payload
from tests.models.built import JSON, Built
from tests.models.hooked import with_custom

QUESTION = b'{"model": "parrot", "messages": [{"role": "user", "content": "hello there world"}]}'

_HELPERS = """
    def completion(params, text):
        return {
            "id": "chat-1",
            "object": "chat.completion",
            "created": 1,
            "model": params.get("model", "parrot"),
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }],
            "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6},
        }

    def chunks(params, words):
        for number, word in enumerate(words):
            yield {
                "id": "chat-1",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": params.get("model", "parrot"),
                "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}],
            }
"""


def text_generation(directory: Path) -> Built:
    """Build a model that answers each prompt backwards, in the column `answer`."""
    return with_custom(
        directory,
        """
        import pandas as pd

        def score(data, model):
            prompts = data["prompt"].str
            return pd.DataFrame({"answer": prompts[::-1], "length": prompts.len()})
        """,
        Target(TargetType.TEXT_GENERATION, name="answer"),
        pd.DataFrame({"prompt": ["hello", "grün"]}),
    )


def chat(directory: Path) -> Built:
    """Build a model that repeats the last message, word by word where a stream is asked for.

    A message "raise" makes it fail, "own status" ask for 402; "raise later", "status later" and
    "no json later" do so after the first chunk.
    """
    return chat_hook(
        directory,
        """
        import drumd

        def chat(completion_create_params, model):
            text = completion_create_params["messages"][-1]["content"]
            if text == "raise":
                raise ValueError("no such word")
            if text == "own status":
                raise drumd.ModelError("pay first", status=402)
            if completion_create_params.get("stream"):
                return spoken(completion_create_params, text)
            return completion(completion_create_params, text)

        def spoken(params, text):
            for number, chunk in enumerate(chunks(params, text.split())):
                if number and text == "raise later":
                    raise ValueError("no such word")
                if number and text == "status later":
                    raise drumd.ModelError("pay now", status=402)
                if number and text == "no json later":
                    chunk["likely"] = float("nan")
                yield chunk

        def get_supported_llm_models(model):
            return ["parrot", {"id": "owl", "object": "model", "owned_by": "forest"}]
        """,
    )


def chat_hook(directory: Path, source: str) -> Built:
    """Build a chat model of `source`, which can call `completion(params, text)` and `chunks`."""
    (directory / "custom.py").write_text(dedent(_HELPERS) + dedent(source))
    target = Target(TargetType.TEXT_GENERATION, name="answer")
    return Built(directory, target, Payload(QUESTION, JSON))
