"""IDs and the names that a container gets when its user gives none."""

from __future__ import annotations

import re
import secrets
from collections.abc import Container as Membership

from sampan.errors import InvalidArgument

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")

ADJECTIVES = (
    "able agile airy amber apt bold brave breezy bright brisk calm candid clear clever cosy crisp "
    "curious daring deft eager early earnest easy fair fast fearless fine firm fond free fresh "
    "friendly frosty gentle glad golden grand happy hardy hearty honest humble jolly keen kind "
    "light lively loyal lucid lucky mellow merry mild modest neat nimble noble patient placid "
    "plucky polite prompt proud quick quiet rapid ready robust rosy serene sharp shiny silent "
    "silver simple sincere sleek smart snug solid sound spry stable steady still stout subtle "
    "sunny sure swift tender tidy tranquil trim true trusty upbeat valiant vivid warm wise witty"
).split()

NOUNS = (
    "albatross anchor anchovy avocet barge beacon bollard bowsprit bream buoy canoe capstan "
    "caravel catamaran clipper cockle cod coral cormorant coxswain crab current curlew cutter "
    "delta dhow dinghy dolphin dory dune eel egret estuary ferry fjord frigate gale gannet gull "
    "harbour haven helm heron herring hull island jetty junk kayak keel kelp ketch krill lagoon "
    "lighthouse limpet lobster lugger mackerel manta marlin mast mooring mussel narwhal nautilus "
    "oar osprey otter oyster paddle pelican perch pier pike pilot plover porpoise prawn puffin "
    "quay raft ray reef rigging rudder sail salmon sandbar schooner sculpin seal sextant shoal "
    "shore skate skiff skipper sloop sole spinnaker squid starfish stern sturgeon surf swan tern "
    "tide tiller trawler trout tuna turbot turtle walrus wave whale wharf wherry whelk yawl"
).split()


def container_id() -> str:
    """A fresh ID: 64 hexadecimal digits. The short form, the first 12, is never a mere number,
    since it becomes a host name."""
    while (identity := secrets.token_hex(32))[:12].isdecimal():
        pass
    return identity


def random_name(taken: Membership[str]) -> str:
    """A free name such as `brisk_heron`, with a number behind it where the pairs run out."""
    for _ in range(8):
        name = f"{secrets.choice(ADJECTIVES)}_{secrets.choice(NOUNS)}"
        if name not in taken:
            return name
    while (longer := f"{name}{secrets.randbelow(1_000_000)}") in taken:
        pass
    return longer


def checked_name(name: str) -> str:
    """A container name without its leading slash.

    Raises:
        InvalidArgument: with dockerd's text, when it is not a name.
    """
    bare = name.removeprefix("/")
    if not NAME.match(bare):
        raise InvalidArgument(
            f"Invalid container name ({bare}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    return bare
