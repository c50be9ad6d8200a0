"""Which versions have been kept as long as was promised.

Units:     milliseconds since 1970, UTC; a day is 24 hours.
Not here:  destroying them (``vault.destroy``, with its receipt in the log).
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Connection, cast, select

from sandbox import signed
from sandbox.store import datasets


def due(conn: Connection, now_ms: int) -> list[tuple[str, int]]:
    """Return code and number of every active version whose time is up, the longest overdue first.

    A retention of 0 days has no end.
    """
    end = datasets.c.created_ms + cast(datasets.c.retention_days, BigInteger) * signed.DAY_MS
    found = select(datasets.c.code, datasets.c.version).where(
        datasets.c.state == "active", datasets.c.retention_days > 0, end <= now_ms
    )
    return [(row.code, row.version) for row in conn.execute(found.order_by(end, datasets.c.code, datasets.c.version))]
