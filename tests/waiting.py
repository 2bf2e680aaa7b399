"""Tests that start processes: how long to wait for them, and where two of them meet."""

import os
import socket

# Seconds after which a process surely hangs. None comes near it, however busy the machine: a test that fails
# because others work beside it says nothing.
HANGS = 3600


def meeting_place():
    """Environment for processes that find each other: a port of this test's own, on this machine alone.

    The port is none of those that a system gives out by itself: between its choice and its use another
    process would be given it.
    """
    first = 20_000 + os.getpid() * 37 % 10_000
    for port in (*range(first, 30_000), *range(20_000, first)):
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    raise OSError("no port from 20000 to 29999 is free")
