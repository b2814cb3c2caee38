"""Docker's description of the API as a contract: every answer of a running engine keeps it.

`test_every_operation` does each thing that the description knows once or more, in the versions that
have a description; `test_random_requests` asks with whatever the description allows, and with what it
does not.
"""

from __future__ import annotations

import json
import random
import time
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from sampan.api.routes.absent import ABSENT
from support.contract import VERSIONS, Contract
from support.engines import IMAGE, Engine, SampanEngine
from support.http import Answer
from support.registries import Registry
from support.tars import archive, file

pytestmark = pytest.mark.root

NOT_BUILT = {
    (method, path.replace("...", "")) for entries in ABSENT.values() for method, path in entries
}
# Sessions leave HTTP; they have tests of their own. `PUT /volumes` is for clusters.
SESSIONS = {
    ("POST", "/containers/{id}/attach"),
    ("GET", "/containers/{id}/attach/ws"),
    ("GET", "/images/search"),
}
SEED = 20261123
REQUESTS = 400


class Client:
    """Asks an engine in one version and holds every answer to the contract."""

    def __init__(self, engine: Engine, contract: Contract) -> None:
        self.engine, self.contract = engine, contract
        self.broken: list[str] = []

    def ask(self, method: str, path: str, *statuses: int, **options: Any) -> Answer:
        answer = self.engine.request(method, f"/v{self.contract.version}{path}", **options)
        assert answer.status in (statuses or (200,)), (method, path, answer)
        try:
            self.contract.check(method, path, answer)
        except AssertionError as error:
            self.broken.append(str(error))
        return answer


@pytest.fixture(params=VERSIONS)
def contract(request: pytest.FixtureRequest) -> Contract:
    return Contract(request.param)


FULL: dict[str, Any] = {
    "Image": IMAGE,
    "Cmd": ["sleep", "1000"],
    "Tty": True,
    "OpenStdin": True,
    "Env": ["A=b"],
    "Labels": {"dev.sampan.test": "contract"},
    "ExposedPorts": {"80/tcp": {}},
    "StopTimeout": 1,
    "Volumes": {"/anonymous": {}},
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 30 * 10**9, "StartInterval": 10**9},
    "HostConfig": {
        "Memory": 64 << 20,
        "PidsLimit": 50,
        "Mounts": [{"Type": "tmpfs", "Target": "/m", "TmpfsOptions": {"SizeBytes": 1 << 20}}],
        "Tmpfs": {"/t": "size=1m"},
        "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}],
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        "Init": True,
        "Annotations": {"a": "b"},
        "ExtraHosts": ["there:10.0.0.1"],
    },
}


def test_every_operation(
    sampan: SampanEngine, contract: Contract, registry: Registry, unused_name: str
) -> None:
    client = Client(sampan, contract)
    started = time.time()
    about_the_engine(client)
    container = about_containers(client, unused_name)
    about_execs(client, container)
    about_files(client, container)
    about_images(client, container, unused_name, registry)
    about_volumes(client, unused_name)
    about_networks(client, container, unused_name)
    ended(client, container)
    events(client, started)
    assert not client.broken, "\n".join(client.broken)
    for method, path in sorted(NOT_BUILT):
        assert ask_for(sampan, contract, method, path).status == 501
    declared = {(method, path) for method, path, _ in contract.operations()}
    assert declared - contract.hit - NOT_BUILT - SESSIONS == set()


def ask_for(engine: Engine, contract: Contract, method: str, path: str) -> Answer:
    concrete = path.replace("{id}", "x").replace("{name}", "x")
    return engine.request(method, f"/v{contract.version}{concrete}")


def about_the_engine(client: Client) -> None:
    client.ask("GET", "/_ping")
    client.ask("HEAD", "/_ping")
    client.ask("GET", "/version")
    client.ask("GET", "/info")
    client.ask("GET", "/system/df")
    client.ask("GET", "/system/df?type=image&type=container&verbose=1")
    client.ask("POST", "/build/prune")
    client.ask("POST", "/auth", 400, 401, 500, body={"username": "a", "password": "b", "serveraddress": "127.0.0.1:1"})  # fmt: skip


def about_containers(client: Client, name: str) -> str:
    path = "/containers/create"
    identity = str(client.ask("POST", f"{path}?name={name}", 201, body=FULL).json["Id"])
    client.ask("POST", f"{path}?name={name}", 409, body=FULL)
    client.ask("POST", path, 404, body={"Image": "nosuch"})
    client.ask("POST", path, 400, body={"Image": IMAGE, "HostConfig": {"ShmSize": -1}})
    here = f"/containers/{identity}"
    client.ask("GET", f"{here}/json?size=1")
    client.ask("POST", f"{here}/start", 204)
    client.ask("POST", f"{here}/start", 304)
    client.ask("GET", f"{here}/json")
    client.ask("GET", "/containers/nosuch/json", 404)
    client.ask("GET", f"/containers/json?all=1&size=1&filters={quote('{}')}")
    client.ask("GET", "/containers/json?filters=x", 400)
    client.ask("GET", f"{here}/top")
    client.ask("GET", f"{here}/stats?stream=0&one-shot=1")
    client.ask("GET", f"{here}/logs?stdout=1&tail=1")
    client.ask("GET", f"{here}/logs", 400)
    client.ask("POST", f"{here}/resize?h=20&w=60")
    client.ask("POST", f"{here}/update", body={"Memory": 65 << 20, "MemorySwap": 130 << 20})
    client.ask("POST", f"{here}/pause", 204)
    client.ask("POST", f"{here}/unpause", 204)
    client.ask("POST", f"{here}/rename?name={name}2", 204)
    client.ask("POST", f"{here}/rename", 409, 400)
    client.ask("DELETE", here, 409)
    return identity


