"""What a cgroup used in all, from either version's files."""

from __future__ import annotations

from pathlib import Path

from sampan.linux.cgroups.final import final_usage


def test_v1(tmp_path: Path) -> None:
    (tmp_path / "memory.max_usage_in_bytes").write_text("4096\n")
    (tmp_path / "cpuacct.usage").write_text("123456789\n")
    (tmp_path / "blkio.bfq.io_service_bytes_recursive").write_text("Total 0\n")
    (tmp_path / "blkio.throttle.io_service_bytes_recursive").write_text(
        "8:0 Read 10\n8:0 Write 20\n8:0 Sync 30\n8:16 Read 5\nTotal 35\n"
    )
    paths = dict.fromkeys(("memory", "cpuacct", "blkio"), str(tmp_path))
    assert final_usage(paths) == {
        "peak_memory_bytes": 4096,
        "cpu_ns": 123456789,
        "read_bytes": 15,
        "write_bytes": 20,
    }


def test_v2(tmp_path: Path) -> None:
    (tmp_path / "memory.peak").write_text("8192\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 77\nuser_usec 70\n")
    (tmp_path / "io.stat").write_text("8:0 rbytes=1 wbytes=2 rios=1\n8:16 rbytes=3 wbytes=4\n")
    assert final_usage({"": str(tmp_path)}) == {
        "peak_memory_bytes": 8192,
        "cpu_ns": 77000,
        "read_bytes": 4,
        "write_bytes": 6,
    }


def test_what_the_kernel_does_not_tell(tmp_path: Path) -> None:
    assert final_usage({"": str(tmp_path)}) == {}
    assert final_usage({}) == {}
