"""The daemon's log on stderr, in dockerd's form: `time="…" level=info msg="…"`."""

from __future__ import annotations

import json
import logging
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


class LogfmtFormatter(logging.Formatter):
    """One line a record; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = (
            f'time="{moment}.{int(record.msecs):03}Z" '
            f"level={_NAMES.get(record.levelno, 'info')} "
            f"msg={json.dumps(record.getMessage(), ensure_ascii=False)}"
        )
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


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
