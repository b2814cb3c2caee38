"""The command table is whole: every command has a module, help, documentation and completion; and the
command line stays light."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

import sampan.cli
from cli.fakes import Request, Server, reply
from sampan.cli import completion, helptext, table

SAMPAN = os.path.join(os.path.dirname(sys.executable), "sampan")
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(sampan.cli.__file__)))
DOCUMENT = os.path.join(os.path.dirname(SOURCE), "docs", "cli.md")

# Loaded by a bare interpreter, by the C modules that the command line uses, and by itself: a new name
# here costs every `sampan ps`.
LIGHT = {
    "__future__", "__main__", "_abc", "_codecs", "_collections_abc", "_frozen_importlib",
    "_frozen_importlib_external", "_imp", "_io", "_json", "_signal", "_socket", "_stat", "_thread",
    "_warnings", "_weakref", "abc", "builtins", "codecs", "encodings", "encodings.aliases",
    "encodings.utf_8", "errno", "genericpath", "io", "marshal", "os", "os.path", "posix", "posixpath",
    "select", "stat", "sys", "time", "winreg", "zipimport",
}  # fmt: skip
PS = {"address", "call", "client", "commands", "commands.ps", "failures", "flags", "jsontext", "listing", "main", "roots",
      "table", "tabular", "units"}  # fmt: skip
RUN = {"address", "call", "client", "commands", "commands.run", "create_container", "create_flags", "create_request",
       "failures", "flags", "jsontext", "main", "process", "roots", "signals", "streams", "table", "terminal"}  # fmt: skip


@pytest.mark.parametrize("name", sorted(table.COMMANDS))
def test_a_command_is_whole(name: str) -> None:
    row = table.COMMANDS[name]
    module = table.load(row)
    assert callable(module.run) and module.__doc__
    text = helptext.for_words("sampan", name.split())
    assert text.startswith("Usage:  sampan ") and row[1] in text
    letters = [flag[1] for flag in module.FLAGS if flag[1]]
    flag_names = [flag[0] for flag in module.FLAGS]
    assert len(set(letters)) == len(letters) and len(set(flag_names)) == len(flag_names)


def test_every_command_and_flag_is_documented() -> None:
    with open(DOCUMENT, encoding="utf-8") as file:
        document = file.read()
    for name, row in table.COMMANDS.items():
        assert f"`{name}`" in document, name
        if name in ("daemon", "enter", "completion"):
            continue
        for flag in table.load(row).FLAGS:
            assert not flag[4] or flag[0]
    for variable in ("SAMPAN_HOST", "DOCKER_HOST", "SAMPAN_EXEC_ROOT", "SAMPAN_DATA_ROOT",
                     "SAMPAN_DAEMON_OPTIONS", "SAMPAN_AUTOSTART", "DOCKER_API_VERSION"):  # fmt: skip
        assert variable in document, variable


def loaded(server: Server, *arguments: str) -> set[str]:
    """The modules that a command had loaded when it was done."""
    script = (
        "import sys; sys.path.insert(0, sys.argv.pop(1));"
        "from sampan.cli.main import execute;"
        "execute(sys.argv[1:], {'DOCKER_HOST': URL});"
        "print('modules', *sys.modules)"
    ).replace("URL", repr(server.url))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, SOURCE, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("modules"))
    return set(line.split()[1:])


def engine(request: Request) -> bytes:
    """Just enough of one for `ps` and a detached `run`."""
    if "/json" in request.path:
        return reply([{"Id": "a" * 64, "Names": ["/web"], "Image": "img", "ImageID": "sha256:" + "b" * 64,
                       "Command": "sh", "Created": 1, "Ports": [], "State": "running", "Status": "Up"}])  # fmt: skip
    if "/start" in request.path:
        return b"HTTP/1.1 204 No Content\r\n\r\n"
    return reply({"Id": "a" * 64, "Warnings": []}, "201 Created")


@pytest.mark.parametrize(
    ("arguments", "own"),
    [(["ps"], PS), (["run", "-d", "img", "true"], RUN)],
    ids=["ps", "run"],
)
def test_what_a_command_loads(tmp_path: object, arguments: list[str], own: set[str]) -> None:
    server = Server(f"{tmp_path}/s.sock", engine)
    names = loaded(server, *arguments)
    server.close()
    assert names - LIGHT - {"sampan", "sampan.cli", "sampan.jsontext"} == {
        f"sampan.cli.{name}" for name in own
    }


def test_errors_are_told_by_main_alone() -> None:
    """Commands raise; nothing but `main` and the streams writes to standard error."""
    folder = os.path.dirname(sampan.cli.__file__)
    for directory, _, files in os.walk(folder):
        for name in files:
            if name.endswith(".py") and name not in ("main.py", "call.py"):
                with open(f"{directory}/{name}", encoding="utf-8") as file:
                    assert "sys.stderr" not in file.read(), name


@pytest.mark.parametrize(
    ("words", "found", "directive"),
    [
        (["st"], {"start", "stats", "stop"}, 4),
        (["container", "p"], {"pause", "port", "prune", "ps"}, 4),
        (["ps", "--no"], {"--no-trunc"}, 4),
        (["run", "--netw"], {"--network", "--network-alias", "--network-policy"}, 4),
        (["run", "--network", "h"], {"host"}, 4),
        (["run", "-it", "--pull", ""], {"always", "missing", "never"}, 4),
        (["load", "-i", ""], set(), 0),
        (["run", "img", ""], set(), 0),
        (["completion", ""], {"bash", "fish", "zsh"}, 4),
        (["nosuch", ""], set(), 4),
        (["--ho"], {"--host"}, 4),
    ],
)
def test_completion(
    words: list[str], found: set[str], directive: int, capsys: pytest.CaptureFixture[str]
) -> None:
    completion.complete(words, {"DOCKER_HOST": "unix:///nonexistent"})
    *lines, last = capsys.readouterr().out.splitlines()
    assert {line.partition("\t")[0] for line in lines} == found
    assert last == f":{directive}"


def test_completion_of_names(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(f"{tmp_path}/s.sock", engine)
    completion.complete(["stop", "w"], {"DOCKER_HOST": server.url})
    server.close()
    assert capsys.readouterr().out == "web\timg\n:4\n"


def test_completion_in_bash(tmp_path: object) -> None:
    """The script completes a command, a name behind a flag, and the part of a word behind a colon."""
    script = subprocess.run([SAMPAN, "completion", "bash"], capture_output=True, text=True, check=True)  # fmt: skip
    with open(f"{tmp_path}/complete", "w") as file:
        file.write(script.stdout)
    ask = (
        f"PATH={os.path.dirname(SAMPAN)}:$PATH; . {tmp_path}/complete;"
        "COMP_LINE='sampan unp'; COMP_POINT=${#COMP_LINE}; COMP_WORDS=(sampan unp); COMP_CWORD=1;"
        '_sampan; echo "${COMPREPLY[@]}";'
        "COMP_LINE='sampan run --pull '; COMP_POINT=${#COMP_LINE}; COMP_WORDS=(sampan run --pull '');"
        'COMP_CWORD=3; _sampan; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["unpause", "always missing never"]


def test_scripts_name_the_program() -> None:
    from sampan.cli.commands.completion import SCRIPTS

    for script in SCRIPTS.values():
        assert re.search(r"\bsampan\b", script) and "__complete" in script
