"""What a cgroup has used in all, read once at its end: single files, for somebody waits.

`Cgroup.stats` is the whole picture.
"""

from __future__ import annotations

from sampan.linux.cgroups.files import read_optional

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_PEAK_MEMORY = (("memory", "memory.max_usage_in_bytes"), ("", "memory.peak"))
_BLOCK_IO = ("blkio.bfq.io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive")


def final_usage(paths: Mapping[str, str]) -> dict[str, int]:
    """`cpu_ns`, `peak_memory_bytes`, `read_bytes` and `write_bytes`, as far as the kernel tells.

    `paths`: controller → directory, "" for the unified hierarchy's; see `Cgroup.paths`.
    memory.peak is there from Linux 5.19 on.
    """
    usage: dict[str, int] = {}
    for kind, name in _PEAK_MEMORY:
        text = _read(paths, kind, name)
        if text is not None:
            usage["peak_memory_bytes"] = int(text)
            break
    cpu_ns = _cpu_ns(paths)
    if cpu_ns is not None:
        usage["cpu_ns"] = cpu_ns
    usage.update(_block_io(paths))
    return usage


def _cpu_ns(paths: Mapping[str, str]) -> int | None:
    text = _read(paths, "cpuacct", "cpuacct.usage")
    if text is not None:
        return int(text)
    for line in (_read(paths, "", "cpu.stat") or "").splitlines():
        if line.startswith("usage_usec "):
            return int(line[11:]) * 1000
    return None


def _block_io(paths: Mapping[str, str]) -> dict[str, int]:
    counts = {"read_bytes": 0, "write_bytes": 0}
    if "blkio" in paths:
        for name in _BLOCK_IO:
            lines = (_read(paths, "blkio", name) or "").splitlines()
            for line in lines:
                words = line.split()  # 8:0 Read 4096; the last line is `Total N`
                if len(words) == 3 and words[1] in ("Read", "Write"):
                    counts[f"{words[1].lower()}_bytes"] += int(words[2])
            if len(lines) > 1:
                break
        return counts
    text = _read(paths, "", "io.stat")
    if text is None:
        return {}
    for word in text.split():
        key, _, value = word.partition("=")
        if key in ("rbytes", "wbytes"):
            counts["read_bytes" if key == "rbytes" else "write_bytes"] += int(value)
    return counts


def _read(paths: Mapping[str, str], controller: str, name: str) -> str | None:
    directory = paths.get(controller)
    return None if directory is None else read_optional(f"{directory}/{name}")
