"""Exit codes of `drumd` and `drumctl`: an interface for units and scripts."""

from enum import IntEnum


class DaemonExit(IntEnum):
    """How `drumd` ends. A death by signal n shows as 128+n in shells."""

    STOPPED = 0
    """Asked to stop, and stopped."""
    INTERNAL = 1
    """A bug of drumd's own."""
    USAGE = 2
    """The command line is wrong."""
    START_FAILED = 3
    """A pool never became ready."""
    POOL_LOST = 4
    """An essential pool has no slot left that serves or is tried again soon."""
    CONFIG = 78
    """The config is invalid (EX_CONFIG of sysexits.h)."""


class BatchExit(IntEnum):
    """How `drumd score` and `drumd validate` end; 128+n when signal n interrupted them."""

    DONE = 0
    """Scored; or valid, if with warnings."""
    FAILED = 1
    """Rows could not be scored, a file not be read or written; or there is something to fix."""
    USAGE = 2
    """The command line is wrong, or a file that it names."""
    LOAD_FAILED = 3
    """The model could not be loaded."""
    CONFIG = 78
    """The model's settings are invalid (EX_CONFIG of sysexits.h)."""


class ControlExit(IntEnum):
    """How `drumctl` ends; `drumctl status` follows the LSB's codes for status."""

    OK = 0
    DEGRADED = 1
    """Not every pool is ready, or the operation failed."""
    USAGE = 2
    """The command line, or a name in it, is wrong."""
    NOT_RUNNING = 3
    """No daemon answers on the socket."""
    UNKNOWN = 4
    """A daemon is there, but what it says could not be had."""
