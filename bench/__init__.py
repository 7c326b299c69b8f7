"""Compare drumd with the servers it runs, each under its own master, in one run on this machine."""
