"""nftables in process and by the command: the same answers from both."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Iterator

import pytest

from sampan.errors import Unsupported
from sampan.linux import nftables
from sampan.linux.nftables import Nft, NftError
from support.netns import NetworkNamespace

pytestmark = [pytest.mark.root, pytest.mark.vm]

TABLE = """
add table inet demo
add chain inet demo out { type nat hook postrouting priority srcnat; policy accept; }
add rule inet demo out ip saddr 172.30.0.0/16 masquerade comment "mine"
"""


@pytest.fixture(params=["library", "command"])
def nft(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nft]:
    if request.param == "command":
        if shutil.which("nft") is None:
            pytest.skip("needs the command nft")
        monkeypatch.setattr(nftables, "_load", lambda: None)
    namespace = NetworkNamespace()
    with namespace.entered(), Nft() as connection:
        yield connection
    namespace.close()


def test_what_is_added_is_listed(nft: Nft) -> None:
    assert nft.list("list chains") == []
    nft.run(TABLE)
    (chain,) = [item["chain"] for item in nft.list("list chains")]
    assert (chain["family"], chain["table"], chain["hook"]) == ("inet", "demo", "postrouting")
    rules = [item["rule"] for item in nft.list("list table inet demo") if "rule" in item]
    assert [rule["comment"] for rule in rules] == ["mine"]
    assert isinstance(rules[0]["handle"], int)


def test_a_transaction_is_all_or_nothing(nft: Nft) -> None:
    with pytest.raises(NftError, match="No such file or directory"):
        nft.run("add table inet demo\nadd rule inet demo nosuch masquerade")
    assert nft.list("list tables") == []


def test_an_error_is_one_line_and_the_next_command_is_clean(nft: Nft) -> None:
    with pytest.raises(NftError, match=r"^nftables: syntax error") as caught:
        nft.run("bogus")
    assert "\n" not in caught.value.message
    nft.run("add table inet demo")
    assert nft.list("list tables")[0]["table"]["name"] == "demo"


def test_listing_what_is_not_there(nft: Nft) -> None:
    with pytest.raises(NftError, match="No such file or directory"):
        nft.list("list table inet nosuch")


def test_from_many_threads(nft: Nft) -> None:
    """The context is not thread-safe; the lock is."""
    nft.run("add table inet demo\nadd set inet demo numbers { type inet_service; }")
    failures: list[BaseException] = []

    def add(first: int) -> None:
        try:
            for number in range(first, first + 5):
                nft.run(f"add element inet demo numbers {{ {number} }}")
        except BaseException as error:
            failures.append(error)
            raise

    if isinstance(nft._backend, nftables._Library):
        threads = [threading.Thread(target=add, args=(1 + 10 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:
        add(1)
    assert not failures
    (found,) = [i["set"] for i in nft.list("list table inet demo") if "set" in i]
    assert len(found["elem"]) in (5, 20)


def test_its_socket_is_not_inherited() -> None:
    namespace = NetworkNamespace()
    before = set(os.listdir("/proc/self/fd"))
    with namespace.entered(), Nft() as nft:
        nft.run("add table inet demo")
        opened = {int(name) for name in set(os.listdir("/proc/self/fd")) - before}
        flags = []
        for number in opened:
            try:
                flags.append(fcntl.fcntl(number, fcntl.F_GETFD))
            except OSError:
                continue  # of the listing itself
        assert flags and all(flag & fcntl.FD_CLOEXEC for flag in flags)
    namespace.close()
    assert len(os.listdir("/proc/self/fd")) == len(before) - 1


def test_neither_library_nor_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nftables, "_load", lambda: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with Nft() as nft, pytest.raises(Unsupported) as caught:
        nft.run("add table inet demo")
    assert caught.value.hint == "apt-get install libnftables1"
