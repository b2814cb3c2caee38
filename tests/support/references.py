"""References, good and bad, and what dockerd makes of them: tests/oci/references.json.

The file was written from dockerd 20.10 by `pytest tests/api/conformance/test_references.py --engine
dockerd` with SAMPAN_WRITE_REFERENCES=1. Each row: the text, the name that `tag` gives it (or the error),
and what creating a container from it says, which names it as docker shows it.
"""

from __future__ import annotations

import json
import os
from itertools import product

from support.engines import IMAGE, Engine

FILE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "oci", "references.json")
HEX = "0123456789abcdef" * 4
SHA256 = f"sha256:{HEX}"


def texts() -> list[str]:
    """Several hundred, no two alike."""
    domains = [
        "", "docker.io/", "index.docker.io/", "DOCKER.io/", "localhost/", "localhost:5000/", "LOCALHOST/", "quay.io/",
        "my-registry.example.com:443/", "127.0.0.1:5000/", "[::1]/", "[::1]:5000/", "Example.COM/", "a.b/", "a:1/", "ab/", "A/",
        "registry_1.io/", "-a.io/", "a-.io/", "a..b/", ".io/", "io./", "a.io:/", "a.io:x/", "a.io:99999999/", "ä.io/", "xn--n3h.com/",
        "docker.io:80/", "library/", "docker.io/library/", "index.docker.io/library/", "localhost/library/", "1.2/", "a.io//",
    ]  # fmt: skip
    paths = [
        "busybox", "user/app", "a/b/c/d", "a", "0", "a.b", "a_b", "a__b", "a___b", "a-b", "a--b", "a---------b", "a..b", "a.-b", "a_-b",
        "a._b", "_a", "a_", ".a", "a.", "-a", "a-", "A", "aB", "a/B", "A/b", "a//b", "a/", "/a", "a b", " a", "a ", "a\tb", "a\n", "ä", "a/ä",
        "a@b", "a:b/c", "a+b", "a,b", "a%20b", "a*", "a?", "a#b", "a\\b", "..", "../a", "a/../b", "./a", "a/.", "~a", "$a", "a&b", "(a)", "scratch",
        "sha256", "sha256:" + HEX[:12], HEX, HEX[:63], HEX + "0", HEX.upper(), HEX[:12], "f" * 64, "x" * 128, "x" * 236, "x" * 237, "x" * 255, "x" * 256,
        "/".join(["a"] * 100), "/".join(["a"] * 128), "library/busybox", "library/a/b", "docker.io", "localhost", "index.docker.io", "http://a/b", "https://quay.io/a",
    ]  # fmt: skip
    tags = [
        ":1", ":latest", ":v1.0-rc.1_x", ":A", ":_", ":.a", ":-a", ":a.", ":a-", ":a:b", ":", ":a/b", ":a b", ":ä", ":a+b", ":" + "t" * 128,
        ":" + "t" * 129, ":0", ":1@", ":@", "::1", ":1:2@" + SHA256,
    ]  # fmt: skip
    digests = [
        f"@{SHA256}", f":1@{SHA256}", f"@{SHA256.upper()}", "@sha256:" + HEX.upper(), "@sha256:" + HEX[:63], "@sha256:" + HEX + "0", "@sha256:" + HEX[:31],
        "@sha256:" + HEX[:32], "@sha256:", "@sha256", "@", f"@{SHA256}@{SHA256}", f"@{SHA256}:1", f"@{HEX}", "@md5:" + HEX[:32], "@sha512:" + HEX * 2, "@sha512:" + HEX,
        "@sha384:" + HEX + HEX[:32], "@sha256+b64:" + HEX, "@SHA256:" + HEX, "@1sha:" + HEX, "@a.b:" + HEX, f"@{SHA256} ", f" @{SHA256}", f"@@{SHA256}",
    ]  # fmt: skip
    found = [
        "",
        " ",
        ":",
        "@",
        "/",
        "//",
        ".",
        "a:b:c",
        "a:1:2",
        "a:1/b",
        "a.b:1",
        "a.b:1/c:2",
        "a.io/b:c@d",
    ]
    found += [domain + name for domain, name in product(domains, ("app", "app:1", "App", "user/app", f"app@{SHA256}"))]  # fmt: skip
    found += [path + suffix for path, suffix in product(paths, ("", ":1"))]
    found += [name + tag for name, tag in product(("app", "quay.io/a/b", "localhost:5000/a"), tags)]
    found += [name + digest for name, digest in product(("app", "quay.io/a/b:2"), digests)]
    return list(dict.fromkeys(found))


def asked(engine: Engine, text: str) -> dict[str, str]:
    """What an engine makes of a text: `tag` and `create`, a name or an error."""
    tagged = engine.post(f"/images/{IMAGE}/tag", repo=text)
    if tagged.status == 201:
        names = engine.get(f"/images/{IMAGE}/json").json["RepoTags"]
        [name] = [name for name in names if name != IMAGE]
        engine.delete(f"/images/{name}", noprune=True)
        told = f"= {name}"
    else:
        told = f"{tagged.status} {tagged.json['message']}"
    row = {"text": text, "tag": told}
    if not set(text.removeprefix("sha256:")) <= set("0123456789abcdef"):  # might be an image's ID
        created = engine.post("/containers/create", {"Image": text})
        row["create"] = f"{created.status} {created.json['message']}"
    return row


def stored() -> list[dict[str, str]]:
    with open(FILE, encoding="utf-8") as file:
        rows: list[dict[str, str]] = json.load(file)
    return rows


def store(rows: list[dict[str, str]]) -> None:
    with open(FILE, "w", encoding="utf-8") as file:
        lines = ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows)
        file.write(f"[\n{lines}\n]\n")