def about_execs(client: Client, container: str) -> None:
    body = {"Cmd": ["true"], "AttachStdout": True}
    identity = client.ask("POST", f"/containers/{container}/exec", 201, body=body).json["Id"]
    client.ask("POST", "/containers/nosuch/exec", 404, body=body)
    client.ask("GET", f"/exec/{identity}/json")
    client.ask("POST", "/exec/nosuch/resize?h=1&w=1", 404)
    client.ask("POST", f"/exec/{identity}/start", body={"Detach": True})
    client.ask("GET", f"/exec/{identity}/json")
    client.ask("GET", "/exec/nosuch/json", 404)


def about_files(client: Client, container: str) -> None:
    here = f"/containers/{container}"
    client.ask("PUT", f"{here}/archive?path=/tmp", raw=archive([file("file", b"text")]))
    client.ask("HEAD", f"{here}/archive?path=/tmp/file")
    client.ask("GET", f"{here}/archive?path=/tmp/file")
    client.ask("GET", f"{here}/archive?path=/nosuch", 404)
    client.ask("GET", f"{here}/changes")
    client.ask("GET", f"{here}/export")


def about_images(client: Client, container: str, name: str, registry: Registry) -> None:
    client.ask("GET", "/images/json?all=1&manifests=1&shared-size=1")
    client.ask("GET", f"/images/{IMAGE}/json?manifests=1")
    client.ask("GET", f"/images/{IMAGE}/history")
    client.ask("GET", "/images/nosuch/json", 404)
    client.ask("POST", f"/commit?container={container}&repo={name}", 201, body={})
    remote = f"{registry.address}/{name}"
    client.ask("POST", f"/images/{name}/tag?repo={remote}&tag=1", 201)
    auth = {"X-Registry-Auth": "e30="}
    client.ask("POST", f"/images/{remote}/push?tag=1", headers=auth)
    client.ask("POST", f"/images/create?fromImage={remote}&tag=1")
    client.ask("GET", f"/distribution/{remote}:1/json")
    saved = client.ask("GET", f"/images/{name}/get").body
    client.ask("GET", f"/images/get?names={name}")
    client.ask("POST", "/images/load", raw=saved)
    client.ask("DELETE", f"/images/{remote}:1")
    client.ask("DELETE", f"/images/{name}")
    client.ask("DELETE", f"/images/{name}", 404)
    client.ask("POST", f"/images/prune?filters={quote(json.dumps({'label': ['nosuch']}))}")


def about_volumes(client: Client, name: str) -> None:
    client.ask("POST", "/volumes/create", 201, body={"Name": name, "Labels": {"a": "b"}})
    client.ask("GET", "/volumes")
    client.ask("GET", f"/volumes/{name}")
    client.ask("GET", "/volumes/nosuch", 404)
    client.ask("PUT", f"/volumes/{name}?version=1", 503, body={})
    client.ask("DELETE", f"/volumes/{name}", 204)
    client.ask("POST", f"/volumes/prune?filters={quote(json.dumps({'label': ['nosuch']}))}")


def about_networks(client: Client, container: str, name: str) -> None:
    body = {
        "Name": name,
        "Labels": {"a": "b"},
        "Options": {"com.docker.network.driver.mtu": "1400"},
    }
    identity = client.ask("POST", "/networks/create", 201, body=body).json["Id"]
    client.ask("POST", "/networks/create", 409, body=body)
    client.ask("POST", f"/networks/{identity}/connect", body={"Container": container})
    client.ask("GET", "/networks")
    client.ask("GET", f"/networks/{identity}?verbose=1")
    client.ask("GET", f"/containers/{container}/json")
    client.ask("GET", "/containers/json")
    client.ask("GET", "/networks/nosuch", 404)
    client.ask("DELETE", f"/networks/{identity}", 403)
    client.ask("POST", f"/networks/{identity}/disconnect", body={"Container": container})
    client.ask("DELETE", f"/networks/{identity}", 204)
    client.ask("POST", f"/networks/prune?filters={quote(json.dumps({'label': ['nosuch']}))}")


