"""Fixtures of the whole suite: engines to test, clients, and the search for what a session leaves behind.

Options:
    --oracle           run the conformance cases on dockerd too, which has to pass them first
    --engine NAME      run them on this engine only (sampan or dockerd)
    --newest-docker    drive them by the newest docker command only, not by each that there is
    --kills N          how often tests/faults/test_*kills*.py kill the daemon; --seed N repeats a run
    --model-steps N    random steps of tests/faults/test_model.py, beside its own few
    --leaks WHICH      what counts as left behind: all (everything new on the machine), own (what bears
                       this session's name; for a machine where others work), off. Default: all in
                       continuous integration (CI=true), else own.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.certificates import Certificates
from support.command import DockerCLI, docker_clis
from support.engines import DockerEngine, Engine, SampanEngine, running
from support.leaks import MARK, Picture, differences
from support.registries import Registry, TokenServer

TOKEN_LENGTH = 8
KILLS = 6


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sampan")
    group.addoption("--oracle", action="store_true", help="run conformance cases on dockerd too")
    group.addoption(
        "--engine", choices=("sampan", "dockerd"), help="run conformance cases on this engine only"
    )
    group.addoption("--newest-docker", action="store_true", help="one docker command, not each")
    group.addoption(
        "--leaks", choices=("all", "own", "off"), default=None, help="what counts as left behind"
    )
    group.addoption("--kills", type=int, default=KILLS, help="random kills of the daemon")
    group.addoption("--model-steps", type=int, default=0, help="random steps of the model's test")
    group.addoption("--seed", type=int, default=None, help="of the random moments and choices")


# -- the session and what it leaves ----------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Before pytest's own: it would keep the last sessions' files, and tidy older ones by a walk that
    the deep trees of hostile layers are too much for."""
    # A shell ignores SIGINT for its background jobs, nohup SIGHUP, and children inherit that; a program keeps it.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
    if hasattr(config, "workerinput"):
        config.stash[_TOKEN] = str(config.workerinput["token"])
        return
    token = secrets.token_hex(TOKEN_LENGTH // 2)
    config.stash[_TOKEN] = token
    if config.option.basetemp is None:
        config.option.basetemp = config.stash[_FILES] = f"/tmp/pytest-{token}"
    os.environ[MARK] = token
    if _leaks(config) != "off":
        config.stash[_BEFORE] = Picture(token)


def pytest_configure_node(node: object) -> None:
    """xdist: workers belong to the same session."""
    node.workerinput["token"] = node.config.stash[_TOKEN]  # type: ignore[attr-defined]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    config = session.config
    if files := config.stash.get(_FILES, None):
        if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            _remove(files)
        elif os.path.exists(files):
            config.stash[_KEPT] = files
    before = config.stash.get(_BEFORE, None)
    if before is None:
        return
    token = config.stash[_TOKEN]
    only = token if _leaks(config) == "own" else None
    left = differences(before, Picture(token), only=only)
    left = [line for line in left if not line.startswith("files: /tmp/pytest-")]
    config.stash[_LEFT] = left
    if left and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if kept := config.stash.get(_KEPT, None):
        terminalreporter.line(f"files of this session, to look at and remove: {kept}")
    left = config.stash.get(_LEFT, [])
    if left:
        terminalreporter.section("left behind on the machine", red=True)
        for line in left:
            terminalreporter.line(line)


def _remove(path: str) -> None:
    """All of a tree, however deep, and nothing that is mounted in it."""
    subprocess.run(["rm", "-rf", "--one-file-system", "--", path], check=True)


def _leaks(config: pytest.Config) -> str:
    chosen: str | None = config.getoption("--leaks")
    return chosen or os.environ.get("SAMPAN_LEAKS") or ("all" if os.environ.get("CI") else "own")


_TOKEN = pytest.StashKey[str]()
_BEFORE = pytest.StashKey[Picture]()
_LEFT = pytest.StashKey[list[str]]()
_FILES = pytest.StashKey[str]()
_KEPT = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def session_token(request: pytest.FixtureRequest) -> str:
    """A short name of this session (and xdist worker), for whatever is visible on the machine."""
    worker: str = getattr(request.config, "workerinput", {}).get("workerid", "")
    return request.config.stash[_TOKEN] + worker.removeprefix("gw")


@pytest.fixture(scope="session")
def session_directory(session_token: str) -> Iterator[str]:
    """A short path (sockets go below it) on the disk, gone after the session."""
    path = f"/tmp/sampan-{session_token}"
    os.mkdir(path, 0o711)
    yield path
    _remove(path)


# -- what a test needs -----------------------------------------------------------------------------

_NEEDS_COMMAND = {"docker_cli": "docker", "podman": "podman"}


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")
    for marker, command in _NEEDS_COMMAND.items():
        if item.get_closest_marker(marker) and shutil.which(command) is None:
            pytest.skip(f"needs the command {command}")
    unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    if item.get_closest_marker("cgroup2") and not unified:
        pytest.skip("needs the unified cgroup hierarchy (make test-vm has it)")
    if item.get_closest_marker("cgroup1") and unified:
        pytest.skip("needs cgroup v1 controllers")
    if item.get_closest_marker("apparmor") and not os.path.exists("/sys/kernel/security/apparmor"):
        pytest.skip("needs a kernel with AppArmor (make test-vm has it)")


# -- engines ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def sampan(session_directory: str, session_token: str) -> Iterator[SampanEngine]:
    """The engine that tests share: started once, with `busybox:test`."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    engine = SampanEngine(f"{session_directory}/sampan", session_token)
    yield from running(engine)


@pytest.fixture(scope="session")
def dockerd(session_directory: str, session_token: str) -> Iterator[DockerEngine]:
    """The oracle: dockerd, started once, with the same image."""
    for command in ("dockerd", "containerd", "unshare"):
        if shutil.which(command) is None:
            pytest.skip(f"needs the command {command}")
    engine = DockerEngine(f"{session_directory}/dockerd", session_token)
    yield from running(engine)


@pytest.fixture
def own_sampan(session_directory: str, session_token: str) -> Iterator[SampanEngine]:
    """An engine of the test's own, running with `busybox:test`, to be killed and started again."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    token = session_token + secrets.token_hex(1)
    engine = SampanEngine(f"{session_directory}/{token}", token)
    yield from running(engine)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--engine")
        engines = [chosen] if chosen else ["sampan"]
        if metafunc.config.getoption("--oracle") and "dockerd" not in engines:
            engines.append("dockerd")
        metafunc.parametrize("target", engines, indirect=True, scope="session")
    if "docker" in metafunc.fixturenames:
        versions = docker_clis() or {"none": ""}
        if metafunc.config.getoption("--newest-docker"):
            versions = dict(list(versions.items())[:1])
        metafunc.parametrize("docker", list(versions.values()), ids=list(versions), indirect=True)


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Engine:
    """The engine that a conformance case runs on."""
    engine: Engine = request.getfixturevalue(request.param)
    return engine


@pytest.fixture
def docker(request: pytest.FixtureRequest, target: Engine) -> DockerCLI:
    """Each docker command line of this machine, on the target."""
    if not request.param:
        pytest.skip("needs the command docker")
    return target.cli(request.param)


@pytest.fixture
def newest_docker(target: Engine) -> DockerCLI:
    """The newest docker command line of this machine, on the target."""
    paths = list(docker_clis().values())
    if not paths:
        pytest.skip("needs the command docker")
    return target.cli(paths[0])


@pytest.fixture
def unused_name() -> str:
    """A container name that no other test uses."""
    return "t" + secrets.token_hex(5)


# -- registries ------------------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """An empty docker-registry of the test's own: plain HTTP, no password."""
    with Registry(str(tmp_path / "registry")) as running:
        yield running


@pytest.fixture(scope="session")
def certificates(session_directory: str) -> Certificates:
    """A CA that no engine knows, and what it signed; made once."""
    return Certificates(f"{session_directory}/certificates")


@pytest.fixture
def tls_registry(tmp_path: Path, certificates: Certificates) -> Iterator[Registry]:
    """The same over TLS, its certificate signed by the CA of `certificates`."""
    with Registry(str(tmp_path / "tls-registry"), certificates=certificates) as running:
        yield running


@pytest.fixture
def password_registry(tmp_path: Path) -> Iterator[Registry]:
    """The same with basic authentication: `registries.USER` and `registries.PASSWORD`."""
    with Registry(str(tmp_path / "password-registry"), password=True) as running:
        yield running


@pytest.fixture
def token_registry(tmp_path: Path, certificates: Certificates) -> Iterator[Registry]:
    """The same with a token server (`token_registry.tokens`), as Docker Hub and Quay have one."""
    tokens = TokenServer(certificates)
    with Registry(str(tmp_path / "token-registry"), tokens=tokens) as running:
        yield running


@pytest.fixture(autouse=True, scope="session")
def _docker_environment() -> Iterator[None]:
    """Tests say which engine they mean; the caller's settings do not count."""
    saved = {
        name: os.environ.pop(name, None)
        for name in ("DOCKER_HOST", "SAMPAN_HOST", "DOCKER_CONTEXT")
    }
    yield
    for name, value in saved.items():
        if value is not None:
            os.environ[name] = value
