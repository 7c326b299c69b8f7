"""A big model: mostly large arrays, and many small objects, as trees and dictionaries are.

The small ones are what makes sharing hard: a look at an object writes its count of references.
"""

import os
import random

MEGABYTES = int(os.environ.get("BENCH_MODEL_MEGABYTES", "500"))
SMALL_MEGABYTES = MEGABYTES // 10
OBJECTS = SMALL_MEGABYTES * 10_000
"""Each takes some 100 bytes with its place in the list."""

ARRAYS = [bytearray(os.urandom(4096) * 256) for _ in range(MEGABYTES - SMALL_MEGABYTES)]
NODES = [(float(number), float(number + 1)) for number in range(OBJECTS)]


def predict() -> float:
    """Walk through some of the model, as a prediction does."""
    total = 0.0
    for _ in range(100):
        total += NODES[random.randrange(OBJECTS)][0]
        array = ARRAYS[random.randrange(len(ARRAYS))]
        total += array[random.randrange(len(array))]
    return total
