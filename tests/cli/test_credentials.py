"""Credentials of registries: login, logout, the configuration file, credential helpers, the header."""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.fakes import Request, Server, reply
from sampan.cli import credentials
from support.command import Result, Terminal, run

SAMPAN = os.path.join(os.path.dirname(sys.executable), "sampan")
HUB = "https://index.docker.io/v1/"
HELPER = """#!/bin/sh
# A credential helper: one entry, in files beside it.
folder=$(dirname "$0")
read -r given
echo "$1 $given" >> "$folder/calls"
case $1 in
store) echo "$given" > "$folder/kept" ;;
erase) rm -f "$folder/kept" ;;
get) cat "$folder/kept" 2>/dev/null || { echo 'credentials not found in native keychain'; exit 1; } ;;
esac
"""


class Engine:
    """An engine that logs in with the password `boat`."""

    def __init__(self, path: str) -> None:
        self.identity_token = ""
        self.server = Server(path, self._answer)

    @property
    def logins(self) -> list[Any]:
        return [item.json() for item in self.server.requests if item.path == "/auth"]

    def _answer(self, request: Request) -> bytes:
        if request.path != "/auth":
            return reply({"message": "no"}, "404 Not Found")
        given = request.json()
        if given.get("identitytoken") == "kept" or given.get("password") == "boat":
            return reply({"Status": "Login Succeeded", "IdentityToken": self.identity_token})
        return reply({"message": "unauthorized: incorrect"}, "401 Unauthorized")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(str(tmp_path / "engine.sock"))
    yield made
    made.server.close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "docker" / "config.json"


def environment(engine: Engine, config: Path) -> dict[str, str]:
    return {
        "PATH": f"{config.parent.parent}:{os.environ['PATH']}",
        "HOME": str(config.parent.parent),
        "DOCKER_CONFIG": str(config.parent),
        "DOCKER_HOST": engine.server.url,
    }


def sampan(
    engine: Engine, config: Path, *words: str, stdin: str = "", check: bool = True
) -> Result:
    return run([SAMPAN, *words], stdin=stdin, env=environment(engine, config), check=check)


def write(config: Path, content: Any) -> None:
    config.parent.mkdir(exist_ok=True)
    config.write_text(content if isinstance(content, str) else json.dumps(content))


def helper(config: Path, name: str, script: str = HELPER) -> Path:
    path = config.parent.parent / f"docker-credential-{name}"
    path.write_text(script)
    path.chmod(0o755)
    return path


def pair(user: str = "me", password: str = "boat") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


# -- login -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "key"),
    [
        ((), HUB),
        (("docker.io",), HUB),
        (("index.docker.io",), HUB),
        (("localhost:5000",), "localhost:5000"),
        (("https://quay.io/v2/",), "quay.io"),
    ],
)
def test_login(engine: Engine, config: Path, server: tuple[str, ...], key: str) -> None:
    done = sampan(engine, config, "login", "-u", "me", "--password-stdin", *server, stdin="boat\n")
    assert done.out == "Login Succeeded\n"
    assert done.err == (
        f"\nWARNING! Your credentials are stored unencrypted in '{config}'.\n"
        "Configure a credential helper to remove this warning. See\n"
        "https://docs.docker.com/go/credential-store/\n\n"
    )
    assert engine.logins == [{"username": "me", "password": "boat", "serveraddress": key}]
    assert config.read_text() == (
        '{\n\t"auths": {\n\t\t"' + key + '": {\n\t\t\t"auth": "bWU6Ym9hdA=="\n\t\t}\n\t}\n}'
    )
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
    # The second time nothing changes, and nothing is warned of.
    again = sampan(engine, config, "login", "-u", "me", "--password-stdin", *server, stdin="boat")
    assert again.err == ""


def test_login_keeps_the_rest_of_the_file(engine: Engine, config: Path) -> None:
    target = config.parent.parent / "elsewhere.json"
    write(target, {"psFormat": "x", "auths": {"a": pair("other")}, "unknown": [1]})
    target.chmod(0o640)
    config.parent.mkdir()
    config.symlink_to(target)
    sampan(engine, config, "login", "-u", "me", "--password-stdin", "b", stdin="boat")
    assert config.is_symlink()
    assert json.loads(target.read_text()) == {
        "psFormat": "x",
        "auths": {"a": pair("other"), "b": pair()},
        "unknown": [1],
    }
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(config.parent) == ["config.json"]


def test_an_identity_token_is_kept_instead_of_the_password(engine: Engine, config: Path) -> None:
    engine.identity_token = "kept"
    done = sampan(engine, config, "login", "-u", "me", "--password-stdin", "a", stdin="boat")
    assert done.err == ""
    kept = json.loads(config.read_text())["auths"]["a"]
    assert kept == {"auth": pair(password="")["auth"], "identitytoken": "kept"}
    again = sampan(engine, config, "login", "a")
    assert "Authenticating with existing credentials... [Username: me]" in again.err
    assert engine.logins[-1]["identitytoken"] == "kept"


