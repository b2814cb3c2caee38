"""Routes of Docker's API that are not built yet: an answer that names the feature.

docker CLI's `inspect` goes on to the next kind of object after a refusal that says "not supported".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from sampan.api.call import Call
from sampan.api.router import Route
from sampan.api.server import Handler
from sampan.errors import Unsupported

# Feature → routes, in the spelling of engine-api-v1.55.yaml.
ABSENT: dict[str, list[tuple[str, str]]] = {
    "building images": [
        ("POST", "/build"),
        ("POST", "/build/cancel"),
        ("POST", "/session"),
        ("POST", "/grpc"),
    ],
    "image attestations": [("GET", "/images/{name...}/attestations")],
    "plugins": [
        ("GET", "/plugins"),
        ("GET", "/plugins/privileges"),
        ("POST", "/plugins/pull"),
        ("POST", "/plugins/create"),
        ("GET", "/plugins/{name...}/json"),
        ("DELETE", "/plugins/{name...}"),
        ("POST", "/plugins/{name...}/enable"),
        ("POST", "/plugins/{name...}/disable"),
        ("POST", "/plugins/{name...}/upgrade"),
        ("POST", "/plugins/{name...}/push"),
        ("POST", "/plugins/{name...}/set"),
    ],
    "swarm mode": [
        ("GET", "/swarm"),
        ("POST", "/swarm/init"),
        ("POST", "/swarm/join"),
        ("POST", "/swarm/leave"),
        ("POST", "/swarm/update"),
        ("GET", "/swarm/unlockkey"),
        ("POST", "/swarm/unlock"),
        ("GET", "/nodes"),
        ("GET", "/nodes/{id}"),
        ("DELETE", "/nodes/{id}"),
        ("POST", "/nodes/{id}/update"),
        ("GET", "/services"),
        ("POST", "/services/create"),
        ("GET", "/services/{id}"),
        ("DELETE", "/services/{id}"),
        ("POST", "/services/{id}/update"),
        ("GET", "/services/{id}/logs"),
        ("GET", "/tasks"),
        ("GET", "/tasks/{id}"),
        ("GET", "/tasks/{id}/logs"),
        ("GET", "/secrets"),
        ("POST", "/secrets/create"),
        ("GET", "/secrets/{id}"),
        ("DELETE", "/secrets/{id}"),
        ("POST", "/secrets/{id}/update"),
        ("GET", "/configs"),
        ("POST", "/configs/create"),
        ("GET", "/configs/{id}"),
        ("DELETE", "/configs/{id}"),
        ("POST", "/configs/{id}/update"),
    ],
}


def routes() -> list[Route[Handler]]:
    return [
        Route(method, pattern, _refusing(feature))
        for feature, entries in ABSENT.items()
        for method, pattern in entries
    ]


def _refusing(feature: str) -> Callable[[Call], Awaitable[web.StreamResponse]]:
    async def refuse(call: Call) -> web.StreamResponse:
        raise Unsupported(f"{feature}: not supported by this version of Sampan yet")

    return refuse
