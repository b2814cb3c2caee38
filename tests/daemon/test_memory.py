"""The daemon's allocator gives back what it does not need."""

from __future__ import annotations

import subprocess
import sys

# Threads that are alive at once get an arena each, and what one keeps in it pins the rest.
CODE = """
import sys, threading
from sampan.daemon.memory import share_one_arena

def arenas():
    with open('/proc/self/maps') as file:
        spans = [line.split()[0].split('-') for line in file]
    return sum(1 for start, _ in spans if int(start, 16) % (64 << 20) == 0)

def work():
    kept.append([bytes(4000) for _ in range(100)])
    barrier.wait()

if sys.argv[1] == 'small':
    share_one_arena()
before, kept, barrier = arenas(), [], threading.Barrier(5)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
barrier.wait()
print(arenas() - before)
"""


def arenas_of_threads(how: str) -> int:
    command = [sys.executable, "-c", CODE, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_threads_share_one_arena() -> None:
    assert arenas_of_threads("as it comes") > 0
    assert arenas_of_threads("small") == 0
