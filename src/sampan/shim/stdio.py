"""Standard streams of one process: its pipes or terminal, its log, its clients.

Output is read as soon as it is there, logged, and sent to every client. A client that does not take it
may fall behind by HIGH_WATER_BYTES; then nothing is read until it has caught up or left, so that the
process itself waits, as under dockerd: no byte is dropped and memory is bounded.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios

from sampan.shim.clients import STDERR, STDOUT, Client, write_some
from sampan.shim.loop import READ, WRITE
from sampan.shim.protocol import ENDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sampan.logs.drivers import LogWriter
    from sampan.shim.loop import Loop
    from sampan.shim.protocol import StreamOptions

SMALL_READ_BYTES = 64 * 1024
LARGE_READ_BYTES = 1024 * 1024
PIPE_BYTES = 1024 * 1024  # fs.pipe-max-size by default
HIGH_WATER_BYTES = 4 * 1024 * 1024
LOW_WATER_BYTES = 1024 * 1024
INPUT_HIGH_WATER_BYTES = 64 * 1024
TIOCGPTPEER = 0x5441  # asm-generic/ioctls.h
LOG_NAMES = {STDOUT: "stdout", STDERR: "stderr"}


class Stdio:
    """What a process reads and writes.

    Lifecycle: `start` begins to pump, `drain` when the process has ended takes what is left,
    `finish` sends the clients away when they have it all.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        terminal: bool,
        stdin_once: bool,
        on_log_lost: Callable[[OSError], None] | None = None,
    ) -> None:
        self._loop = loop
        self._terminal = terminal
        self._log: LogWriter | None = None
        self._on_log_lost = on_log_lost
        self._started = False
        self._input: Input | None = None
        self._outputs: list[Output] = []
        self._console = -1
        self._peer = -1
        self._paused = False
        self._early_input: list[bytes] = []
        self.passes_end_of_input = stdin_once and not terminal
        self.clients: list[Client] = []

    def use_log(self, log: LogWriter) -> None:
        """Write all output to `log`, which is owned from here."""
        self._log = log

    def start(self, fds: Sequence[int]) -> None:
        """The process is there: own our ends of its pipes or its terminal's master, and serve them.

        `fds` are as `pipes.open_pipes` gives ours, or [master] for a terminal.
        """
        if self._terminal:
            self._take_console(fds[0])
        else:
            *inputs, out, err = fds
            if inputs:
                self._input = Input(self._loop, inputs[0], self.update_clients)
            self._outputs.append(Output(self._loop, out, STDOUT, self._take_output))
            self._outputs.append(Output(self._loop, err, STDERR, self._take_output))
        self._started = True
        for output in self._outputs:
            output.start()
        for data in self._early_input:
            self.feed(data)
        self._early_input.clear()
        self.update_clients()

    def _take_console(self, console: int) -> None:
        self._console = console
        # A slave of our own, so that the master does not report a hang-up while nobody else has it open.
        self._peer = fcntl.ioctl(
            console, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK
        )
        writer = fcntl.fcntl(console, fcntl.F_DUPFD_CLOEXEC, 0)
        self._input = Input(self._loop, writer, self.update_clients)
        self._outputs.append(Output(self._loop, console, STDOUT, self._take_output))

    def attach(self, fd: int, options: StreamOptions, on_end: Callable[[str], None]) -> None:
        """Serve a client's socket; it is owned from here."""
        client = Client(self._loop, fd, options, self, on_end)
        self.clients.append(client)
        client.begin()

    def resize(self, rows: int, columns: int) -> None:
        if self._console >= 0:
            set_size(self._console, rows, columns)

    @property
    def has_output(self) -> bool:
        """Whether somebody still holds the other end of a pipe or the terminal."""
        return any(output.is_open for output in self._outputs)

    # Input

    @property
    def wants_input(self) -> bool:
        """Whether clients should be read: the process has room, or takes no input at all."""
        return self._started and (self._input is None or self._input.has_room)

    def feed(self, data: bytes) -> None:
        """Input for the process; dropped when it reads none (any more)."""
        if self._input is not None:
            self._input.feed(data)
        elif not self._started:
            self._early_input.append(data)

    def end_input(self) -> None:
        """The process reads end-of-file after what was fed."""
        if self._input is not None:
            self._input.end()

    def update_clients(self) -> None:
        for client in list(self.clients):
            client.update()

    # Output

    def _take_output(self, number: int, chunk: bytes) -> None:
        if self._log is not None:
            try:
                self._log.write(LOG_NAMES[number], chunk)
            except OSError as error:
                self._lose_log(error)
        for client in list(self.clients):
            client.send(number, chunk)
        if not self._paused and any(c.pending_bytes > HIGH_WATER_BYTES for c in self.clients):
            self._paused = True
            for output in self._outputs:
                output.pause()

    def _lose_log(self, error: OSError) -> None:
        if self._on_log_lost is not None:
            report, self._on_log_lost = self._on_log_lost, None
            report(error)

    def client_took(self, client: Client) -> None:
        """A client has caught up somewhat, or left."""
        if self._paused and all(c.pending_bytes <= LOW_WATER_BYTES for c in self.clients):
            self._paused = False
            for output in self._outputs:
                output.resume()

    def client_ended(self, client: Client) -> None:
        if client in self.clients:
            self.clients.remove(client)
        self.client_took(client)

    # The end

    def drain(self) -> None:
        """The process has ended: take all it wrote, whatever the clients' pace."""
        if self._peer >= 0:
            os.close(self._peer)
            self._peer = -1
        for output in self._outputs:
            output.drain()
        self._console = self._console if self.has_output else -1
        if self._input is not None:
            self._input.close()

    def finish_log(self) -> None:
        """Complete the log and close it."""
        if self._log is None:
            return
        for number in (STDOUT, STDERR):
            try:
                self._log.finish(LOG_NAMES[number])
            except OSError as error:
                self._lose_log(error)
        self._log.close()
        self._log = None

    def finish(self, reason: str = ENDED) -> None:
        """Close the clients' sockets as soon as each has got all; later output is dropped."""
        for client in list(self.clients):
            client.finish(reason)

    def abort(self) -> None:
        """The process could not be started: send the clients away."""
        self.finish()

    def close_outputs(self) -> None:
        for output in self._outputs:
            output.close()


