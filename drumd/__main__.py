"""`python -m drumd`: the same as the command `drumd`."""

import sys

from drumd.supervisor.cli.drumd import main

if __name__ == "__main__":
    sys.exit(main())
