"""hosts, hostname and resolv.conf, letter for letter as dockerd 20.10 writes them."""

from __future__ import annotations

import os
import pathlib

import pytest

from sampan.errors import InvalidArgument
from sampan.network import files

HEAD = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::0\tip6-localnet\n"
    "ff00::0\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)


@pytest.mark.parametrize(
    ("hostname", "domainname", "names"),
    [
        ("bbbb2d2b2c99", "", "bbbb2d2b2c99"),
        ("web", "foo.org", "web.foo.org web"),
        ("web.example.org", "", "web.example.org web"),
        ("web.example.org", "foo", "web.example.org.foo web"),
    ],
)
def test_the_container_finds_itself(hostname: str, domainname: str, names: str) -> None:
    text = files.hosts_text(
        hostname=hostname, domainname=domainname, addresses=["172.17.0.2/16", "fd00::2"]
    )
    assert text == f"{HEAD}172.17.0.2\t{names}\nfd00::2\t{names}\n"


def test_extra_hosts_come_before() -> None:
    text = files.hosts_text(
        hostname="web",
        addresses=["172.17.0.2"],
        extra_hosts=["a:1.2.3.4", "gw:host-gateway", "six:[fd00::9]", "bare:fd00::8"],
        host_gateway="172.17.0.1",
    )
    assert text == (
        f"{HEAD}1.2.3.4\ta\n172.17.0.1\tgw\nfd00::9\tsix\nfd00::8\tbare\n172.17.0.2\tweb\n"
    )


def test_without_a_network_nobody_else_is_known() -> None:
    assert files.hosts_text(hostname="web") == HEAD
    assert files.hostname_text("web") == "web\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zz", 'bad format for add-host: "zz"'),
        (":1.2.3.4", 'bad format for add-host: ":1.2.3.4"'),
        ("a:1.2.3", 'invalid IP address in add-host: "1.2.3"'),
        ("a:1.2.3.4\n5.6.7.8 b", 'invalid IP address in add-host: "1.2.3.4\n5.6.7.8 b"'),
        ("a\tb:1.2.3.4", 'bad format for add-host: "a\tb:1.2.3.4"'),
        ("a:host-gateway", "unable to derive the IP value for host-gateway"),
    ],
)
def test_bad_extra_hosts(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        files.parse_extra_host(text)
    assert caught.value.message == message


@pytest.fixture
def machine(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A machine whose files are below tmp_path."""
    for name in ("hosts", "resolv_conf"):
        monkeypatch.setattr(files, f"_host_{name}", files.HostFile(str(tmp_path / name)))
    monkeypatch.setattr(files, "_resolved_resolv_conf", files.HostFile(str(tmp_path / "resolved")))
    return tmp_path


@pytest.mark.parametrize(
    ("host", "container"),
    [
        ("search x\nnameserver 192.0.2.53\n# end\n", "search x\nnameserver 192.0.2.53\n# end\n"),
        ("nameserver 127.0.0.1\nnameserver 192.0.2.53\n", "nameserver 192.0.2.53\n"),
        ("nameserver ::1\nnameserver fd00::53\n", "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
        ("nameserver 127.0.1.1 \n", "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
        ("", "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
    ],
    ids=["kept", "loopback out", "ipv6 out", "fallback", "empty"],
)
def test_the_machines_servers_that_a_container_can_reach(
    machine: pathlib.Path, host: str, container: str
) -> None:
    (machine / "resolv_conf").write_text(host)
    assert files.resolv_conf_text() == container


def test_systemd_resolved_names_its_own(machine: pathlib.Path) -> None:
    (machine / "resolv_conf").write_text("nameserver 127.0.0.53\noptions edns0\n")
    (machine / "resolved").write_text("nameserver 192.0.2.1\nsearch lan\n")
    assert files.resolv_conf_text() == "nameserver 192.0.2.1\nsearch lan\n"
    assert files.host_mode_resolv_conf_text() == "nameserver 127.0.0.53\noptions edns0\n"


def test_what_the_user_gives_replaces_what_the_machine_has(machine: pathlib.Path) -> None:
    (machine / "resolv_conf").write_text(
        "search lan\nnameserver 192.0.2.1\nnameserver fd00::53\noptions edns0\n"
    )
    given = files.resolv_conf_text(servers=["1.1.1.1"], search=["x.org", "y.org"])
    assert given == "search x.org y.org\nnameserver 1.1.1.1\noptions edns0\n"
    assert files.resolv_conf_text(search=["."]) == "nameserver 192.0.2.1\noptions edns0\n"
    assert files.resolv_conf_text(options=["ndots:2"], ipv6=True) == (
        "search lan\nnameserver 192.0.2.1\nnameserver fd00::53\noptions ndots:2\n"
    )


def test_host_mode_has_the_machines_files(machine: pathlib.Path) -> None:
    (machine / "hosts").write_text("127.0.0.1 localhost vm\n")
    (machine / "resolv_conf").write_text("nameserver 127.0.0.1\n")
    assert files.host_mode_hosts_text() == "127.0.0.1 localhost vm\n"
    assert files.host_mode_hosts_text(extra_hosts=["a:1.2.3.4"]) == f"{HEAD}1.2.3.4\ta\n"
    assert files.host_mode_resolv_conf_text() == "nameserver 127.0.0.1\n"
    assert files.host_mode_resolv_conf_text(servers=["1.1.1.1"]) == "nameserver 1.1.1.1\n"


def test_a_changed_file_of_the_machine_is_seen(machine: pathlib.Path) -> None:
    path = machine / "resolv_conf"
    path.write_text("nameserver 192.0.2.1\n")
    assert files.resolv_conf_text() == "nameserver 192.0.2.1\n"
    os.rename(path, machine / "old")
    path.write_text("nameserver 192.0.2.2\n")
    assert files.resolv_conf_text() == "nameserver 192.0.2.2\n"
