"""Bodies into values: what Go's decoder takes is taken, what it refuses is refused in its words."""

from __future__ import annotations

import msgspec
import pytest

from sampan.api.codec import decode, parse
from sampan.engine.model import CreateRequest, ExecConfig
from sampan.errors import InvalidArgument


def test_a_request_of_docker_py() -> None:
    """It sends null for everything that is not given."""
    request = decode(
        b'{"Image": "busybox", "Env": null, "Cmd": ["a"], "Labels": null, "Tty": false,'
        b' "HostConfig": {"Memory": 5, "Binds": null, "NetworkMode": "none"},'
        b' "NetworkingConfig": null, "StopTimeout": null}',
        CreateRequest,
    )
    assert (request.image, request.cmd, request.env, request.labels) == ("busybox", ["a"], [], {})
    assert request.host_config.memory == 5
    assert request.host_config.network_mode == "none"


@pytest.mark.parametrize("name", ["Image", "image", "IMAGE", "iMaGe"])
def test_names_in_any_case(name: str) -> None:
    assert decode(msgspec.json.encode({name: "x"}), CreateRequest).image == "x"


def test_nested_names_in_any_case_and_nulls() -> None:
    request = decode(
        b'{"hostconfig": {"portbindings": {"80/tcp": [{"hostport": "8080", "HostIp": null}]},'
        b' "RestartPolicy": null, "ulimits": [{"name": "nofile", "SOFT": 1}]}}',
        CreateRequest,
    )
    bindings = request.host_config.port_bindings
    assert bindings is not None
    assert bindings["80/tcp"][0].host_port == "8080"  # type: ignore[index]
    assert request.host_config.ulimits[0].soft == 1  # type: ignore[index]


def test_a_command_as_one_text() -> None:
    assert decode(b'{"Cmd": "a b"}', CreateRequest).cmd == "a b"
    assert decode(b'{"Cmd": "a b"}', ExecConfig).cmd == "a b"


def test_unknown_fields_that_ask_for_nothing_are_left_out() -> None:
    decode(b'{"Old": null, "Older": "", "Oldest": 0, "X": false, "Y": [], "Z": {}}', CreateRequest)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "invalid JSON: got EOF while reading request body"),
        ("  \n", "invalid JSON: got EOF while reading request body"),
        ('{"Image":"bb"', "invalid JSON: unexpected EOF"),
        ("{foo", "invalid JSON: "),
        ('{"Image":"bb"}x', "invalid JSON: "),
        ("[" * 100_000, "invalid JSON: "),
        ("[" * 100_000 + "]" * 100_000, "invalid JSON: exceeded max depth"),
        (
            "[1]",
            "json: cannot unmarshal array into Go value of type ContainerConfigWrapper",
        ),
        (
            "null",
            "json: cannot unmarshal null into Go value of type ContainerConfigWrapper",
        ),
        (
            '{"Image":5}',
            (
                "json: cannot unmarshal number into Go struct field ContainerConfigWrapper.Image of "
                "type string"
            ),
        ),
        (
            '{"HostConfig":{"Memory":"x"}}',
            (
                "json: cannot unmarshal string into Go struct field HostConfig.HostConfig.Memory of "
                "type int64"
            ),
        ),
        (
            '{"HostConfig":{"Memory":99999999999999999999}}',
            (
                "json: cannot unmarshal number 99999999999999999999 into Go struct field "
                "HostConfig.HostConfig.Memory of type int64"
            ),
        ),
        (
            '{"HostConfig":{"Memory":-9223372036854775809}}',
            (
                "json: cannot unmarshal number -9223372036854775809 into Go struct field "
                "HostConfig.HostConfig.Memory of type int64"
            ),
        ),
        (
            '{"HostConfig":{"Memory":1.5}}',
            (
                "json: cannot unmarshal number 1.5 into Go struct field HostConfig.HostConfig.Memory "
                "of type int64"
            ),
        ),
        (
            '{"HostConfig":{"Memory":true}}',
            (
                "json: cannot unmarshal bool into Go struct field HostConfig.HostConfig.Memory of "
                "type int64"
            ),
        ),
        (
            '{"Env":"x"}',
            (
                "json: cannot unmarshal string into Go struct field ContainerConfigWrapper.Env of "
                "type []string"
            ),
        ),
        (
            '{"Env":[5]}',
            (
                "json: cannot unmarshal number into Go struct field ContainerConfigWrapper.Env of "
                "type string"
            ),
        ),
        (
            '{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":80}]}}}',
            (
                "json: cannot unmarshal number into Go struct field "
                "PortBinding.HostConfig.PortBindings.HostPort of type string"
            ),
        ),
        (
            '{"Tty":"x"}',
            (
                "json: cannot unmarshal string into Go struct field ContainerConfigWrapper.Tty of "
                "type bool"
            ),
        ),
        (
            '{"Labels":[1]}',
            (
                "json: cannot unmarshal array into Go struct field ContainerConfigWrapper.Labels of "
                "type map[string]string"
            ),
        ),
        (
            '{"HostConfig":5}',
            (
                "json: cannot unmarshal number into Go struct field ContainerConfigWrapper.HostConfig "
                "of type container.HostConfig"
            ),
        ),
        (
            '{"HostConfig":{"RestartPolicy":{"Name":1}}}',
            (
                "json: cannot unmarshal number into Go struct field "
                "RestartPolicy.HostConfig.RestartPolicy.Name of type string"
            ),
        ),
        ('{"Foo":1}', 'json: unknown field "Foo"'),
        ('{"HostConfig":{"Foo":{"a":1}}}', 'json: unknown field "HostConfig.Foo"'),
        ('{"Cmd":["a\\u0000b"]}', "invalid JSON: Cmd holds a NUL byte"),
        ('{"HostConfig":{"ConsoleSize":[1,2,3]}}', "HostConfig.ConsoleSize takes 2 values, not 3"),
    ],
)
def test_refusals_name_the_field(body: str, message: str) -> None:
    """Texts of dockerd 20.10, where it refuses."""
    with pytest.raises(InvalidArgument) as caught:
        decode(body.encode(), CreateRequest)
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("body", [b'"\xff"', b'{"a": "\\ud800"}'])
def test_texts_that_are_no_unicode(body: bytes) -> None:
    with pytest.raises(InvalidArgument):
        parse(body)
