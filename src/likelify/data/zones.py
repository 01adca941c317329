"""Moments in time zones: seconds since the start of 1970 in UTC, and by the clocks of a place."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


def by_clocks(seconds: np.ndarray, zone: str) -> np.ndarray:
    """Return what the clocks of a zone show at moments in UTC, in seconds; NaN where one is missing.

    Raises:
        DataError: if there is no such zone.
    """
    import pyarrow as pa
    from pyarrow import compute

    pc: Any = compute
    try:
        micros = np.rint(np.where(np.isnan(seconds), 0.0, seconds) * 1e6).astype(np.int64)
        moments = pa.array(micros, pa.int64(), mask=np.isnan(seconds)).cast(pa.timestamp("us", zone))
        local = pc.local_timestamp(moments)
    except pa.ArrowInvalid as error:
        raise DataError(f"The time zone '{zone}' is not known on this machine: {error}") from error
    return local.cast(pa.int64()).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) / 1e6


def of_clocks(shown: np.ndarray, zone: str) -> pa.Array:
    """Return the moments at which the clocks of a zone show dates and times of numpy; null where one is missing.

    An hour that there is twice, when clocks are put back, is the first; one that there is not, when they are put
    forward, is the moment at which they are.

    Raises:
        DataError: if there is no such zone.
    """
    import pyarrow as pa
    from pyarrow import compute

    pc: Any = compute
    local = pa.array(shown.astype("M8[us]"), pa.timestamp("us"))
    try:
        return pc.assume_timezone(local, zone, ambiguous="earliest", nonexistent="latest")
    except pa.ArrowInvalid as error:
        raise DataError(f"The time zone '{zone}' is not known on this machine: {error}") from error


def at_clock(moment: datetime, zone: str | None) -> datetime:
    """Return what clocks show at a moment: those of a zone, or of UTC without one; moments of no zone are left.

    Raises:
        DataError: if there is no such zone.
    """
    return moment if moment.tzinfo is None else moment.astimezone(_zone(zone)).replace(tzinfo=None)


def _zone(name: str | None) -> tzinfo:
    from zoneinfo import ZoneInfo

    if name is None:
        return UTC
    try:
        offset = datetime.strptime(name, "%z").tzinfo if name[0] in "+-" else None
        return offset or ZoneInfo(name)
    except (ValueError, OSError, LookupError) as error:
        raise DataError(f"The time zone '{name}' is not known on this machine: {error}") from error
