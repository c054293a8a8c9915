"""Turns of the event loop beside a thread that uses the database."""

import time

GAP_S = 0.001


def yield_to_requests() -> None:
    """Give the event loop its turn: sqlite3 frees the interpreter's lock for each statement, but takes it again before
    a waiting thread has woken up.
    """
    time.sleep(GAP_S)
