"""`sampand`: reads the options, starts the zygote first, opens the engine, serves the API.

options → locks → zygote → engine → listeners → READY
SIGTERM, SIGINT   stop serving, let go of the engine; containers run on
SIGHUP            read the configuration file again
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sampan.daemon import logging as daemon_logging
from sampan.daemon import options as daemon_options
from sampan.daemon.listeners import Listener, listen
from sampan.daemon.locks import DataRootLock, PidFile
from sampan.daemon.memory import share_one_arena
from sampan.daemon.notify import notify
from sampan.daemon.options import Options
from sampan.errors import SampanError

if TYPE_CHECKING:
    from sampan.api.server import ApiServer
    from sampan.engine.engine import Engine

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon until it is told to stop; the process's exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = daemon_options.parse(given)
        if options.validate:
            print("configuration OK")
            return 0
        daemon_logging.set_up("debug" if options.debug else options.log_level)
        return run(options, given)
    except SampanError as failure:
        print(f"sampand: {failure.message}", file=sys.stderr)
        if failure.hint:
            print(f"  {failure.hint}", file=sys.stderr)
        return 1


def run(options: Options, arguments: Sequence[str] = ()) -> int:
    """Take the locks and serve.

    Raises:
        SampanError: the daemon cannot start, and why.
    """
    if os.geteuid() != 0:
        from sampan.errors import Unsupported

        raise Unsupported("the engine has to be started as root", hint="use sudo")
    os.umask(0o022)
    share_one_arena()
    with contextlib.ExitStack() as held:
        held.callback(DataRootLock(options.data_root).close)
        held.callback(PidFile(options.pid_path).close)
        # Clients may connect from here on; they are answered when the engine is open.
        listeners = listen(options.listen_on, group=options.group)
        for listener in listeners:
            held.callback(listener.close)
        asyncio.run(Daemon(options, arguments, listeners).run())
    return 0


class Daemon:
    """The running daemon."""

    def __init__(
        self, options: Options, arguments: Sequence[str], listeners: Sequence[Listener]
    ) -> None:
        self._options = options
        self._listeners = listeners
        self._arguments = arguments
        self._stopping = asyncio.Event()
        self._engine: Engine | None = None

    async def run(self) -> None:
        """Serve until a signal says stop."""
        # The zygote first: it forks, so it shares nothing with what is imported and opened below.
        from sampan.shim.client import Zygote

        os.makedirs(self._options.exec_root, mode=0o711, exist_ok=True)
        zygote = Zygote(run_directory=self._options.exec_root, on_restart=_zygote_died)
        await zygote.start()
        # Behind the zygote's start: what containers get of these does not follow the daemon's.
        allow_open_files()
        set_oom_score(self._options.oom_score_adjust)
        for name, value in self._options.proxies:
            os.environ[name.replace("-", "_").upper()] = value
        self._handle_signals()

        from sampan.api.application import docker_api
        from sampan.engine.engine import Engine

        try:
            engine = await Engine.open(self._options.for_engine(), zygote)
        except BaseException:
            await zygote.stop()
            raise
        self._engine = engine
        try:
            await self._serve(docker_api(engine))
        finally:
            await engine.close()

    async def _serve(self, api: ApiServer) -> None:
        loop = asyncio.get_running_loop()
        servers = [
            await loop.create_server(api.protocol_factory(), sock=listener.socket)
            for listener in self._listeners
        ]
        _warn_of_tcp(self._listeners)
        for host in dict.fromkeys(listener.host for listener in self._listeners):
            log.info("API listen on %s", host)
        # What is there now stays; the collector need not look at it again.
        gc.collect()
        gc.freeze()
        notify("READY=1")
        await self._stopping.wait()
        notify("STOPPING=1")
        for server in servers:
            server.close()
        for listener in self._listeners:
            listener.close()
        timeout_s = self._options.shutdown_timeout_s
        await api.close(None if timeout_s < 0 else timeout_s)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _stop(self, number: int) -> None:
        log.info("%s: stopping; containers run on", signal.Signals(number).name)
        self._stopping.set()

    def _reload(self) -> None:
        """Read the configuration file again. What cannot change while running is said."""
        try:
            new = daemon_options.parse(self._arguments)
        except SampanError as failure:
            log.error("configuration not reloaded: %s", failure.message)
            return
        needing_restart = [
            name
            for name in daemon_options.changed(self._options, new)
            if name not in daemon_options.RELOADED
        ]
        if self._engine is not None:
            self._engine.reload(new.for_engine())
        daemon_logging.set_level("debug" if new.debug else new.log_level)
        self._options = replace(
            self._options, **{name: getattr(new, name) for name in daemon_options.RELOADED}
        )
        if needing_restart:
            log.warning("changed, and used after a restart: %s", ", ".join(needing_restart))
        log.info("configuration reloaded")


def set_oom_score(adjustment: int) -> None:
    """How soon the kernel kills the daemon when memory is short; see proc_pid_oom_score_adj(5).

    Raises:
        InvalidArgument: the daemon may not set it: CAP_SYS_RESOURCE is missing.
    """
    if not adjustment:
        return
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(adjustment))
    except OSError as error:
        from sampan.errors import InvalidArgument

        raise InvalidArgument(f"oom-score-adjust {adjustment}: {error.strerror}") from error


def allow_open_files() -> None:
    """Use the hard limit of open files: each running container holds some."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _zygote_died(status: int) -> None:
    log.error("the fork server ended (wait status %d) and is replaced", status)


def _warn_of_tcp(listeners: Sequence[Listener]) -> None:
    for host in dict.fromkeys(item.host for item in listeners):
        if not host.startswith(("unix://", "/")):
            log.warning(
                "%s: the API is open to everybody who reaches this address, without encryption; "
                "whoever uses it is root on this machine",
                host,
            )


if __name__ == "__main__":
    sys.exit(main())
