"""`sampan image bootstrap`: an image of a Debian-like distribution, made from its packages."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (
    ("change", "c", "list", "", "Apply Dockerfile instruction to the created image"),
    ("components", "", "strings", "", "Parts of the archive to take packages from (default main)"),
    ("include", "", "strings", "", "Further packages, by name"),
    ("keyring", "", "string", "", "File with the keys that the archive is signed with"),
    ("mirror", "", "string", "", "Where the packages are"),
    ("platform", "", "string", "", 'Platform of the image ("linux/arm64"); others than this machine\'s need binfmt_misc'),
    ("quiet", "q", "bool", "", "Print the image ID only"),
    ("tag", "t", "string", "", "Name of the image (default: as the distribution was given)"),
    ("tool", "", "string", "", "mmdebstrap or debootstrap (default: the first that is here)"),
    ("variant", "", "string", '"minbase"', "Which packages: minbase, buildd, and what else the tool knows"),
)  # fmt: skip
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(call: Call) -> int:
    """Make an image and print its ID."""
    from sampan.cli.making import archive, sending, tools
    from sampan.cli.making.distributions import Release
    from sampan.cli.making.workplace import Workplace

    release = Release(call.args[0], mirror=call.text("mirror"), platform=call.text("platform"))
    tool = tools.choose(call.environ, call.text("tool"))
    order = tools.Order(release)
    order.variant = call.text("variant") or "minbase"
    order.include = [name for name in call.items("include") if name]
    order.components = [name for name in call.items("components") if name]
    order.keyring = call.text("keyring")
    order.mirror_given = bool(call.text("mirror"))
    order.latest_s = archive.latest_time(call.environ)
    status = sending.Status(quiet=call.on("quiet"))
    with Workplace(call.environ.get("TMPDIR") or "/var/tmp") as place:
        blocks = tools.Maker(tool, order, place, status).blocks(call.environ)
        identifier = sending.import_image(
            call,
            sending.begun(blocks),
            status=status,
            tag=call.text("tag") or release.tag,
            message=f"bootstrap {release.distribution}:{release.suite}",
            changes=[*sending.defaults(["bash"], PATH), *call.items("change")],
            platform=call.text("platform"),
        )
    call.say(identifier)
    return 0
