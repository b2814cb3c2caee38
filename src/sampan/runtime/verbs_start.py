"""The verbs that begin something: create, run, start, exec."""

from __future__ import annotations

import os
import time

from sampan import jsontext
from sampan.errors import Conflict, InvalidArgument, RuntimeFailure, SampanError
from sampan.linux import pidfd, pty, seqpacket
from sampan.runtime import control, hooks, launch, process
from sampan.runtime.store import Record, write_atomically

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.runtime.dispatch import Context
    from sampan.runtime.foreground import Signals
    from sampan.runtime.launch import Container
    from sampan.runtime.options import Values


def create(context: Context, options: Values, arguments: list[str]) -> int:
    """`create ID`: everything but the start of the program."""
    container_id = _one(arguments)
    config, bundle = _read_bundle(options)
    _check_console(config, options, detached=True)
    record, _ = _create(context, options, container_id, config, bundle)
    del record
    return 0


def run(context: Context, options: Values, arguments: list[str]) -> int:
    """`run ID`: create, start and, unless detached, wait, pass signals on and delete."""
    container_id = _one(arguments)
    config, bundle = _read_bundle(options)
    detached = options.flag("detach")
    _check_console(config, options, detached=detached)
    _take_our_size(config.get("process") or {})
    signals = None if detached else _catch_signals()
    record, container = _create(context, options, container_id, config, bundle)
    from sampan.runtime import verbs

    try:
        start_record(context, record)
        if signals is None:
            return 0
        return _attend(signals, container.pid, container.pidfd, container.console_fd)
    except BaseException:
        if detached:
            verbs.remove(context, record, force=True)
        raise
    finally:
        if not detached and not options.flag("keep"):
            verbs.remove(context, record, force=True)


def start(context: Context, options: Values, arguments: list[str]) -> int:
    """`start ID`: let a created container's program run."""
    del options
    record = context.store.load(_one(arguments))
    status = record.status()
    if status == control.STOPPED:
        raise Conflict("cannot start a container that has stopped")
    if status != control.CREATED:
        raise Conflict("cannot start an already running container")
    start_record(context, record)
    return 0


def start_record(context: Context, record: Record) -> None:
    """Tell init to go on, see that the program runs, and run the poststart hooks."""
    try:
        sock = seqpacket.connect(record.start_socket)
    except OSError as error:
        raise RuntimeFailure("start", "the container's init process has ended") from error
    try:
        launch.start_over(sock)
    finally:
        sock.close()
        os.unlink(record.start_socket)
    table = record.config.get("hooks") or {}
    if table.get("poststart"):
        try:
            hooks.run_hooks("poststart", table["poststart"], _hook_state(record, "running"))
        except RuntimeFailure as failure:
            context.warn(failure.message)  # config.md: log a warning, the rest continues


def _hook_state(record: Record, status: str) -> dict[str, Any]:
    config = record.config
    version = config.get("ociVersion") or ""
    return hooks.state_document(
        record.id, status, record.pid, record.bundle, config.get("annotations"), version
    )


def execute(context: Context, options: Values, arguments: list[str]) -> int:
    """`exec ID COMMAND…`: a further process; the exit code is the process's own."""
    if not arguments or (len(arguments) < 2 and not options.text("process")):
        raise InvalidArgument("exec needs a container ID and a command or --process")
    record = context.store.load(arguments[0])
    _check_running(record, options)
    raw = _process(record, options, arguments[1:])
    detached = options.flag("detach")
    terminal = bool(raw.get("terminal"))
    _check_terminal(terminal, options, detached=detached)
    _take_our_size(raw)
    preserve = options.number("preserve-fds") or 0
    signals = None if detached else _catch_signals()
    done = process.execute(
        record.pid,
        raw,
        config=record.config,
        stdio=None if terminal else (0, 1, 2),
        container_id=record.id,
        cgroup=record.cgroup(),
        preserve_fds=preserve,
        die_with_parent=False,
    )
    _warn(context, done.warnings)
    _hand_over(done.console_fd, options)
    if pid_file := options.text("pid-file"):
        write_atomically(pid_file, str(done.pid).encode(), 0o644)
    if signals is None:
        return 0
    return _attend(signals, done.pid, done.pidfd, done.console_fd)


