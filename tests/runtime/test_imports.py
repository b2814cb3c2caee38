"""What the command and the zygote load, pinned: a module costs time and a page costs more."""

from __future__ import annotations

import subprocess
import sys

import sampan

_HEAVY = (
    "asyncio",
    "collections",
    "contextlib",
    "dataclasses",
    "enum",
    "inspect",
    "json",
    "logging",
    "pathlib",
    "re",
    "signal",
    "socket",
    "subprocess",
    "tempfile",
    "typing",
)


def test_a_start_loads_nothing_heavy() -> None:
    source = sampan.__path__[0].rpartition("/")[0]
    script = (
        f"import sys; sys.path.append({source!r});"
        "import sampan.runtime.launch, sampan.runtime.process, sampan.runtime.verbs_start,"
        " sampan.runtime.dispatch, sampan.runtime.command; print(' '.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint(_HEAVY), loaded & set(_HEAVY)
    ours = {name for name in loaded if name.startswith("sampan.")}
    assert not any(name.startswith(("sampan.engine", "sampan.shim", "sampan.api")) for name in ours)
