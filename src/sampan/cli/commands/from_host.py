"""`sampan image from-host`: an image of this machine's programs and what they need to run.

Made on the client's side: the files are those of where the command runs, and the engine, wherever it
is, gets an ordinary tar to import.
"""

from __future__ import annotations

from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call
    from sampan.cli.making.archive import Archive

FLAGS = (
    ("change", "c", "list", "", "Apply Dockerfile instruction to the created image"),
    ("include", "", "list", "", "Add a file or directory too, at the same path (CA certificates: /etc/ssl/certs)"),
    ("output", "o", "string", "", 'Write the tar to a file ("-" for standard output) instead of making an image'),
    ("quiet", "q", "bool", "", "Print the image ID only"),
    ("tag", "t", "string", "", 'Name of the image ("name:tag")'),
)  # fmt: skip


def run(call: Call) -> int:
    """Make an image and print its ID."""
    from sampan.cli.making import archive, sending
    from sampan.cli.making.programs import Programs
    from sampan.cli.units import human_size

    names = [name for argument in call.args for name in argument.split(",") if name]
    if not names and not call.items("include"):
        raise CommandError("no program is named")
    latest_s = archive.latest_time(call.environ)
    status = sending.Status(quiet=call.on("quiet"))
    status.tick("Collecting")
    programs = Programs(call.environ.get("PATH", ""))
    programs.add(names)
    for path in call.items("include"):
        programs.include(path)
    made = archive.Archive(programs.finish(), latest_s=latest_s)
    for note in programs.notes:
        status.keep(f"note: {note}")
    status.keep(f"{', '.join(names)}: {made.files} files, {human_size(made.size_bytes, 3)}")
    if call.text("output"):
        return _write(call.text("output"), made)
    changes = sending.defaults(programs.paths[:1], programs.image_path())
    identifier = sending.import_image(
        call,
        made.blocks(),
        status=status,
        tag=call.text("tag"),
        message=f"from-host {','.join(names)}",
        changes=[*(changes if programs.paths else changes[1:]), *call.items("change")],
        size_bytes=made.size_bytes,
    )
    call.say(identifier)
    return 0


def _write(path: str, made: Archive) -> int:
    from sampan.cli import archives, streams

    if path != "-":
        archives.write_file(path, made.blocks())
        return 0
    for block in made.blocks():
        streams.write_all(1, block)
    return 0
