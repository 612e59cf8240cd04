"""What holds for all tests."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell without job control starts what it puts in the background that way, and every child would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
