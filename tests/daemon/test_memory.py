"""The daemon's allocator gives back what it does not need."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import os
from sampan.daemon.memory import stay_small

def private_kib():
    with open('/proc/self/smaps_rollup') as file:
        return next(int(line.split()[1]) for line in file if line.startswith('Private_Dirty'))

stay_small()
before = private_kib()
kept = [bytes(4000) for _ in range(5000)]
full = private_kib()
del kept
print(before, full, private_kib())
"""


def test_freed_memory_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    before, full, after = map(int, done.stdout.split())
    assert full - before > 15_000
    assert after - before < 2_000
