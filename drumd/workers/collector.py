"""The garbage collector of a worker with an event loop, which holds many requests at once."""

import gc

OLD_THRESHOLD = 700
THRESHOLD = 2000
"""New objects at which the garbage collector starts: CPython's default before 3.13, and since.

Some thirty requests at once are more than 700 objects. So each batch that the loop takes from its
clients started a collection, which found nothing and took 5 % of the worker's time.
"""


def calm() -> None:
    """Let the collector start as seldom as CPython 3.13's does, unless the app has set it."""
    first, *others = gc.get_threshold()
    if first == OLD_THRESHOLD:
        gc.set_threshold(THRESHOLD, *others)
