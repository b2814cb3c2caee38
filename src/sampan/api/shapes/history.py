"""How containers ended, as `GET /containers/{id}/history` shows it; our own."""

from __future__ import annotations

from typing import Any

from sampan.api.shapes.events import requester
from sampan.engine.post_mortem import Record, cause
from sampan.oci.go_time import format_time


def shown(record: Record) -> dict[str, Any]:
    """One run. `StartedAt` is empty for one that did not start, `Signal` 0 for one that exited;
    `MemoryLimit` 0 is none. What the kernel did not tell of `Usage` is left out. `KilledForMemory` has
    the processes that it killed, `LimitOf` the cgroup whose limit was reached, "" being the machine.
    """
    document: dict[str, Any] = {
        "Id": record.id,
        "Name": record.name,
        "Image": record.image,
        "ImageID": record.image_id,
        "Command": record.command,
        "StartedAt": format_time(record.started_ns) if record.started_ns else "",
        "FinishedAt": format_time(record.finished_ns),
        "Cause": cause(record),
        "ExitCode": record.exit_code,
        "Signal": record.signal,
        "OOMKilled": record.oom_killed,
        "Error": record.error,
        "RestartCount": record.restart_count,
        "MemoryLimit": record.memory_limit_bytes,
        "Usage": {_USAGE[name]: value for name, value in record.usage.items() if name in _USAGE},
        "KilledForMemory": [
            {
                "Process": kill.process,
                "Pid": kill.pid,
                "Uid": kill.uid,
                "Resident": kill.resident_bytes,
                "Cgroup": kill.cgroup,
                "LimitOf": kill.limited,
                "Limit": kill.limit_bytes,
            }
            for kill in record.killed
        ],
        "Output": [
            {"Text": line.log, "Stream": line.stream, "Time": line.time} for line in record.output
        ],
    }
    if record.sent is not None:
        document["SentSignal"] = record.sent.number
        if record.sent.by is not None:
            document["SentBy"] = requester(record.sent.by)
    return document


_USAGE = {
    "cpu_ns": "CPUNanoseconds",
    "peak_memory_bytes": "PeakMemory",
    "read_bytes": "ReadBytes",
    "write_bytes": "WriteBytes",
    "oom_kills": "OOMKills",
}
