"""The signal functions of the C module: `signal` itself wraps them in enums, 3 ms of imports."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as raw
else:
    import _signal as raw

__all__ = ["raw"]
