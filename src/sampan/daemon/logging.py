"""The daemon's log on stderr, in dockerd's form: `time="…" level=info msg="…"`."""

from __future__ import annotations

import json
import logging
import re
import time

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}
_NAMES = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "fatal",
}


# What a terminal or a reader of lines might act on: C0 and C1 controls, Unicode's line ends, marks
# that turn the direction of writing. JSON escapes only the first.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LONGEST = 16 << 10  # characters of a message, or of one line of a traceback


class LogfmtFormatter(logging.Formatter):
    """One line a record; a traceback follows, its lines indented, so that none passes for a record.

    What comes from clients, in messages or in the text of an exception, cannot forge or colour
    lines: control characters are escaped, a message of enormous length is cut.
    """

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = (
            f'time="{moment}.{int(record.msecs):03}Z" '
            f"level={_NAMES.get(record.levelno, 'info')} "
            f"msg={_quoted(record.getMessage())}"
        )
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            line = "\n    ".join([line, *(_escaped(_cut(part)) for part in trace.split("\n"))])
        return line


def _quoted(message: str) -> str:
    return _escaped(json.dumps(_cut(message), ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


def _escaped(text: str) -> str:
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def set_up(level: str) -> None:
    """Log to stderr from `level` on."""
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(LogfmtFormatter())
        root.addHandler(handler)
    set_level(level)


def set_level(level: str) -> None:
    """Change the level while running."""
    logging.getLogger().setLevel(LEVELS[level])
    # asyncio's own debug line at each start says nothing of ours.
    logging.getLogger("asyncio").setLevel(max(LEVELS[level], logging.INFO))
