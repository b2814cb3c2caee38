"""The documentation names what there is: commands, options, make targets, pages."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{name}" for name in sorted(os.listdir(os.path.join(ROOT, "docs"))) if name.endswith(".md"))]  # fmt: skip


def read(page: str) -> str:
    with open(os.path.join(ROOT, page)) as file:
        return file.read()


def command(name: str) -> str:
    return os.path.join(os.path.dirname(sys.executable), name)


def make_targets() -> set[str]:
    """What `make` can be told to make."""
    found = re.findall(r"^([a-z][a-z-]*):", read("Makefile"), flags=re.MULTILINE)
    return set(found)


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    named = set(re.findall(r"(?:^ {4}|`)make ([a-z][a-z-]*)", read(page), flags=re.MULTILINE))
    assert named <= make_targets()


def test_first_screen_of_the_readme() -> None:
    """The two commands that do everything are on it."""
    screen = "\n".join(read("README.md").splitlines()[:40])
    assert "make demo" in screen
    assert "make test" in screen


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    directory = os.path.dirname(os.path.join(ROOT, page))
    text = re.sub(r"```.*?```", "", read(page), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert os.path.exists(os.path.join(directory, target)), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page: str) -> None:
    """Paths of this repository in backquotes."""
    for path in re.findall(r"`((?:src|tests|docs|benchmarks|scripts)/[\w./-]+)`", read(page)):
        assert os.path.exists(os.path.join(ROOT, path.rstrip("/"))), f"{page}: {path}"


def sampan_commands() -> list[str]:
    """The words that `sampan --help` lists."""
    done = subprocess.run([command("sampan"), "--help"], capture_output=True, text=True, check=True)
    return re.findall(r"^  ([a-z]+) {2,}[A-Z]", done.stdout, flags=re.MULTILINE)


def test_every_command_is_documented() -> None:
    listed = sampan_commands()
    assert len(listed) > 25
    text = read("docs/cli.md")
    missing = [word for word in listed if not re.search(rf"`[^`]*\b{word}\b[^`]*`", text)]
    assert not missing


@pytest.mark.parametrize("word", ["run", "ps", "exec", "logs", "images", "daemon", "enter"])
def test_every_command_has_help(word: str) -> None:
    done = subprocess.run(
        [command("sampan"), word, "--help"], capture_output=True, text=True, check=True
    )
    assert "sampand" in done.stdout if word == "daemon" else f"sampan {word}" in done.stdout


def test_commands_in_the_readme_exist() -> None:
    listed = set(sampan_commands())
    for word in re.findall(
        r"^ {4}(?:sudo )?sampan ([a-z]+)", read("README.md"), flags=re.MULTILINE
    ):
        assert word in listed


def test_every_option_of_the_daemon_is_documented() -> None:
    done = subprocess.run(
        [command("sampand"), "--help"], capture_output=True, text=True, check=True
    )
    options = set(re.findall(r"(--[a-z][a-z-]+)", done.stdout)) - {"--help"}
    text = read("docs/daemon.md")
    assert options - set(re.findall(r"`(--[a-z][a-z-]+)", text)) == set()