def _catch_signals() -> Signals:
    from sampan.runtime import foreground  # with `signal` and `termios`: not for a detached start

    return foreground.Signals()


def _attend(signals: Signals, pid: int, fd: int, console_fd: int | None) -> int:
    from sampan.runtime import foreground

    return foreground.attend(signals, pid, fd, console_fd)


def _check_running(record: Record, options: Values) -> None:
    status = record.status()
    if status == control.STOPPED:
        raise Conflict("cannot exec in a stopped container")
    if status == control.PAUSED and not options.flag("ignore-paused"):
        raise Conflict("cannot exec in a paused container (use --ignore-paused to override)")


def _process(record: Record, options: Values, words: list[str]) -> dict[str, Any]:
    """The process to run: from --process, or the container's own changed by the options."""
    if path := options.text("process"):
        with open(path, encoding="utf-8") as file:
            loaded: dict[str, Any] = jsontext.decode(file.read())
        return loaded
    raw = dict(record.config.get("process") or {})
    raw["args"] = words
    raw["terminal"] = options.flag("tty")
    raw["env"] = [*(raw.get("env") or ()), *options.items("env")]
    if cwd := options.text("cwd"):
        raw["cwd"] = cwd
    if label := options.text("process-label"):
        raw["selinuxLabel"] = label
    if profile := options.text("apparmor"):
        raw["apparmorProfile"] = profile
    if options.flag("no-new-privs"):
        raw["noNewPrivileges"] = True
    raw["user"] = _user(dict(raw.get("user") or {}), options)
    if added := options.items("cap"):
        raw["capabilities"] = _with_capabilities(raw.get("capabilities") or {}, added)
    return raw


def _user(user: dict[str, Any], options: Values) -> dict[str, Any]:
    if given := options.text("user"):
        uid, _, gid = given.partition(":")
        if not uid.isdecimal() or (gid and not gid.isdecimal()):
            raise InvalidArgument(f"parsing {given} as an ID: a number is needed")
        user = {"uid": int(uid), "gid": int(gid) if gid else user.get("gid", 0)}
    if groups := options.items("additional-gids"):
        user["additionalGids"] = [*(user.get("additionalGids") or ()), *map(int, groups)]
    return user


def _with_capabilities(sets: dict[str, Any], added: list[str]) -> dict[str, Any]:
    grown = {name: list(names or ()) for name, names in sets.items()}
    for name in ("bounding", "effective", "permitted"):
        grown[name] = sorted({*grown.get(name, ()), *added})
    if grown.get("ambient"):
        grown["ambient"] = sorted({*grown["ambient"], *added})
    return grown


def _one(arguments: list[str]) -> str:
    if len(arguments) != 1:
        raise InvalidArgument(f'exactly 1 argument is needed, a container ID; got "{arguments}"')
    return arguments[0]


def _read_bundle(options: Values) -> tuple[dict[str, Any], str]:
    bundle = os.path.abspath(options.text("bundle") or ".")
    path = os.path.join(bundle, "config.json")
    try:
        with open(path, encoding="utf-8") as file:
            config: dict[str, Any] = jsontext.decode(file.read())
    except FileNotFoundError:
        raise InvalidArgument(f"JSON specification file {path} not found") from None
    except ValueError as error:
        raise InvalidArgument(f"{path}: {error}") from None
    return config, bundle


def _check_console(config: dict[str, Any], options: Values, *, detached: bool) -> None:
    _check_terminal(bool((config.get("process") or {}).get("terminal")), options, detached=detached)


def _check_terminal(terminal: bool, options: Values, *, detached: bool) -> None:
    given = bool(options.text("console-socket"))
    if detached and terminal and not given:
        raise InvalidArgument(
            "cannot allocate tty if sampan-oci will detach without setting console socket"
        )
    if given and not (detached and terminal):
        raise InvalidArgument(
            "cannot use console socket if sampan-oci will not detach or allocate tty"
        )


