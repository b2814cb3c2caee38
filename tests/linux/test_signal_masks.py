"""Which signals the first process of a PID namespace never hears."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sampan.linux.signal_masks import is_lost_on
from support.engines import children

pytestmark = pytest.mark.root

SET = {
    "nothing": "pass",
    "a handler": "signal.signal(signal.SIGTERM, lambda *_: None)",
    "ignored": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])",
}


@contextmanager
def first_process(prepare: str) -> Iterator[int]:
    """PID 1 of a namespace, when it has done this."""
    script = f"import signal, sys; {prepare}; print('ready', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-I", "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        (pid,) = children(process.pid)
        yield pid
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("state", SET)
def test_first_process(state: str) -> None:
    with first_process(SET[state]) as pid:
        assert is_lost_on(pid, signal.SIGTERM) == (state == "nothing")
        assert is_lost_on(pid, signal.SIGUSR2)
        assert not is_lost_on(pid, signal.SIGKILL)
        assert not is_lost_on(pid, signal.SIGSTOP)


def test_others() -> None:
    """The kernel ends a process that is not the first one of its namespace; none is none."""
    assert not is_lost_on(os.getpid(), signal.SIGUSR2)
    process = subprocess.Popen(["true"])
    process.wait()
    assert not is_lost_on(process.pid, signal.SIGTERM)
