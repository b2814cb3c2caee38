"""The command table: the one source of the parser, of help, of completion and of docs/cli.md.

A row is `(usage, summary, (least, most) arguments, module, aliases, stops at first argument)`; the
flags of a command stand at the top of its module, so that a command loads no more than its own.
`most` is -1 for any number. Rows with a space in their name live under a management command.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    CommandRow = tuple[str, str, tuple[int, int], str, tuple[str, ...], bool]

COMMANDS: dict[str, CommandRow] = {
    "attach": ("attach [OPTIONS] CONTAINER", "Attach local standard input, output, and error streams to a running container", (1, 1), "attach", ("container attach",), False),
    "commit": ("commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]", "Create a new image from a container's changes", (1, 2), "commit", ("container commit",), True),
    "completion": ("completion SHELL", "Print the completion script for bash, zsh or fish", (1, 1), "completion", (), False),
    "container history": ("container history [OPTIONS] CONTAINER", "Show how the runs of a container ended, also of one that is gone", (1, 1), "history_container", (), False),
    "container inspect": ("container inspect [OPTIONS] CONTAINER [CONTAINER...]", "Display detailed information on one or more containers", (1, -1), "inspect_container", (), False),
    "container prune": ("container prune [OPTIONS]", "Remove all stopped containers", (0, 0), "prune_containers", (), False),
    "cp": ("cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n       sampan cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH", "Copy files/folders between a container and the local filesystem", (2, 2), "cp", ("container cp",), False),
    "create": ("create [OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a new container", (1, -1), "create", ("container create",), True),
    "daemon": ("daemon [OPTIONS]", "Run the engine, the same as sampand (its flags: sampand --help)", (0, -1), "daemon", (), True),
    "daemon stop": ("daemon stop [OPTIONS]", "End the engine that runs; its containers go on", (0, 0), "stop_daemon", (), False),
    "diff": ("diff CONTAINER", "Inspect changes to files or directories on a container's filesystem", (1, 1), "diff", ("container diff",), False),
    "enter": ("enter [OPTIONS] CONTAINER [COMMAND] [ARG...]", "Run a command of a container you trust in all its namespaces, with the host's capabilities and no seccomp filter; with or without the engine", (1, -1), "enter", ("container enter",), True),
    "events": ("events [OPTIONS]", "Get real time events from the server", (0, 0), "events", ("system events",), False),
    "exec": ("exec [OPTIONS] CONTAINER COMMAND [ARG...]", "Execute a command in a running container", (2, -1), "exec", ("container exec",), True),
    "export": ("export [OPTIONS] CONTAINER", "Export a container's filesystem as a tar archive", (1, 1), "export", ("container export",), False),
    "history": ("history [OPTIONS] IMAGE|CONTAINER", "Show the history of an image, or how a container ended, also one that is gone", (1, 1), "history_any", (), False),
    "image bootstrap": ("image bootstrap [OPTIONS] DISTRIBUTION[:SUITE]", "Create an image of a distribution from its packages, with mmdebstrap or debootstrap", (1, 1), "bootstrap", (), False),
    "image from-host": ("image from-host [OPTIONS] PROGRAM[,PROGRAM...]", "Create an image of this machine's programs and the libraries they need", (0, -1), "from_host", (), False),
    "image history": ("image history [OPTIONS] IMAGE", "Show the history of an image", (1, 1), "history", (), False),
    "image inspect": ("image inspect [OPTIONS] IMAGE [IMAGE...]", "Display detailed information on one or more images", (1, -1), "inspect_image", (), False),
    "image pin": ("image pin IMAGE [IMAGE...]", "Keep one or more images when the disk budget is exceeded", (1, -1), "pin", (), False),
    "image prune": ("image prune [OPTIONS]", "Remove unused images", (0, 0), "prune_images", (), False),
    "image unpin": ("image unpin IMAGE [IMAGE...]", "Let the disk budget remove one or more images again", (1, -1), "unpin", (), False),
    "images": ("images [OPTIONS] [REPOSITORY[:TAG]]", "List images", (0, 1), "images", ("image ls", "image list"), False),
    "import": ("import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]", "Import the contents from a tarball to create a filesystem image", (1, -1), "import_", ("image import",), False),
    "info": ("info [OPTIONS]", "Display system-wide information", (0, 0), "info", ("system info",), False),
    "inspect": ("inspect [OPTIONS] NAME|ID [NAME|ID...]", "Return low-level information on Docker objects", (1, -1), "inspect", (), False),
    "kill": ("kill [OPTIONS] CONTAINER [CONTAINER...]", "Kill one or more running containers", (1, -1), "kill", ("container kill",), False),
    "lease create": ("lease create [OPTIONS] LEASE", "Create a lease: what is made under it goes when it is not renewed", (1, 1), "create_lease", (), False),
    "lease hold": ("lease hold [OPTIONS] LEASE [COMMAND] [ARG...]", "Hold a lease while a command runs; what was made under it goes then, however this ends", (1, -1), "hold_lease", (), True),
    "lease inspect": ("lease inspect [OPTIONS] LEASE [LEASE...]", "Display detailed information on one or more leases", (1, -1), "inspect_lease", (), False),
    "lease ls": ("lease ls [OPTIONS]", "List leases", (0, 0), "leases", ("lease list",), False),
    "lease renew": ("lease renew LEASE [LEASE...]", "Let one or more leases live on", (1, -1), "renew_lease", (), False),
    "lease rm": ("lease rm LEASE [LEASE...]", "End one or more leases, and remove what was made under them", (1, -1), "rm_lease", ("lease remove",), False),
    "load": ("load [OPTIONS]", "Load an image from a tar archive or STDIN", (0, 0), "load", ("image load",), False),
    "login": ("login [OPTIONS] [SERVER]", "Authenticate to a registry; to Docker Hub if no server is specified", (0, 1), "login", (), False),
    "logout": ("logout [SERVER]", "Log out from a registry; from Docker Hub if no server is specified", (0, 1), "logout", (), False),
    "logs": ("logs [OPTIONS] CONTAINER", "Fetch the logs of a container", (1, 1), "logs", ("container logs",), False),
    "manifest inspect": ("manifest inspect [OPTIONS] [MANIFEST_LIST] MANIFEST", "Display an image manifest, or manifest list", (1, 2), "manifest_inspect", (), False),
    "network connect": ("network connect [OPTIONS] NETWORK CONTAINER", "Connect a container to a network", (2, 2), "connect_network", (), False),
    "network create": ("network create [OPTIONS] NETWORK", "Create a network", (1, 1), "create_network", (), False),
    "network denied": ("network denied [OPTIONS] [CONTAINER...]", "List what network policies refused", (0, -1), "denied", (), False),
    "network disconnect": ("network disconnect [OPTIONS] NETWORK CONTAINER", "Disconnect a container from a network", (2, 2), "disconnect_network", (), False),
    "network inspect": ("network inspect [OPTIONS] NETWORK [NETWORK...]", "Display detailed information on one or more networks", (1, -1), "inspect_network", (), False),
    "network ls": ("network ls [OPTIONS]", "List networks", (0, 0), "networks", ("network list",), False),
    "network prune": ("network prune [OPTIONS]", "Remove all unused networks", (0, 0), "prune_networks", (), False),
    "network rm": ("network rm NETWORK [NETWORK...]", "Remove one or more networks", (1, -1), "rm_network", ("network remove",), False),
    "network update": ("network update [OPTIONS] NETWORK [NETWORK...]", "Change what the containers of one or more networks may reach", (1, -1), "update_network", (), False),
    "pause": ("pause CONTAINER [CONTAINER...]", "Pause all processes within one or more containers", (1, -1), "pause", ("container pause",), False),
    "port": ("port CONTAINER [PRIVATE_PORT[/PROTO]]", "List port mappings or a specific mapping for the container", (1, 2), "port", ("container port",), False),
    "ps": ("ps [OPTIONS]", "List containers", (0, 0), "ps", ("container ls", "container list", "container ps"), False),
    "pull": ("pull [OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry", (1, 1), "pull", ("image pull",), False),
    "push": ("push [OPTIONS] NAME[:TAG]", "Upload an image to a registry", (1, 1), "push", ("image push",), False),
    "rename": ("rename CONTAINER NEW_NAME", "Rename a container", (2, 2), "rename", ("container rename",), False),
    "restart": ("restart [OPTIONS] CONTAINER [CONTAINER...]", "Restart one or more containers", (1, -1), "restart", ("container restart",), False),
    "rm": ("rm [OPTIONS] CONTAINER [CONTAINER...]", "Remove one or more containers", (1, -1), "rm", ("container rm", "container remove"), False),
    "rmi": ("rmi [OPTIONS] IMAGE [IMAGE...]", "Remove one or more images", (1, -1), "rmi", ("image rm", "image remove"), False),
    "run": ("run [OPTIONS] IMAGE [COMMAND] [ARG...]", "Create and run a new container from an image", (1, -1), "run", ("container run",), True),
    "save": ("save [OPTIONS] IMAGE [IMAGE...]", "Save one or more images to a tar archive (streamed to STDOUT by default)", (1, -1), "save", ("image save",), False),
    "search": ("search [OPTIONS] TERM", "Search Docker Hub for images", (1, 1), "search", (), False),
    "start": ("start [OPTIONS] CONTAINER [CONTAINER...]", "Start one or more stopped containers", (1, -1), "start", ("container start",), False),
    "stats": ("stats [OPTIONS] [CONTAINER...]", "Display a live stream of container(s) resource usage statistics", (0, -1), "stats", ("container stats",), False),
    "stop": ("stop [OPTIONS] CONTAINER [CONTAINER...]", "Stop one or more running containers", (1, -1), "stop", ("container stop",), False),
    "system df": ("system df [OPTIONS]", "Show docker disk usage", (0, 0), "df", (), False),
    "tag": ("tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", (2, 2), "tag", ("image tag",), False),
    "top": ("top CONTAINER [ps OPTIONS]", "Display the running processes of a container", (1, -1), "top", ("container top",), True),
    "unpause": ("unpause CONTAINER [CONTAINER...]", "Unpause all processes within one or more containers", (1, -1), "unpause", ("container unpause",), False),
    "update": ("update [OPTIONS] CONTAINER [CONTAINER...]", "Update configuration of one or more containers", (1, -1), "update", ("container update",), False),
    "version": ("version [OPTIONS]", "Show the version information of client and engine", (0, 0), "version", (), False),
    "volume create": ("volume create [OPTIONS] [VOLUME]", "Create a volume", (0, 1), "create_volume", (), False),
    "volume inspect": ("volume inspect [OPTIONS] VOLUME [VOLUME...]", "Display detailed information on one or more volumes", (1, -1), "inspect_volume", (), False),
    "volume ls": ("volume ls [OPTIONS]", "List volumes", (0, 0), "volumes", ("volume list",), False),
    "volume prune": ("volume prune [OPTIONS]", "Remove unused local volumes", (0, 0), "prune_volumes", (), False),
    "volume rm": ("volume rm [OPTIONS] VOLUME [VOLUME...]", "Remove one or more volumes", (1, -1), "rm_volume", ("volume remove",), False),
    "wait": ("wait CONTAINER [CONTAINER...]", "Block until one or more containers stop, then print their exit codes", (1, -1), "wait", ("container wait",), False),
}  # fmt: skip

COMMON = ("run", "exec", "ps", "pull", "images", "version", "info", "enter")

MANAGEMENT = {
    "container": "Manage containers",
    "image": "Manage images",
    "lease": "Manage leases, under which things are made that go together",
    "manifest": "Look into registries at manifests and manifest lists",
    "network": "Manage networks",
    "system": "Manage the engine",
    "volume": "Manage volumes",
}

GLOBAL_FLAGS = (
    ("context", "c", "string", "", 'Name of the context to use; only "default" exists'),
    ("debug", "D", "bool", "", "Enable debug mode"),
    ("host", "H", "list", "", "Daemon socket to connect to"),
    ("version", "v", "bool", "", "Print version information and quit"),
    ("config", "", "string", "", ""),
    ("log-level", "l", "string", '"info"', ""),
    ("tls", "", "bool", "", ""),
    ("tlsverify", "", "bool", "", ""),
)


def find(words: list[str]) -> tuple[str, CommandRow, int] | None:
    """The command that `words` begin with: its name, its row and how many words that took."""
    full = " ".join(words[:2])
    row = COMMANDS.get(full)
    if row is not None:
        return full, row, len(words[:2])
    row = COMMANDS.get(words[0])
    if row is not None:
        return words[0], row, 1
    if len(words) > 1 and words[0] in MANAGEMENT:
        for name, row in COMMANDS.items():
            if full in row[4]:
                return name, row, 2
    return None


def load(row: CommandRow) -> ModuleType:
    """The module of a command: `FLAGS` and `run(call)`."""
    name = "sampan.cli.commands." + row[3]
    __import__(name)
    import sys

    return sys.modules[name]