def set_size(terminal: int, rows: int, columns: int) -> None:
    """Set a terminal's window size; the foreground processes get SIGWINCH."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Output:
    """Reads one pipe or terminal master as long as somebody may write to it."""

    __slots__ = ("_fd", "_loop", "_number", "_read_bytes", "_started", "_take")

    def __init__(
        self, loop: Loop, fd: int, number: int, take: Callable[[int, bytes], None]
    ) -> None:
        os.set_blocking(fd, False)
        self._loop = loop
        self._fd = fd
        self._number = number
        self._take = take
        self._read_bytes = SMALL_READ_BYTES
        self._started = False

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    def start(self) -> None:
        self._started = True
        self._loop.watch(self._fd, READ, self._on_events)

    def pause(self) -> None:
        if self._fd >= 0 and self._started:
            self._loop.forget(self._fd)  # not only masked: a hang-up is reported always
            self._started = False

    def resume(self) -> None:
        if self._fd >= 0 and not self._started:
            self.start()

    def _on_events(self, events: int) -> None:
        if self._fd >= 0:
            self._read()

    def _read(self) -> int:
        """Take what one read gives; its size, 0 when there is nothing (more)."""
        try:
            chunk = os.read(self._fd, self._read_bytes)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal whose slaves are all closed
                raise
            chunk = b""
        if not chunk:
            self.close()
            return 0
        if len(chunk) == SMALL_READ_BYTES:
            self._grow()
        self._take(self._number, chunk)
        return len(chunk)

    def _grow(self) -> None:
        """The writer is faster than we are: give it room, take more at a time."""
        self._read_bytes = LARGE_READ_BYTES
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass  # EPERM beyond fs.pipe-user-pages-soft, EBADF for a terminal: slower, not wrong

    def drain(self) -> None:
        """Take what is in the pipe now; more can only come from strangers that still hold it."""
        room = PIPE_BYTES
        while self._fd >= 0 and room > 0:
            taken = self._read()
            if not taken:
                break
            room -= taken

    def close(self) -> None:
        if self._fd >= 0:
            if self._started:
                self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1


class Input:
    """Writes to a process's standard input without ever waiting for it."""

    __slots__ = ("_ending", "_fd", "_loop", "_on_room", "_pending", "_pending_bytes")

    def __init__(self, loop: Loop, fd: int, on_room: Callable[[], None]) -> None:
        os.set_blocking(fd, False)
        self._loop = loop
        self._fd = fd
        self._on_room = on_room
        self._pending: list[memoryview] = []
        self._pending_bytes = 0
        self._ending = False

    @property
    def has_room(self) -> bool:
        return self._pending_bytes < INPUT_HIGH_WATER_BYTES

    def feed(self, data: bytes) -> None:
        if self._fd < 0 or self._ending:
            return
        view = memoryview(data)
        if not self._pending:
            try:
                view = view[write_some(self._fd, view) :]
            except OSError:  # EPIPE: the process closed its input
                self.close()
                return
            if view:
                self._loop.watch(self._fd, WRITE, self._on_events)
        if view:
            self._pending.append(view)
            self._pending_bytes += len(view)

    def _on_events(self, _: int) -> None:
        try:
            while self._pending:
                written = write_some(self._fd, self._pending[0])
                self._pending_bytes -= written
                if written < len(self._pending[0]):
                    self._pending[0] = self._pending[0][written:]
                    return
                self._pending.pop(0)
        except OSError:
            self.close()
            self._on_room()
            return
        self._loop.forget(self._fd)
        if self._ending:
            self.close()
        self._on_room()

    def end(self) -> None:
        """Close after what is pending."""
        if self._pending:
            self._ending = True
        else:
            self.close()

    def close(self) -> None:
        if self._fd >= 0:
            if self._pending:
                self._loop.forget(self._fd)
                self._pending.clear()
                self._pending_bytes = 0
            os.close(self._fd)
            self._fd = -1