def test_login_with_what_is_kept(engine: Engine, config: Path) -> None:
    write(config, {"auths": {"a": pair()}})
    done = sampan(engine, config, "login", "a")
    assert done.out == "Login Succeeded\n"
    assert done.err == (
        "Authenticating with existing credentials... [Username: me]\n\n"
        " Info -> To login with a different account, run 'sampan logout' followed by "
        "'sampan login'\n\n\n"
    )


def test_what_is_kept_is_not_good_any_more(engine: Engine, config: Path) -> None:
    write(config, {"auths": {"a": pair(password="old")}})
    done = sampan(engine, config, "login", "a", check=False)
    assert done.code == 1
    assert "Stored credentials invalid or expired\n" in done.err
    assert done.err.endswith("Error: Cannot perform an interactive login from a non TTY device\n")


@pytest.mark.parametrize(
    ("words", "stdin", "message"),
    [
        (("-u", "", "-p", "x"), "", "username is empty"),
        (("--password-stdin",), "x", "the --password-stdin option requires --username to be set"),
        (
            ("-u", "me", "-p", "x", "--password-stdin"),
            "x",
            "conflicting options: cannot specify both --password and --password-stdin",
        ),
        (("-u", "me"), "", "Error: Cannot perform an interactive login from a non TTY device"),
        ((), "", "Error: Cannot perform an interactive login from a non TTY device"),
        (
            ("-u", "me", "--password-stdin"),
            "",
            "Error: Cannot perform an interactive login from a non TTY device",
        ),
        (
            ("-u", "me", "-p", "wrong"),
            "",
            "Error response from daemon: unauthorized: incorrect",
        ),
    ],
)
def test_a_login_that_fails(
    engine: Engine, config: Path, words: tuple[str, ...], stdin: str, message: str
) -> None:
    done = sampan(engine, config, "login", *words, "a", stdin=stdin, check=False)
    assert done.code == 1 and done.err.splitlines()[-1] == message
    assert not config.exists()


def test_a_password_on_the_command_line_is_warned_of(engine: Engine, config: Path) -> None:
    done = sampan(engine, config, "login", "-u", "me", "-p", "boat", "a")
    assert done.err.startswith(
        "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n"
    )


def test_login_at_a_terminal(engine: Engine, config: Path) -> None:
    """The password is asked for and not shown."""
    with Terminal([SAMPAN, "login", "a"], env=environment(engine, config)) as terminal:
        terminal.expect("Username: ")
        terminal.type("me\n")
        seen = terminal.expect("Password: ")
        terminal.type("boat\n")
        seen += terminal.expect("Login Succeeded")
        assert terminal.wait() == 0
    assert "boat" not in seen
    assert engine.logins == [{"username": "me", "password": "boat", "serveraddress": "a"}]


def test_login_at_a_terminal_without_a_name(engine: Engine, config: Path) -> None:
    with Terminal([SAMPAN, "login"], env=environment(engine, config)) as terminal:
        terminal.expect("Docker Hub")
        terminal.expect("Username: ")
        terminal.type("\n")
        terminal.expect("Error: Non-null Username Required")
        assert terminal.wait() == 1


# -- logout ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "server", ["localhost:5000", "http://localhost:5000", "https://localhost:5000/v1/"]
)
def test_logout(engine: Engine, config: Path, server: str) -> None:
    auths = {"localhost:5000": pair(), "https://localhost:5000": pair(), HUB: pair()}
    write(config, {"auths": auths})
    done = sampan(engine, config, "logout", server)
    assert done.out == "Removing login credentials for localhost:5000\n"
    assert json.loads(config.read_text()) == {"auths": {HUB: pair()}}
    assert sampan(engine, config, "logout").out == f"Removing login credentials for {HUB}\n"
    assert json.loads(config.read_text()) == {"auths": {}}
    assert sampan(engine, config, "logout").code == 0
    assert not engine.server.requests


# -- helpers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", [{"credsStore": "fake"}, {"credHelpers": {"a": "fake"}}])
def test_a_helper(engine: Engine, config: Path, chosen: dict[str, Any]) -> None:
    calls = helper(config, "fake").parent / "calls"
    write(config, chosen)
    done = sampan(engine, config, "login", "-u", "me", "--password-stdin", "a", stdin="boat")
    assert done.err == ""
    assert json.loads(config.read_text()) == {**chosen, "auths": {"a": {}}}
    verb, _, given = calls.read_text().strip().partition(" ")
    assert verb == "store"
    assert json.loads(given) == {"ServerURL": "a", "Username": "me", "Secret": "boat"}
    assert "[Username: me]" in sampan(engine, config, "login", "a").err
    sampan(engine, config, "logout", "a")
    assert not (calls.parent / "kept").exists()
    assert sampan(engine, config, "login", "a", check=False).code == 1