def ended(client: Client, container: str) -> None:
    here = f"/containers/{container}"
    client.ask("POST", f"{here}/restart?t=0", 204)
    client.ask("POST", f"{here}/stop?t=0", 204)
    client.ask("POST", f"{here}/stop", 304)
    client.ask("POST", f"{here}/kill", 409)
    client.ask("POST", f"{here}/wait")
    client.ask("DELETE", f"{here}?v=1", 204)
    client.ask("POST", f"/containers/prune?filters={quote(json.dumps({'label': ['nosuch']}))}")


def events(client: Client, since: float) -> None:
    """Each of them, of all kinds that came meanwhile."""
    path = f"/events?since={since:.9f}&until={time.time():.9f}"
    answer = client.engine.request("GET", f"/v{client.contract.version}{path}")
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert {"container", "image", "volume", "network"} <= {line["Type"] for line in lines}
    schema = {"$ref": "#/definitions/EventMessage"}
    for line in lines:
        assert client.contract.breaches(line, schema) == []
    client.contract.hit.add(("GET", "/events"))


# -- anything at all -------------------------------------------------------------------------------

# What waits for something, goes out to the network, is big, or removes what the others need.
LEFT_OUT = {
    *SESSIONS,
    ("GET", "/containers/{id}/export"),
    ("GET", "/images/{name}/get"),
    ("GET", "/images/get"),
    ("GET", "/events"),
    ("GET", "/containers/{id}/logs"),
    ("GET", "/containers/{id}/stats"),
    ("POST", "/containers/{id}/wait"),
    ("POST", "/exec/{id}/start"),
    ("POST", "/images/create"),
    ("POST", "/images/{name}/push"),
    ("GET", "/distribution/{name}/json"),
    ("POST", "/auth"),
    ("DELETE", "/images/{name}"),
    ("POST", "/images/prune"),
}
WORDS = ("", "0", "1", "true", "x", "-1", "99999999999999999999", "/", "..", "a b", "%00", "é" * 9)
FILTERS = ('{"label":["a"]}', '{"nosuch":["a"]}', '{"until":{"x":true}}', "[]", "{", "null")


def random_query(pick: random.Random, operation: dict[str, Any]) -> str:
    chosen = []
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query" and pick.random() < 0.6:
            words = FILTERS if parameter["name"] == "filters" else WORDS
            chosen.append((parameter["name"], pick.choice(words)))
    return urlencode(chosen)


def random_value(pick: random.Random, schema: Any, contract: Contract, depth: int = 0) -> Any:
    """A value that fits a schema, mostly."""
    if pick.random() < 0.05:
        return pick.choice([None, 1, "x", [], {}, -1.5, [[]], {"a": None}])
    for part in schema.get("anyOf", ())[1:]:
        return random_value(pick, part, contract, depth)
    properties: dict[str, Any] = {}
    for part in contract._parts(schema, "properties"):
        properties |= part
    if properties:
        return {
            name: random_value(pick, inner, contract, depth + 1)
            for name, inner in properties.items()
            if pick.random() < (0.15 if depth else 0.3)
        }
    if items := contract._parts(schema, "items"):
        count = pick.randrange(3)
        return [random_value(pick, items[0], contract, depth + 1) for _ in range(count)]
    match schema.get("type"):
        case "integer" | "number":
            return pick.choice([0, 1, -1, 2**31, 2**63 - 1, 2**64])
        case "boolean":
            return pick.random() < 0.5
        case "object":
            return {pick.choice(["a", ""]): pick.choice(["b", None, {}])}
        case _:
            return pick.choice([*WORDS, IMAGE, "bridge", "none"])


def test_random_requests(own_sampan: SampanEngine) -> None:
    """No request, sound or not, gets an undeclared answer, none of them a 500."""
    contract, pick = Contract("1.55"), random.Random(SEED)
    own_sampan.post("/containers/create", {"Image": IMAGE}, name="box")
    operations = [
        entry
        for entry in contract.operations()
        if entry[:2] not in LEFT_OUT and entry[:2] not in NOT_BUILT
    ]
    broken = []
    for number in range(REQUESTS):
        method, template, operation = operations[number % len(operations)]
        name = quote(pick.choice(["box", "nosuch", IMAGE, "é", "-", ".."]), safe=":")
        path = template.replace("{id}", name).replace("{name}", name)
        body = None
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "body" and pick.random() < 0.9:
                body = random_value(pick, parameter["schema"], contract)
        query = random_query(pick, operation)
        said = f"{method} {path}?{query} {json.dumps(body)}"
        answer = own_sampan.request(method, f"/v1.55{path}?{query}", body=body)
        try:
            if answer.status >= 400 and method != "HEAD":
                assert answer.status != 500, answer
                assert contract.breaches(answer.json, {"$ref": "#/definitions/ErrorResponse"}) == []
            else:
                contract.check(method, path, answer)
        except AssertionError as error:
            broken.append(f"{said}\n    {error}")
    assert not broken, f"{len(broken)} of {REQUESTS}\n" + "\n".join(broken[:20])
