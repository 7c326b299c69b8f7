"""What a worker of a model server needs to know, all of it checked."""

from dataclasses import dataclass
from pathlib import Path

from drumd.config.modelserver.target import Target


@dataclass(frozen=True, slots=True)
class Backend:
    """An OpenAI-style server beside the model, which `/directAccess/` and `/nim/` lead to."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """A model directory and how it is served."""

    code_dir: Path
    """Absolute, symlinks resolved."""
    target: Target
    url_prefix: str = ""
    """Nothing, or a path such as `/models/diabetes`, without a slash at its end."""
    max_body: int = 256 * 1024 * 1024
    """Bytes that a request's body may have."""
    threads: int = 4
    """Requests that one worker computes at once, where the server runs hooks in threads."""
    queue: int = 64
    """Requests that may wait for one of these threads; more are refused."""
    request_timeout: float = 120.0
    """Seconds that the backend may be silent."""
    backend: Backend | None = None
