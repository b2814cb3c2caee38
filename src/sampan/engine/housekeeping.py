"""What is looked after from time to time: old downloads, the disk budget, unused seccomp filters,
old events, records of containers that ended long ago."""

from __future__ import annotations

import asyncio
import logging
import sqlite3

from sampan.engine.events import EventBus
from sampan.engine.post_mortem import History
from sampan.engine.seccomp import Profiles
from sampan.errors import SampanError
from sampan.images.keeping.upkeep import Upkeep

log = logging.getLogger(__name__)

INTERVAL_S = 3600.0


class Housekeeping:
    """Tidies up when the engine opens and every hour after."""

    def __init__(
        self, upkeep: Upkeep, profiles: Profiles, events: EventBus, history: History
    ) -> None:
        self._upkeep = upkeep
        self._events = events
        self._history = history
        self._profiles = profiles
        self._timer: asyncio.TimerHandle | None = None

    def run(self) -> None:
        """Tidy up now, and again in an hour."""
        self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self.run)
        self._tidy()

    def _tidy(self) -> None:
        try:
            self._upkeep.tidy()
            self._profiles.drop_unused()
            self._events.tidy()
            self._history.tidy()
        except (SampanError, OSError, sqlite3.Error) as error:
            log.error("tidying up the data root: %s", error)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def set_budget(self, budget_bytes: int) -> None:
        """Let images take so many bytes; 0 for any number. What is over goes at once."""
        self._upkeep.budget_bytes = budget_bytes
        self._tidy()
