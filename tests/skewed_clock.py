"""Another time of day for all Python of a node, and the same monotonic clock: `sitecustomize.py` in a node's path (see cluster).

Beside it is a file `ahead` that says by how many nanoseconds. Under Debian's libfaketime 0.9.10 each time.sleep of Python 3.11
fails: it spoils the absolute times for which clock_nanosleep is to wait.
"""

import os.path
import time

real = time.time_ns
path = os.path.join(os.path.dirname(__file__), "ahead")


def ahead() -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())


time.time_ns = lambda: real() + ahead()
time.time = lambda: time.time_ns() / 1e9
