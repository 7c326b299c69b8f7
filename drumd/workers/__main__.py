"""`python -m drumd.workers`: one worker. What follows on the command line is for `ps` only."""

from drumd.workers.entry import main

main()
