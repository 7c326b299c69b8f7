"""Runtime parameters in the environment that are probably misspelt."""

from collections.abc import Iterator

from drumd.config.modelserver.parameters import ENVIRONMENT, PREFIX, Parameters
from drumd.config.modelserver.table import KNOWN
from drumd.config.problems import Problem, nearest

_RESERVED = ("DRUM_", "CUSTOM_MODEL_")
"""How names begin that mean something to drumd, or to nobody."""
_SURELY = 0.8
"""How like a definition another name is that was meant to be it: models read what they like."""


def misspelt_parameters(parameters: Parameters) -> Iterator[Problem]:
    """Yield what is called as drumd's own parameters, or nearly as a definition, and is none."""
    said = {
        name for name, each in parameters.by_name.items() if each.origin.startswith(ENVIRONMENT)
    }
    unsaid = sorted({*KNOWN, *parameters.defined} - said)  # who says both means both
    for name in parameters.by_name:
        if name in KNOWN or name in parameters.defined:
            continue
        if name.startswith(_RESERVED):
            message = "has no effect on drumd, which has no such runtime parameter"
            meant = nearest(name, {*KNOWN, *parameters.defined})
        else:
            message = "is none of the parameters that the model defines"
            meant = nearest(name, unsaid, _SURELY)
            if meant is None:
                continue
        yield Problem(
            key=f"{PREFIX}{name}",
            message=message,
            suggestion=f"did you mean {meant}?" if meant else "",
            origin=ENVIRONMENT.strip(),  # its variable is the key
        )
