"""Import closures that are small on purpose: what starts often, or is forked often, loads little.

Each is pinned by a fresh interpreter, without site: a module that is not on its list fails here. Before
adding one, measure what it costs (docs/architecture.md says what a start may cost).
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SOURCE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "src")

# Built into the interpreter or the price of `import os`.
PLAIN = "__future__ _collections_abc _stat genericpath os os.path posixpath stat"
# Behind the accelerators that these names stand for, or loaded by modules that are listed.
FOLLOWERS = (
    "_collections _ctypes _functools _json _operator _random _socket _sre _struct _weakrefset"
)

_STANDARD = """
array binascii collections copyreg ctypes enum errno fcntl functools itertools json keyword math operator re reprlib
resource select signal socket struct termios types
"""

# module → (packages of sampan, top-level modules of the standard library)
CLOSURES = {
    "sampan.shim.zygote": ("errors jsontext linux logs runtime shim", f"{_STANDARD} gc selectors"),
    "sampan.runtime.command": ("runtime", ""),
    "sampan.runtime.dispatch": ("errors jsontext linux runtime", f"{_STANDARD} time"),
    "sampan.network.names.server": (
        "errors jsontext linux network",
        f"{_STANDARD} gc time",
    ),
    "sampan.cli.main": ("cli errors jsontext", ""),
}


def loaded_by(module: str) -> set[str]:
    """The modules that importing it loads, beyond a bare interpreter's."""
    code = (
        "import sys; bare = set(sys.modules); sys.path.insert(0, sys.argv[1]); "
        f"import {module}; print('\\n'.join(set(sys.modules) - bare))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, SOURCE], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("module", CLOSURES)
def test_closure(module: str) -> None:
    packages, standard = CLOSURES[module]
    loaded = loaded_by(module)
    own = {name.split(".")[1] for name in loaded if name.startswith("sampan.")}
    assert own <= set(packages.split()), "a package that does not belong here is imported"
    foreign = {name.split(".")[0] for name in loaded if name.split(".")[0] != "sampan"}
    allowed = {name for text in (PLAIN, FOLLOWERS, standard) for name in text.split()}
    assert foreign <= allowed, f"not on the list: {sorted(foreign - allowed)}"


@pytest.mark.parametrize("module", CLOSURES)
def test_nothing_heavy(module: str) -> None:
    heavy = "asyncio inspect dataclasses typing pathlib subprocess logging tempfile threading argparse aiohttp msgspec"
    assert not {name.split(".")[0] for name in loaded_by(module)} & set(heavy.split())


def test_every_module_can_be_imported_first() -> None:
    """No module needs another to have been imported before it."""
    names = []
    for directory, _, files in os.walk(os.path.join(SOURCE, "sampan")):
        package = os.path.relpath(directory, SOURCE).replace(os.sep, ".")
        names += [
            f"{package}.{file[:-3]}"
            for file in files
            if file.endswith(".py") and file != "__main__.py"
        ]
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    for loaded in [m for m in sys.modules if m.startswith('sampan')]: del sys.modules[loaded]\n"
        "    try: importlib.import_module(name.removesuffix('.__init__'))\n"
        "    except Exception as error: print(name, repr(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *sorted(names)], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