def test_a_helper_keeps_an_identity_token(engine: Engine, config: Path) -> None:
    helper(config, "fake")
    write(config, {"credsStore": "fake"})
    engine.identity_token = "kept"
    sampan(engine, config, "login", "-u", "me", "--password-stdin", "a", stdin="boat")
    sampan(engine, config, "login", "a")
    assert engine.logins[-1] == {"identitytoken": "kept", "serveraddress": "a"}


def test_a_helper_that_is_not_there(engine: Engine, config: Path) -> None:
    write(config, {"credsStore": "nowhere"})
    done = sampan(
        engine, config, "login", "-u", "me", "--password-stdin", "a", stdin="boat", check=False
    )
    assert (done.code, done.err) == (
        1,
        (
            "Error saving credentials: error storing credentials - err: "
            'exec: "docker-credential-nowhere": executable file not found in $PATH, out: ``\n'
        ),
    )


def test_a_helper_that_fails(engine: Engine, config: Path) -> None:
    helper(config, "fake", "#!/bin/sh\necho boom\nexit 3\n")
    write(config, {"credsStore": "fake"})
    done = sampan(
        engine, config, "login", "-u", "me", "--password-stdin", "a", stdin="boat", check=False
    )
    assert done.err == (
        "Error saving credentials: error storing credentials - err: exit status 3, out: `boom`\n"
    )
    out = sampan(engine, config, "logout", "a")
    assert out.err.startswith("WARNING: could not erase credentials:\na: error erasing credentials")


# -- the header ------------------------------------------------------------------------------------


@pytest.fixture
def in_process(config: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(config.parent))
    monkeypatch.setenv("PATH", f"{config.parent.parent}:{os.environ['PATH']}")
    return config


def header(reference: str) -> Any:
    value = credentials.registry_auth_header(reference)
    return json.loads(base64.urlsafe_b64decode(value)) if value else None


@pytest.mark.parametrize(
    ("reference", "server"),
    [
        ("busybox", HUB),
        ("user/app", HUB),
        ("docker.io/library/busybox", HUB),
        ("index.docker.io/user/app", HUB),
        ("localhost/app", "localhost"),
        ("localhost:5000/app", "localhost:5000"),
        ("quay.io/a/b@sha256:" + "0" * 64, "quay.io"),
        ("Upper/app", "Upper"),
    ],
)
def test_the_header(in_process: Path, reference: str, server: str) -> None:
    assert header(reference) is None
    write(in_process, {"auths": {server: pair("me", "p:a?>~\u00e9")}})
    assert header(reference) == {
        "username": "me",
        "password": "p:a?>~\u00e9",
        "serveraddress": server,
    }
    assert not set(credentials.registry_auth_header(reference)) & set("+/\n")


def test_an_old_files_spelling(in_process: Path) -> None:
    write(in_process, {"auths": {"https://localhost:5000/v1/": pair()}})
    assert header("localhost:5000/a")["username"] == "me"
    assert header("localhost:5001/a") is None


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{bad", '{"auths":7}', '{"auths":{"a.b":7}}', '{"auths":{"a.b":{"auth":"%%%"}}}',
        '{"auths":{"a.b":{"auth":"bm9jb2xvbg=="}}}', '{"credHelpers":{"a.b":"../x/y"}}',
        '{"credsStore":"nowhere"}', '{"credsStore":7}',
    ],
)  # fmt: skip
def test_a_file_that_says_nothing(
    in_process: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(in_process, content)
    assert header("a.b/c") is None
    broken = content in ("[]", "{bad")
    assert (
        f"WARNING: Error parsing config file ({in_process}): " in capsys.readouterr().err
    ) is broken


def test_a_helper_for_the_header(in_process: Path) -> None:
    helper(in_process, "fake", '#!/bin/sh\necho \'{"Username":"<token>","Secret":"s"}\'\n')
    write(in_process, {"credHelpers": {"a.b": "fake"}, "auths": {"c.d": pair()}})
    assert header("a.b/c") == {"identitytoken": "s", "serveraddress": "a.b"}
    assert header("c.d/e")["password"] == "boat"
    helper(in_process, "fake", "#!/bin/sh\necho no JSON\n")
    assert header("a.b/c") is None


def test_the_flag_config(engine: Engine, tmp_path: Path) -> None:
    config = tmp_path / "other" / "config.json"
    words = ["--config", str(config.parent), "login", "-u", "me", "--password-stdin", "a"]
    run([SAMPAN, *words], stdin="boat", env={"DOCKER_HOST": engine.server.url, "HOME": "/nowhere"})
    assert json.loads(config.read_text())["auths"] == {"a": pair()}
