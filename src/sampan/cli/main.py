"""The command `sampan`: global flags, the command of the table, and how a failure is told."""

from __future__ import annotations

import os
import sys

from sampan.cli import flags, table
from sampan.cli.call import Call
from sampan.cli.failures import CommandError, FlagError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "sampan"
INTERRUPTED = 130


def main() -> None:
    """Entry of the console script; ends the process.

    The interpreter is not torn down: everything this process owns is the kernel's to close, and
    the tear-down takes longer than a request.
    """
    _have_stdio()
    status = execute(sys.argv[1:], dict(os.environ))
    status = _flush(status)
    os._exit(status)


def _have_stdio() -> None:
    """Fill in for standard streams that the caller closed, and write UTF-8 whatever the locale.

    A socket that became fd 0 would be taken for standard input.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8")
    if sys.stdout.encoding != "utf-8":
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]


def _flush(status: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return status or 141
    except OSError as error:
        sys.stderr.write(f"{PROGRAM}: write /dev/stdout: {error.strerror}\n")
        status = status or 1
    sys.stderr.flush()
    return status


def execute(argv: Sequence[str], environ: dict[str, str]) -> int:
    """Carry out one command line; the exit status."""
    try:
        return _dispatch(argv, environ)
    except CommandError as error:
        _tell(error)
        return error.status
    except BrokenPipeError:
        return 141
    except KeyboardInterrupt:
        return INTERRUPTED
    except (LookupError, TypeError, ValueError, AttributeError, OSError, RecursionError) as error:
        if "-D" in argv or "--debug" in argv:
            raise
        _tell(_unexpected(error))
        return 1


def _unexpected(error: Exception) -> CommandError:
    """One line for what nobody foresaw: an engine whose answers have another shape, a full disk."""
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        return CommandError(f"{(error.strerror or str(error)).lower()}{where}", prefix=True)
    return CommandError(
        f"cannot make sense of the engine's answer ({type(error).__name__}: {error})",
        hint="sampan -D … shows where",
        prefix=True,
    )


def _tell(error: CommandError) -> None:
    sys.stdout.flush()
    if error.message:
        lead = f"{PROGRAM}: " if error.prefix else ""
        sys.stderr.write(f"{lead}{error.message}\n")
    if error.hint:
        sys.stderr.write(f"{error.hint}\n")


def _dispatch(argv: Sequence[str], environ: dict[str, str]) -> int:
    try:
        top = flags.parse(table.GLOBAL_FLAGS, argv, interspersed=False)
    except flags.HelpWanted:
        return _help([])
    except FlagError as error:
        error.hint = f"Run '{PROGRAM} --help' for more information"
        raise
    _refuse_globals(top)
    if top["config"]:  # where the credentials of registries are
        environ["DOCKER_CONFIG"] = os.environ["DOCKER_CONFIG"] = str(top["config"])
    if top["version"]:
        from sampan import __version__

        sys.stdout.write(f"Sampan version {__version__}\n")
        return 0
    if not top.args:
        return _help([])
    if top.args[0] in ("help", "__complete"):
        return _special(top, environ)
    return _command(top, environ)


def _refuse_globals(top: flags.Parsed) -> None:
    if top["context"] not in ("", "default"):
        raise CommandError(f'context "{top["context"]}" not found: only "default" exists')
    if top["tls"] or top["tlsverify"]:
        raise CommandError("TLS is not supported yet: use a unix socket or plain tcp://")


def _special(top: flags.Parsed, environ: dict[str, str]) -> int:
    if top.args[0] == "help":
        return _help(top.args[1:])
    from sampan.cli import completion

    return completion.complete(top.args[1:], environ)


def _help(words: list[str]) -> int:
    from sampan.cli import helptext

    sys.stdout.write(helptext.for_words(PROGRAM, words))
    return 0


def _command(top: flags.Parsed, environ: dict[str, str]) -> int:
    words = top.args
    found = table.find(words)
    if found is None:
        return _not_a_command(words)
    name, row, taken = found
    shown = " ".join(words[:taken])
    module = table.load(row)
    if name == "daemon":
        return int(module.forward(words[taken:]))
    try:
        parsed = flags.parse(module.FLAGS, words[taken:], interspersed=not row[5])
    except flags.HelpWanted as wanted:
        sys.stdout.write(wanted.notice)
        return _help(words[:taken])
    except FlagError as error:
        error.hint = f"Run '{PROGRAM} {shown} --help' for more information"
        raise
    _check_count(shown, row[2], len(parsed.args))
    call = Call(PROGRAM, name, parsed, environ)
    call.hosts = top["host"]
    return int(module.run(call))


def _check_count(shown: str, bounds: tuple[int, int], count: int) -> None:
    least, most = bounds
    if count >= least and (most < 0 or count <= most):
        return
    if most == 0:
        problem = "accepts no arguments"
    elif least == most:
        problem = f"requires {least} {_plural(least)}"
    elif least and most > 0:
        problem = f"requires at least {least} and at most {most} {_plural(most)}"
    elif count < least:
        problem = f"requires at least {least} {_plural(least)}"
    else:
        problem = f"requires at most {most} {_plural(most)}"
    raise CommandError(
        f"'{PROGRAM} {shown}' {problem}",
        hint=f"Run '{PROGRAM} {shown} --help' for more information",
        prefix=True,
    )


def _plural(count: int) -> str:
    return "argument" if count == 1 else "arguments"


def _not_a_command(words: list[str]) -> int:
    group = words[0] if words[0] in table.MANAGEMENT else ""
    rest = words[1:] if group else words
    if group and (not rest or rest[0] in ("--help", "-h")):
        return _help([group])
    unknown = f"{PROGRAM} {group} {rest[0]}" if group else f"{PROGRAM} {rest[0]}"
    shown = f"{PROGRAM} {group}" if group else PROGRAM
    raise CommandError(
        f"unknown command: {unknown}",
        hint=f"Run '{shown} --help' for more information",
        prefix=True,
    )


if __name__ == "__main__":
    main()
