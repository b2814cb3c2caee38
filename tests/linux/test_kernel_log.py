"""The kernel's words for a kill, from a v1, a v2 and a global one; Linux 6.18 and 5.10."""

from __future__ import annotations

from sampan.linux.kernel_log import OutOfMemory, out_of_memory, read_tail

CONTAINER = """\
<4>[16959.454467] memory: usage 20480kB, limit 20480kB, failcnt 152
<4>[16959.454473] memory+swap: usage 20480kB, limit 9007199254740988kB, failcnt 0
<6>[16959.454556] [   8993]     0  8993    29739     6711     5056     1655         0   106496        0             0 python3
<6>[16959.454560] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/sampan/aa,task_memcg=/sampan/aa/sub,task=python3,pid=8993,uid=7
<3>[16959.454576] Memory cgroup out of memory: Killed process 8993 (python3) total-vm:118956kB, anon-rss:20224kB, file-rss:6620kB, shmem-rss:0kB, UID:7 pgtables:104kB oom_score_adj:0
"""
MACHINE = """\
<6>[   12.000001][  T310] oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=bb,mems_allowed=0,global_oom,task_memcg=/sampan/bb,task=a,b=c,pid=31,uid=0
<3>[   12.000002][  T310] Out of memory: Killed process 31 (a,b=c) total-vm:4kB, anon-rss:1kB, file-rss:1kB, shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0
"""


def test_the_containers_limit() -> None:
    assert out_of_memory(CONTAINER) == [
        OutOfMemory(
            process="python3",
            pid=8993,
            uid=7,
            cgroup="/sampan/aa/sub",
            limited="/sampan/aa",
            limit_bytes=20480 << 10,
            resident_bytes=(20224 + 6620) << 10,
        )
    ]


def test_the_whole_machine() -> None:
    """No limit; a name with commas in it."""
    first, second = out_of_memory(CONTAINER + MACHINE)
    assert first.process == "python3"
    assert (second.process, second.pid, second.cgroup) == ("a,b=c", 31, "/sampan/bb")
    assert (second.limited, second.limit_bytes, second.resident_bytes) == ("", 0, 2 << 10)


def test_torn_and_foreign_text() -> None:
    for cut in range(0, len(CONTAINER), 7):
        assert len(out_of_memory(CONTAINER[cut:])) <= 1
    assert out_of_memory("<6>[1.0] oom-kill:\n<6>[1.1] Killed process x\n\0\0\n") == []


def test_reading() -> None:
    """Text, or nothing where it may not be read."""
    assert isinstance(read_tail(), str)
