"""The command `sampan-oci`: an OCI runtime with runc's command line.

    sampan-oci [global options] VERB [options] ARGUMENTS

Podman, containerd and dockerd start it in runc's place. Verbs that enter a container run from a
read-only mount of the interpreter (`linux.selfexec`): before anything else is imported, this program
is executed anew through it, without `site`, which makes the second start shorter than the first.
"""

from __future__ import annotations

import os
import sys

_ENTERING = frozenset(("create", "run", "exec"))
_MARK = "_SAMPAN_OCI_READONLY"
_VALUED = frozenset(("--log", "--log-format", "--root", "--criu", "--rootless"))


def main() -> None:
    """The entry point; ends the process with the exit code."""
    words = sys.argv[1:]
    if _MARK not in os.environ:
        if _verb(words) in _ENTERING:
            _execute_readonly(words)
    else:
        del os.environ[_MARK]
    from sampan.runtime import dispatch

    code = dispatch.run(words)
    sys.stdout.flush()
    os._exit(code)  # nothing is left to tear down, and tearing an interpreter down takes time


def _verb(words: list[str]) -> str:
    """The first word that is neither an option nor the value of one."""
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word.startswith("-"):
            skip = f"--{word.lstrip('-')}" in _VALUED
        else:
            return word
    return ""


def _execute_readonly(words: list[str]) -> None:
    """Start this program again through a read-only mount of the interpreter.

    Where the machine does not allow that (no CAP_SYS_ADMIN), the program goes on as it is: what
    needs protecting from a container needs the same capability.
    """
    from sampan.linux import selfexec

    try:
        fd = selfexec.readonly_interpreter()
    except OSError:
        return
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    start = (
        f"import sys; sys.path.append({source!r}); from sampan.runtime.command import main; main()"
    )
    argv = [sys.executable, "-I", "-S", "-c", start, *words]
    os.execve(f"/proc/self/fd/{fd}", argv, {**os.environ, _MARK: "1"})


if __name__ == "__main__":
    main()
