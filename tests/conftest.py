"""What all tests share: the dispositions that a terminal would give them."""

import signal

# A shell that starts the tests in the background has them ignore SIGINT, and whatever they start
# does so, too: no Ctrl-C that a test sends would reach anybody.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