def _create(
    context: Context, options: Values, container_id: str, config: dict[str, Any], bundle: str
) -> tuple[Record, Container]:
    directory = context.store.make(container_id)
    try:
        return _create_in(context, options, container_id, config, bundle, directory)
    except BaseException:
        context.store.remove(container_id)
        raise


def _create_in(
    context: Context,
    options: Values,
    container_id: str,
    config: dict[str, Any],
    bundle: str,
    directory: str,
) -> tuple[Record, Container]:
    cgroup_path = _give_cgroup(context, config, container_id)
    record = Record(
        id=container_id,
        directory=directory,
        bundle=bundle,
        config=config,
        cgroup_path=cgroup_path,
        systemd=context.systemd_cgroup,
        created=_now(),
    )
    terminal = bool((config.get("process") or {}).get("terminal"))
    listener = seqpacket.listen(record.start_socket)
    preserve = (options.number("preserve-fds") or 0) + _pass_listen_fds(config)
    container = launch.create(
        launch.Launch(
            container_id=container_id,
            bundle=bundle,
            config=config,
            stdio=None if terminal else (0, 1, 2),
            preserve_fds=preserve,
            no_pivot=options.flag("no-pivot"),
            no_new_keyring=options.flag("no-new-keyring"),
            systemd_cgroup=context.systemd_cgroup,
            die_with_parent=False,
            start_listener=listener,
        )
    )
    listener.close()
    try:
        record.pid = container.pid
        record.start_time = pidfd.start_time(container.pid)
        record.save()
        _warn(context, container.warnings)
        _hand_over(container.console_fd, options)
        if pid_file := options.text("pid-file"):
            write_atomically(pid_file, str(container.pid).encode(), 0o644)
    except BaseException as error:
        container.undo(error)
        raise
    return record, container


def _give_cgroup(context: Context, config: dict[str, Any], container_id: str) -> str:
    """The container's cgroup; one that the configuration does not name is called as the container."""
    linux = config.setdefault("linux", {})
    path: str = linux.get("cgroupsPath") or ""
    if not path:
        path = f":sampan:{container_id}" if context.systemd_cgroup else f"/{container_id}"
        linux["cgroupsPath"] = path
    return path


def _pass_listen_fds(config: dict[str, Any]) -> int:
    """Socket activation: hand the descriptors of sd_listen_fds(3) on, and say so inside."""
    text = os.environ.get("LISTEN_FDS") or ""
    if not text.isdecimal() or not int(text):
        return 0
    process_config = config.setdefault("process", {})
    process_config["env"] = [
        *(process_config.get("env") or ()),
        f"LISTEN_FDS={text}",
        "LISTEN_PID=1",
    ]
    return int(text)


def _take_our_size(raw: dict[str, Any]) -> None:
    """Begin a terminal with the size of the one that we are on, if it is to have none other."""
    if raw.get("terminal") and not raw.get("consoleSize") and os.isatty(0):
        rows, columns = pty.size(0)
        raw["consoleSize"] = {"height": rows, "width": columns}


def _hand_over(console_fd: int | None, options: Values) -> None:
    """Send a console's master to whoever listens at --console-socket; see runc, terminals.md."""
    path = options.text("console-socket")
    if console_fd is None or not path:
        return
    try:
        sock = seqpacket.connect(path, stream=True)
    except OSError as error:
        raise SampanError(f"connect to console socket {path}: {error.strerror}") from error
    try:
        seqpacket.send(sock, b"/dev/ptmx", (console_fd,))
    finally:
        sock.close()


def _warn(context: Context, warnings: list[str]) -> None:
    for warning in warnings:
        context.warn(warning)


def _now() -> str:
    nanoseconds = time.time_ns()
    seconds, rest = divmod(nanoseconds, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


HANDLERS: dict[str, Callable[[Context, Values, list[str]], int]] = {
    "create": create,
    "exec": execute,
    "run": run,
    "start": start,
}
