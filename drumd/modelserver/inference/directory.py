"""Loading a model directory: its custom.py, its model, and what must be there for its target."""

from dataclasses import dataclass
from typing import Any

from drumd.config.modelserver.settings import ModelSettings
from drumd.config.modelserver.target import Target, TargetType
from drumd.modelserver.errors import LoadError
from drumd.modelserver.inference import artifacts
from drumd.modelserver.inference.artifacts import Kind
from drumd.modelserver.inference.hooks import Hook, find_hooks
from drumd.modelserver.inference.running import Runner

CUSTOM = "custom.py"

# What answers for a target, any of these; None is the model's own method.
_ANSWERING = {
    TargetType.UNSTRUCTURED: ("score_unstructured",),
    TargetType.TRANSFORM: ("transform",),
    TargetType.TEXT_GENERATION: ("score", "chat"),
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a model directory holds, ready to be called."""

    hooks: dict[str, Hook]
    model: Any
    kind: str
    artifact: Kind | None
    """How the model was read, unless load_model did it."""
    runner: Runner


def load_directory(settings: ModelSettings) -> Loaded:
    """Import custom.py, run `init`, and load the model; raise `LoadError`."""
    code_dir, target = settings.code_dir, settings.target
    if not code_dir.is_dir():
        raise LoadError(f"cannot load the model: there is no directory {code_dir}")
    if target.type.has_labels and not target.labels:
        raise LoadError(f"cannot load the model: its target is {target.type}, but has no labels")
    runner = Runner(code_dir)
    hooks = find_hooks(code_dir)
    if "init" in hooks:
        runner.load(hooks["init"])
    if "load_model" in hooks:
        loaded = Loaded(hooks, runner.load(hooks["load_model"]), CUSTOM, None, runner)
    else:
        loaded = _with_artifact(settings, hooks, runner)
    _check_answers(loaded, target)
    return loaded


def _with_artifact(settings: ModelSettings, hooks: dict[str, Hook], runner: Runner) -> Loaded:
    code_dir = settings.code_dir
    found = artifacts.find(code_dir)
    if len(found) > 1:
        raise LoadError(
            f"cannot load the model: {code_dir} has {', '.join(path.name for path in found)}; "
            "leave one of them there, or write load_model in custom.py"
        )
    if found:
        artifact = artifacts.load(found[0])
        return Loaded(hooks, artifact.model, artifact.kind.name, artifact.kind, runner)
    if not any(name in hooks for name in _answering(settings.target.type)):
        raise LoadError(f"cannot load the model: {artifacts.choices(code_dir)}")
    # A hook that needs no model, or has made its own in `init`.
    return Loaded(hooks, None, CUSTOM, None, runner)


def _answering(target_type: TargetType) -> tuple[str, ...]:
    return _ANSWERING.get(target_type, ("score",))


def _check_answers(loaded: Loaded, target: Target) -> None:
    """Refuse an unstructured or transforming model without its hook: nothing else can answer."""
    needed = _answering(target.type)
    if target.type not in (TargetType.UNSTRUCTURED, TargetType.TRANSFORM):
        return
    if not any(name in loaded.hooks for name in needed):
        raise LoadError(
            f"cannot load the model: its target is {target.type}, but custom.py has no "
            f"{needed[0]}; write it, or set another target type"
        )
