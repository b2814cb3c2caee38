"""`sampan X` prints what `docker X` prints, on the same engine: stdout and status byte for byte, and the
first line of stderr (docker goes on with usage texts where sampan gives the next step alone)."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator

import pytest

from support.command import DockerCLI, Result
from support.engines import Engine

pytestmark = [pytest.mark.root, pytest.mark.docker_cli]

SAMPAN = os.path.join(os.path.dirname(sys.executable), "sampan")
SHAPES = {"DOCKER_API_VERSION": "1.41"}  # what both engines know
TRIES = 3  # an age may tick between the two
Same = Callable[..., Result]

LISTS = """
ps
ps -a
ps -as
ps -aq
ps -aq --no-trunc
ps -a --no-trunc
ps -l
ps -n 1
ps -a -f name=NAME
ps -a -f label=a=b -f status=created
container ls -a
ps -a -f foo=bar
ps -a --format json -f name=NAME
ps -a --format raw -f name=NAME
ps -a --format '{{json .}}' -f name=NAME
ps -a --format 'table {{.ID}}\\t{{.Names}}\\t{{.Labels}}\\t{{.Mounts}}\\t{{.Size}}\\t{{.Label "a"}}'
ps -a --format '{{.ID}} {{.Image}} {{.Command}} {{.CreatedAt}} {{.Ports}} {{.State}} {{.Networks}} {{.LocalVolumes}}'
ps -a --format '{{.Foo}}'
ps -a --format '{{foo}}'
ps -a --format '{{.ID'
ps -aq --format '{{.Names}}'
stats --no-stream NAME
stats --no-stream --no-trunc --format json NAME
images
image ls --digests
images -a --no-trunc
images -q
images nope
images 'busy*'
images -f dangling=true
images --format json
images --format raw
images --format 'table {{.Repository}}\\t{{.Size}}'
history busybox:test
history -q busybox:test
history -H=false --no-trunc busybox:test
history --format json busybox:test
history --format '{{.ID}} {{.CreatedAt}} {{.CreatedSince}} {{.CreatedBy}} {{.Size}} {{.Comment}}' busybox:test
history --format 'table {{.ID}}\\t{{.Comment}}' busybox:test
diff NAME
container diff NAME
images -f before=nope
images -f reference=busy*
inspect NAME
inspect NAME nope busybox:test -f '{{.Id}}'
inspect -s NAME
inspect -f json NAME
inspect -f '{{json .Config}}' NAME
inspect -f '{{.Name}} {{.Config.Labels}} {{.Mounts}} {{.Config.Cmd}} {{.Created}} {{.State.Pid}}' NAME
inspect -f '{{.nope}}' NAME
inspect -f '{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}{{.Config.Labels.zz}}' NAME
inspect -f '{{range .NetworkSettings.Networks}}[{{.IPAddress}}]{{end}}' NAME
inspect --type image NAME
inspect --type foo NAME
container inspect nope
image inspect busybox:test
image inspect -f '{{.RepoTags}} {{.Size}}' busybox:test
logs nope
top NAME
system df
system df --format json
system df --format '{{.Type}}: {{.TotalCount}} {{.Active}} {{.Size}} {{.Reclaimable}}'
system df --format 'table {{.Type}}\\t{{.Size}}'
system df -v
image prune -f --filter label=nope
"""

REFUSALS = """
foo
container foo
--foo
ps x
ps --bad
ps -Z
ps -n x
ps -a=foo
ps -f foo
rm
rm nope
rm -f nope
rmi nope
rmi -f nope
history nope
history
diff nope
commit nope
commit NAME A
commit NAME a@sha256:0
commit NAME -c FOO
export nope
export -o /nodir/file NAME
rename a
update NAME
update --restart always:x NAME
update --restart :3 NAME
update -m 1m NAME
update -c 300 nope NAME
start nope
stop nope nope2
kill -s FOO NAME
kill NAME
pause NAME
unpause NAME
restart nope
wait nope
attach nope
attach NAME
exec nope x
exec NAME x
exec NAME
top nope
tag nope x
tag busybox:test A
tag busybox:test
save nope
load -i /nofile
import /nofile
events --since x
logs --since x NAME
inspect
run
run --rm=zz IMAGE
run --name a/b IMAGE
run --name NAME IMAGE
run -m 1m IMAGE
run -it IMAGE true
run -d -a stdout IMAGE
run -v /a:/b:zz IMAGE
run --cidfile /etc/passwd IMAGE
run --pull never nosuchimage
start -a NAME nope
help foo
"""

RUNS = """
run --rm --network none IMAGE sh -c 'echo out; echo err >&2; exit 7'
run --rm --network none IMAGE nosuch
run --rm --network none IMAGE /etc
run --rm --network none -w /tmp -e A=b IMAGE sh -c 'echo $A; pwd'
run --rm --network none IMAGE sh -c 'kill -9 $$'
run --rm --network none -t IMAGE echo terminal
run --rm --network none -i IMAGE cat
run --rm --network none -a stderr IMAGE sh -c 'echo out; echo err >&2'
run --rm --network none -h there IMAGE hostname
"""


def texts(block: str) -> list[str]:
    return block.strip().splitlines()


def words(line: str, name: str) -> list[str]:
    return [
        word.replace("NAME", name).replace("IMAGE", "busybox:test") for word in shlex.split(line)
    ]


@pytest.fixture
def sampan_cli(target: Engine) -> DockerCLI:
    return target.cli(SAMPAN)


@pytest.fixture
def same(newest_docker: DockerCLI, sampan_cli: DockerCLI) -> Same:
    """Run both, compare, and hand sampan's result back."""

    def compare(*arguments: str, stdin: str | None = None) -> Result:
        for _ in range(TRIES):
            expected = newest_docker(*arguments, stdin=stdin, check=False, env=SHAPES)
            result = sampan_cli(*arguments, stdin=stdin, check=False, env=SHAPES)
            if "Usage: " in expected.out:
                expected.out = re.sub(r"docker(?!\.com)", "sampan", expected.out)
            if result.out == expected.out:
                break
        assert (result.code, result.out) == (expected.code, expected.out)
        assert first_line(result.err) == first_line(expected.err).replace("docker", "sampan")
        return result

    return compare


