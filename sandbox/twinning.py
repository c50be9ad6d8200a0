"""Makes the twin of a dataset version: a worker measures and seals, one transaction notes what it cost.

Source:    the two environments (测试/生产双环境); the budget: ``catalog.twin.budget``.
Security:  a version is measured once. Its budget stands in the catalogue from then on, also after the twin is gone,
           and a twin that is made anew is made from the same measurements. Measurements that never got here were seen
           by nobody and cost nothing.
Errors:    ``WrongState`` for another budget than the version was measured under, or a version that is destroyed.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, Row, insert, select, update

from sandbox import custody, signed
from sandbox.catalog import entries, twin_rows, vault
from sandbox.catalog.test_rows import TWINS, twin_key
from sandbox.chores import chore
from sandbox.errors import InvalidSpec, WrongState
from sandbox.ledger import Ledger
from sandbox.model import DatasetRef, Environment, TwinOrder
from sandbox.runner import Runner
from sandbox.store import twins

MOST_ROWS: Final = 1_000_000
MOST_EPSILON_MILLI: Final = 10_000


class Twinning:
    """Twins of this node's datasets."""

    def __init__(self, ledger: Ledger, runner: Runner) -> None:
        self._ledger, self._runner = ledger, runner
        self._one_at_a_time = asyncio.Lock()

    async def make(self, order: TwinOrder, actor: str, remember: Callable[[Connection], None]) -> None:
        """Make a twin, or make it anew.

        Raises:
            InvalidSpec, NotFound, WrongState: there cannot be such a twin.
        """
        if not 0 <= order.rows <= MOST_ROWS:
            raise InvalidSpec(tell=f"rows must be 0 to {MOST_ROWS}")
        ledger = self._ledger

        def look(conn: Connection) -> tuple[Row[Any], Row[Any] | None]:
            remember(conn)
            row = entries.find(conn, order.code, order.version)
            if row.state != "active":
                raise WrongState(tell=f"dataset {order.code} version {order.version} is destroyed")
            return row, conn.execute(select(twins).where(_same(order))).one_or_none()

        async with self._one_at_a_time:
            row, held = await ledger.write(look)
            known = bytes(held.measurements) if held is not None else b""
            _check_again(order, held)
            making = ledger.home / "twins-making"  # beside the one there is, which stays if this fails
            ticket = {
                **custody.opening(ledger, row),
                "code": order.code,
                "version": order.version,
                "place": str(making),
                "test_key": twin_key(ledger.home).hex(),
                "epsilon_milli": order.epsilon_milli,
                "rows": held.rows if held is not None else order.rows or min(row.rows, MOST_ROWS),
            }
            await asyncio.to_thread(shutil.rmtree, making, ignore_errors=True)  # what a crash left
            report, measurements = twin_rows.unpacked(await chore(self._runner, "twin", ticket, known))

            def note(conn: Connection) -> None:
                if entries.find(conn, order.code, order.version).state != "active":
                    raise WrongState(tell=f"dataset {order.code} version {order.version} was destroyed meanwhile")
                made = {
                    "rows": report["rows"],
                    "content_hash": bytes.fromhex(report["content_hash"]),
                    "wrapped_key": bytes.fromhex(report["wrapped_key"]),
                    "measurements": measurements,
                    "created_ms": signed.now_ms(),
                }
                if held is None:
                    spent = {"code": order.code, "version": order.version, "epsilon_milli": order.epsilon_milli}
                    conn.execute(insert(twins).values(**spent, **made))
                else:
                    conn.execute(update(twins).where(_same(order)).values(**made))
                charged = 0 if known else order.epsilon_milli
                facts = {"code": order.code, "version": str(order.version), "epsilon_milli": str(charged)}
                facts |= {"rows": str(report["rows"]), "content_hash": report["content_hash"]}
                ledger.enter_other(conn, "twin", actor, facts)
                custody.check_unused(conn, DatasetRef(order.code, order.version), Environment.TEST)
                custody.drop_twin(ledger, order.code, order.version)
                made_at = vault.version_dir(making, order.code, order.version)
                place = vault.version_dir(ledger.home / TWINS, order.code, order.version)
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                made_at.rename(place)

            try:
                await ledger.write(note)
            finally:
                await asyncio.to_thread(shutil.rmtree, making, ignore_errors=True)


def check_budget(epsilon_milli: int, is_optional: bool = False) -> None:
    """Raise ``InvalidSpec`` for a privacy budget under which nothing is measured here."""
    if not (1 <= epsilon_milli <= MOST_EPSILON_MILLI or (is_optional and epsilon_milli == 0)):
        raise InvalidSpec(tell=f"epsilon_milli must be 1 to {MOST_EPSILON_MILLI}")


def _check_again(order: TwinOrder, held: Row[Any] | None) -> None:
    """A version is measured once, and its twin has always the same rows: jobs in the test environment build on them."""
    if held is None:
        check_budget(order.epsilon_milli)
    elif order.epsilon_milli not in (0, held.epsilon_milli):
        raise WrongState(
            tell=f"this version was measured under a budget of {held.epsilon_milli} thousandths already",
            hint="a version is measured once: ask for the twin without a budget, or register a new version",
        )
    elif order.rows not in (0, held.rows):
        raise WrongState(tell=f"the twin has {held.rows} rows, and keeps them", hint="ask for it without rows")


def _same(order: TwinOrder) -> Any:
    return (twins.c.code == order.code) & (twins.c.version == order.version)
