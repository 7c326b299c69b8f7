"""A module that goes wrong while it is imported, in the way that $HOW names."""

import os
import re
import sys
import time

match os.environ["HOW"].split():
    case ["raise"]:
        raise ValueError("no model in this directory")
    case ["exit", code]:
        sys.exit(int(code))
    case ["kill", code]:
        os._exit(int(code))
    case ["hang"]:
        sys.stdout.write("hanging\n")
        sys.stdout.flush()
        time.sleep(3600)
    case ["gil"]:
        sys.stdout.write("hanging\n")
        sys.stdout.flush()
        re.match(r"(a+)+$", "a" * 60 + "b")
    case ["closefds"]:
        os.closerange(3, 65_536)
    case ["missing"]:
        import no_such_library  # type: ignore[import-not-found]  # noqa: F401