def first_line(text: str) -> str:
    return text.split("\n")[0].replace("the sampan", "the docker")


@pytest.fixture(scope="module")
def names() -> Iterator[dict[str, str]]:
    yield {}


@pytest.fixture
def container(target: Engine, newest_docker: DockerCLI, names: dict[str, str]) -> str:
    """A created container with something in every column, one for each engine."""
    if target.socket not in names:
        name = f"beside{os.getpid()}"
        newest_docker(
            *("create", "--name", name, "-l", "a=b", "-l", "c=<&>é", "--network", "none"),
            *("-v", "/tmp:/t", "-e", "X=<&>é", "busybox:test", "sleep", "a quite long command"),
        )
        names[target.socket] = name
    return names[target.socket]


@pytest.mark.parametrize("line", texts(LISTS))
def test_shown_alike(same: Same, container: str, line: str) -> None:
    same(*words(line, container))


@pytest.mark.parametrize("line", texts(REFUSALS))
def test_refused_alike(same: Same, container: str, line: str) -> None:
    same(*words(line, container))


@pytest.mark.parametrize("line", texts(RUNS))
def test_run_alike(same: Same, line: str) -> None:
    same(*words(line, ""))


def test_every_verb_of_a_life(
    newest_docker: DockerCLI, sampan_cli: DockerCLI, unused_name: str
) -> None:
    """create, start, exec, logs, pause, kill, wait, restart, stop, rename, rm: the same, step by step."""

    def life(cli: DockerCLI, name: str) -> list[tuple[int, str, str]]:
        steps = [
            ("create", "--name", name, "--network", "none", "IMAGE", "sh", "-c", "echo up; exec sleep 1000"),
            ("start", name),
            ("start", name),
            ("exec", name, "sh", "-c", "echo in; echo bad >&2; exit 3"),
            ("exec", name, "nosuch"),
            ("exec", "-d", name, "true"),
            ("exec", "-e", "A=b", "-w", "/tmp", "-u", "1:2", name, "sh", "-c", "echo $A; pwd; id -u"),
            ("logs", name),
            ("logs", "-n", "0", name),
            ("pause", name),
            ("pause", name),
            ("exec", name, "true"),
            ("unpause", name),
            ("kill", "-s", "0", name),
            ("rm", name),
            ("kill", name),
            ("kill", name),
            ("wait", name, name),
            ("start", name),
            ("restart", "-t", "0", name),
            ("stop", "-t", "0", name),
            ("stop", name),
            ("logs", name),
            ("rename", name, name + "b"),
            ("rename", name + "b", name),
            ("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name),
            ("rm", "-f", "nope", name),
            ("rm", name),
        ]  # fmt: skip
        told = []
        for step in steps:
            done = cli(*("busybox:test" if w == "IMAGE" else w for w in step), check=False)
            error = first_line(done.err).replace("sampan", "docker").replace(name, "NAME")
            out = done.out.replace(name, "NAME")
            told.append((done.code, "ID\n" if step[0] == "create" else out, _no_id(error)))
        return told

    assert life(sampan_cli, unused_name + "s") == life(newest_docker, unused_name + "d")


def _no_id(text: str) -> str:
    digits = set("0123456789abcdef")
    return " ".join(
        "ID" if len(word.strip(".,:")) == 64 and digits.issuperset(word.strip(".,:")) else word
        for word in text.split(" ")
    )


def test_images_of_a_life(
    target: Engine,
    newest_docker: DockerCLI,
    sampan_cli: DockerCLI,
    unused_name: str,
    tmp_path: object,
) -> None:
    """import, tag, save, rmi and load, with either command line: the same words, the same images."""

    def life(cli: DockerCLI, name: str) -> list[str]:
        archive = f"{tmp_path}/{name}.tar"
        cli("tag", "busybox:test", f"{name}:v1")
        cli("tag", f"{name}:v1", f"{name}:v2")
        cli("save", "-o", archive, f"{name}:v1", f"{name}:v2")
        told = [cli("rmi", f"{name}:v1", f"{name}:v2").out]
        told.append(cli("load", "-i", archive).out)
        with open(archive, "rb") as file:
            told.append(cli("load", stdin=file.read()).out)
        told.append(cli("images", name, "--format", "{{.Repository}}:{{.Tag}}").out)
        told.append(cli("rmi", "-f", f"{name}:v1", f"{name}:v2").out)
        return [text.replace(name, "NAME") for text in told]

    assert life(sampan_cli, unused_name + "s") == life(newest_docker, unused_name + "d")


def test_imports_are_the_same_image(
    newest_docker: DockerCLI, sampan_cli: DockerCLI, unused_name: str, tmp_path: object
) -> None:
    import tarfile

    archive = f"{tmp_path}/root.tar"
    with tarfile.open(archive, "w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    told = []
    for cli, name in ((newest_docker, unused_name + "d"), (sampan_cli, unused_name + "s")):
        identifier = cli(
            "import", "-c", 'CMD ["a"]', "-c", "ENV A=b", "-m", "why", archive, f"{name}:x"
        ).line
        told.append(
            cli("inspect", "-f", "{{.Config.Cmd}} {{.Config.Env}} {{.Comment}} {{.RepoTags}} {{.RootFS.Layers}}", identifier)
            .line.replace(name, "NAME")
        )  # fmt: skip
        cli("rmi", f"{name}:x")
    assert told[0] == told[1]


def test_events_alike(newest_docker: DockerCLI, sampan_cli: DockerCLI, unused_name: str) -> None:
    import time

    since = str(time.time_ns() // 1_000_000_000)
    sampan_cli("create", "--name", unused_name, "-l", "a=b", "--network", "none", "busybox:test")
    sampan_cli("rm", unused_name)
    until = f"{time.time_ns() // 1_000_000_000 + 1}"
    common = ("events", "--since", since, "--until", until, "-f", f"container={unused_name}")
    for form in ((), ("--format", "json"), ("--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.ID}}")):  # fmt: skip
        expected = newest_docker(*common, *form)
        assert "create" in expected.out and "destroy" in expected.out
        told = re.sub(r',"Cursor":"e\d+","By":{[^}]*}', "", sampan_cli(*common, *form).out)
        assert told == expected.out


def test_prune_asks_and_tells(same: Same, sampan_cli: DockerCLI, unused_name: str) -> None:
    same("container", "prune", stdin="n\n")
    same("container", "prune", "-f", "--filter", "label=nobodyhasthis")
    same("image", "prune", "-f")
    sampan_cli(
        "create", "--name", unused_name, "-l", unused_name, "--network", "none", "busybox:test"
    )
    done = sampan_cli("container", "prune", "-f", "--filter", f"label={unused_name}")
    assert done.out.startswith("Deleted Containers:\n") and "Total reclaimed space:" in done.out


def test_help_is_dockers(same: Same) -> None:
    """For the commands whose flags are all docker's."""
    for line in ("ps", "container ls", "start", "stop", "kill", "restart", "pause", "rm", "rename", "wait", "top",
                 "logs", "attach", "inspect", "tag", "container prune", "image prune"):  # fmt: skip
        done = same(*line.split(), "--help")
        assert done.code == 0
