"""The live view of a run: charts that grow without being redrawn, samples, log, and what to do next.

The work is in ``assets/js/live.js``; this is only its place on the page.
"""

from __future__ import annotations

from typing import Any

from components.ids import eid
from components.widgets import mounted


def build(tab: str, run: str = "") -> Any:
    """A live view on ``tab``; its value is the run's id."""
    return mounted("live", eid(tab, "live"), run, ["st-live"], tab=tab)
