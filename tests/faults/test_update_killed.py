"""What `update` answered holds when the daemon is killed right after: for the process and for its next start."""

from __future__ import annotations

import pytest

from support.engines import IMAGE, SampanEngine

pytestmark = pytest.mark.root

MIB = 1 << 20


@pytest.mark.cgroup1
def test_answered_is_kept(own_sampan: SampanEngine) -> None:
    body = {"Image": IMAGE, "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": "none"}}
    identity = own_sampan.post("/containers/create", body).json["Id"]
    own_sampan.post(f"/containers/{identity}/start")
    change = {"Memory": 64 * MIB, "MemorySwap": 64 * MIB, "RestartPolicy": {"Name": "always"}}
    assert own_sampan.post(f"/containers/{identity}/update", change).status == 200
    own_sampan.kill()
    own_sampan.start()
    document = own_sampan.get(f"/containers/{identity}/json").json
    assert document["State"]["Running"]
    assert document["HostConfig"]["Memory"] == 64 * MIB
    assert document["HostConfig"]["RestartPolicy"]["Name"] == "always"
    own_sampan.post(f"/containers/{identity}/restart", t=0)
    pid = own_sampan.get(f"/containers/{identity}/json").json["State"]["Pid"]
    with open(f"/proc/{pid}/cgroup") as file:
        path = next(line.split(":")[2].strip() for line in file if ":memory:" in line)
    with open(f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes") as file:
        assert int(file.read()) == 64 * MIB
