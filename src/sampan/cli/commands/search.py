"""`sampan search`: images of Docker Hub, or of another index that can be searched."""

from __future__ import annotations

from sampan.cli import credentials, listing, units
from sampan.cli.client import query
from sampan.cli.flags import filters_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (
    ("filter", "f", "filter", "", "Filter output based on conditions provided"),
    ("format", "", "string", "", "Pretty-print search using a Go template"),
    ("limit", "", "int", "", "Max number of search results"),
    ("no-trunc", "", "bool", "", "Don't truncate output"),
)
COLUMNS = ("Name", "Description", "StarCount", "IsOfficial")
DESCRIPTION_WIDTH = 45


def _description(row: dict[str, Any], truncate: bool) -> str:
    text = str(row.get("description", "")).replace("\n", " ").replace("\r", " ")
    return units.ellipsis(text, DESCRIPTION_WIDTH) if truncate else text


def _kind(is_json: bool) -> listing.Kind:
    """The fields; in JSON a truth is a word, elsewhere a mark."""
    yes, no = ("true", "false") if is_json else ("[OK]", "")
    return listing.Kind(
        "registry.searchContext",
        {
            "Name": lambda row, _: row.get("name", ""),
            "Description": _description,
            "StarCount": lambda row, _: str(row.get("star_count", 0)),
            "IsOfficial": lambda row, _: yes if row.get("is_official") else no,
        },
        {
            "Name": "NAME",
            "Description": "DESCRIPTION",
            "StarCount": "STARS",
            "IsOfficial": "OFFICIAL",
        },
    )


def run(call: Call) -> int:
    """Search for a term, `[HOST/]TERM`."""
    term = call.args[0]
    filters = filters_json(call.pairs("filter"))
    path = "/images/search" + query(
        term=term, limit=str(call.number("limit") or ""), filters=filters
    )
    auth = credentials.registry_auth_header(term)
    response = call.client.open("GET", path, extra=f"X-Registry-Auth: {auth}\r\n" if auth else "")
    answer: Any = next(response.values(), None)
    form = call.text("format")
    listing.print_list(
        _kind(form == "json" or "{{json ." in form),
        answer or [],
        COLUMNS,
        form=form,
        quiet=False,
        truncate=not call.on("no-trunc"),
    )
    return 0
