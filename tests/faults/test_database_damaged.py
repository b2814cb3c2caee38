"""The daemon's database is damaged: no engine starts, it says the way out, and nothing is ended or removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3

import pytest

from support.engines import IMAGE, SampanEngine


def expect_refused(engine: SampanEngine) -> str:
    """What it says when it does not start."""
    said = len(engine.log())
    with pytest.raises(AssertionError, match="ended with 1 instead of answering"):
        engine.start()
    assert "Traceback" not in engine.log()[said:]
    return engine.log()[said:]


def test_refused_and_mended(own_sampan: SampanEngine) -> None:
    engine = own_sampan
    body = {"Image": IMAGE, "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": "none"}}
    engine.post("/containers/create", body, name="box")
    assert engine.post("/containers/box/start").status == 204
    pid = engine.get("/containers/box/json").json["State"]["Pid"]
    engine.terminate()
    path = f"{engine.data_root}/engine.db"
    shutil.copy(path, f"{path}.good")

    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE containers SET record = CAST('{\"id\": 7' AS BLOB)")
    said = expect_refused(engine)
    assert "container box" in said and path in said and ".recover" in said

    with open(path, "r+b") as file:
        file.write(b"not what it was")
    said = expect_refused(engine)
    assert f"{path} cannot be used: file is not a database" in said

    assert os.path.exists(f"/proc/{pid}")
    for rest in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + rest)
    os.replace(f"{path}.good", path)
    engine.start()
    found = engine.get("/containers/box/json").json["State"]
    assert (found["Status"], found["Pid"]) == ("running", pid)
