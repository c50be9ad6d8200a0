"""Would this release, beside an earlier one, tell something about a few people? Every number's group is remembered.

A new group and an earlier one of the same controller, both known exactly or both only as "some of all these":

    exact   own people differ     conflict if all who differ may be fewer than ``least``: own ones by the sketches,
                                  others' by their numbers
            own people the same   conflict if the sizes differ by 1 .. least-1: somebody else's few people
    whole   own sets differ       conflict if by fewer than ``least``, the sizes too, and a partner is the same
            own sets the same     conflict if the partners' data differ, and the sizes by 1 .. least-1; of sums also if
                                  by none, as one person may have come for another
            nothing of the two, if both jobs' groups are known exactly as well

Groups of one job are compared too: a margin with its cells.

Source:   query overlap control, Denning, Cryptography and Data Security (1982), chapter 6; here for pairs.
Security: that fewer than ``least`` of an owner's own people differ is never overlooked (``kinds.population``), except
          where it has fewer than ``least`` people in a group, and two groups have different names: those are mostly
          two cells. What three or more releases tell together is not looked for. ``docs/gate.md`` has the limits.
Reveals:  to the owner: which earlier job, which two groups, and "fewer than". Never how many, never who.
Units:    about 180 bytes of memory for each population noted. Memory is checked against the table each time: its last
          row is read again, rows since are added, and a row that a refusal names must still be there.
Errors:   none of its own; ``InvalidSpec`` on a sketch that is none.
Not here: how groups are sketched (``kinds.population``), which jobs are judged (the caller's).
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, Row, insert, select

from sandbox.kinds.population import SUMMED, WORDS, words
from sandbox.model import Population
from sandbox.store import released_populations as table

MOST: Final = 400  # people: of many more, a sketch cannot tell how many
_NAME: Final = 256  # characters kept
_PARTS: Final = 4  # a part of the memory is this many times as long as the next one, or longer
_AT_ONCE: Final = 1 << 16  # rows

_Column = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks, in which job, and with whose data beside this owner's."""

    controller: str
    job_id: str
    partners: frozenset[str]  # dataset codes of the others
    content: bytes  # digest of the others' content hashes


def note(conn: Connection, asked: Asked, populations: Sequence[Population], now_ms: int) -> None:
    """Remember whom a release is about, in the transaction that found no conflict; a second time changes nothing."""
    noted = conn.execute(select(table.c.name, table.c.sketch, table.c.size).where(table.c.job_id == asked.job_id))
    held = {(row.name, row.sketch, row.size) for row in noted}
    shared = {
        "controller": asked.controller,
        "job_id": asked.job_id,
        "partners": ",".join(sorted(asked.partners)),
        "content": asked.content,
        "time_ms": now_ms,
    }
    fresh = [
        shared
        | {
            "name": one.name[:_NAME],
            "is_whole": int(one.is_whole),
            "rows": one.rows,
            "size": one.size,
            "sketch": one.sketch,
        }
        for one in populations
        if (one.name[:_NAME], one.sketch, one.size) not in held
    ]
    if fresh:
        conn.execute(insert(table), fresh)


def conflict(conn: Connection, asked: Asked, populations: Sequence[Population], least: int) -> str:
    """Return why a release would isolate people beside an earlier one, or beside itself; nothing if it would not.

    For the owner only: the caller is told what every refusal tells.
    """
    least = min(least, MOST)
    if not populations or least < 2:
        return ""
    exact = [one for one in populations if not one.is_whole]
    groups = _Groups.of(exact)
    for one in exact:
        if len(hits := _within(groups, one, least)):
            return _reason(one.name, exact[hits[0]].name, "this job", least)
    with _LOCK:
        while True:
            memory = _remembered(conn, asked.controller)
            found = memory.search(asked, populations, least)
            if found is None:
                return ""
            row = conn.execute(select(table.c.job_id, table.c.name).where(table.c.id == found[1])).first()
            if row is not None and row.job_id != asked.job_id:
                return _reason(found[0].name, row.name, f"job {row.job_id}", least)
            _MEMORIES.pop(conn.engine, None)  # rows were removed: read all there are


def _reason(new: str, old: str, job: str, least: int) -> str:
    return f"{new!r} and {old!r} of {job} differ by fewer than {least} people"


# --- the rules --------------------------------------------------------------------------------------------------------


class _Groups:
    """Populations as columns, ordered by the number of own rows; ``bits`` has a row for each word of the sketches."""

    def __init__(self, columns: Mapping[str, _Column]) -> None:
        self.columns = columns

    @classmethod
    def of(cls, populations: Sequence[Population | Row[Any]], **more: _Column) -> _Groups:
        """Return columns of populations, and columns that stand beside them."""
        sketches = words(b"".join(one.sketch for one in populations))
        numbers = {
            "place": np.arange(len(populations)),
            "rows": np.array([one.rows for one in populations], np.int64),
            "size": np.array([one.size for one in populations], np.int64),
            "bits": sketches[:, :WORDS].T,
            "sum": sketches[:, WORDS],
        }
        return cls({**numbers, **more})._ordered()

    def __len__(self) -> int:
        return len(self.columns["rows"])

    def __getitem__(self, name: str) -> _Column:
        return self.columns[name]

    def with_(self, other: _Groups) -> _Groups:
        """Return both."""
        joined = {name: np.concatenate([held, other[name]], axis=-1) for name, held in self.columns.items()}
        return _Groups(joined)._ordered()

    def about(self, rows: int, least: int) -> _Groups:
        """Return those with about so many rows: with more or fewer, the groups differ by ``least`` people."""
        first, last = np.searchsorted(self["rows"], [rows - least + 1, rows + least])
        return _Groups({name: column[..., first:last] for name, column in self.columns.items()})

    def near(self, sketch: _Column, least: int) -> tuple[_Column, _Column]:
        """Return the places of other groups that may differ by fewer than ``least`` people, and by how many at least.

        Word after word of the sketches, going on with those that are still near.
        """
        places = np.flatnonzero(self["sum"] != sketch[WORDS])
        apart = np.zeros(len(places), np.uint16)
        for number, word in enumerate(self["bits"]):
            # While it is all of them, the column is read as it is.
            some = word if len(places) == len(word) else word[places]
            apart += np.bitwise_count(some ^ sketch[number])
            if not (close := apart < least).all():
                places, apart = places[close], apart[close]
        return places, np.maximum(apart, 1)

    def _ordered(self) -> _Groups:
        order = np.argsort(self["rows"], kind="stable")
        return _Groups({name: np.ascontiguousarray(column[..., order]) for name, column in self.columns.items()})


def _exact(one: Population, groups: _Groups, least: int, is_named: _Column, is_cell: _Column) -> _Column:
    """Return which of some exactly known groups are in conflict with a new one.

    Args:
        is_named: which of them have the new one's name.
        is_cell: which of them are called like another group of the new job.
    """
    sketch = words(one.sketch)[0]
    sizes = np.abs(groups["size"] - one.size)
    hits: _Column = (groups["sum"] == sketch[WORDS]) & (groups["rows"] > 0) & (sizes > 0) & (sizes < least)
    places, own = groups.near(sketch, least)
    rows, others = groups["rows"][places], groups["size"][places] - groups["rows"][places]
    close = own + np.abs(others - (one.size - one.rows)) < least
    # A few own people among others': two cells have nobody in common, and look near only because there are so few.
    is_small = (np.minimum(rows, one.rows) < least) & (others > 0) & (one.size > one.rows)
    is_apart = ~is_named[places] & (is_cell[places] | (own == rows + one.rows))
    hits[places] = close & ~(is_small & is_apart)
    return hits


def _within(groups: _Groups, one: Population, least: int) -> _Column:
    """Return the places of groups of the same job that a group is in conflict with."""
    some = groups.about(one.rows, least)
    none, every = np.zeros(len(some), np.bool_), np.ones(len(some), np.bool_)
    hits: _Column = some["place"][_exact(one, some, least, is_named=none, is_cell=every)]
    return hits


def _whole(one: Population, groups: _Groups, least: int, is_shared: _Column, is_changed: _Column) -> _Column:
    """Return which of some earlier whole sets are in conflict with a new one.

    Args:
        is_shared: with which of them a partner was there that is there again.
        is_changed: with which of them the partners' data were others.
    """
    sketch = words(one.sketch)[0]
    sizes = np.abs(groups["size"] - one.size)
    is_told = (sizes > 0) | (groups["is_summed"] & (one.name == SUMMED))
    hits: _Column = (groups["sum"] == sketch[WORDS]) & is_changed & is_told & (sizes < least)
    places, _ = groups.near(sketch, least)
    hits[places] = is_shared[places] & (sizes[places] < least)
    return hits


# --- what is remembered -----------------------------------------------------------------------------------------------


class _Codes(dict[Hashable, int]):
    """Small numbers for what is only compared."""

    def __missing__(self, key: Hashable) -> int:
        self[key] = len(self)
        return self[key]


class _Memory:
    """The table's rows of one controller, as columns, in a few parts."""

    def __init__(self) -> None:
        self._last: Row[Any] | None = None
        self._jobs, self._names, self._partners, self._contents = _Codes(), _Codes(), _Codes(), _Codes()
        self._parts: dict[bool, list[_Groups]] = {True: [], False: []}

    def is_of(self, conn: Connection) -> bool:
        """Whether the last row that was read is still what it was."""
        last = self._last
        return last is None or conn.execute(_ROWS.where(table.c.id == last.id)).first() == last

    def read(self, conn: Connection, controller: str) -> None:
        """Add the rows that have come since."""
        query = _ROWS.where(table.c.controller == controller).order_by(table.c.id)
        if self._last is not None:
            query = query.where(table.c.id > self._last.id)
        kept: list[Row[Any]] = []  # of the last job, as there may be more of it
        for some in conn.execute(query).partitions(_AT_ONCE):
            rows = [*kept, *some]
            kept = [row for row in rows if row.job_id == rows[-1].job_id]
            self._add(rows[: len(rows) - len(kept)])
            self._last = rows[-1]
        self._add(kept)

    def _add(self, rows: Sequence[Row[Any]]) -> None:
        exact = {(row.job_id, row.size) for row in rows if not row.is_whole}
        for is_whole, parts in self._parts.items():
            some = [row for row in rows if bool(row.is_whole) is is_whole]
            if not some:
                continue
            more: dict[str, _Column] = {
                "place": np.array([row.id for row in some]),
                "job": np.array([self._jobs[row.job_id] for row in some], np.int32),
                "name": np.array([self._names[row.name] for row in some], np.int32),
                "partners": np.array([self._partners[row.partners] for row in some], np.int32),
                "content": np.array([self._contents[row.content] for row in some], np.int32),
                "is_summed": np.array([row.name == SUMMED for row in some]),
                "is_known": np.array([(row.job_id, row.size) in exact for row in some]),
            }
            parts.append(_Groups.of(some, **more))
            while len(parts) > 1 and len(parts[-2]) < _PARTS * len(parts[-1]):
                parts[-2:] = [parts[-2].with_(parts[-1])]

    def search(self, asked: Asked, populations: Sequence[Population], least: int) -> tuple[Population, int] | None:
        """Return a new population, and the id of the earlier one it is in conflict with."""
        codes = [self._names.get(one.name[:_NAME], -1) for one in populations]
        exact = {one.size for one in populations if not one.is_whole}
        job, content = self._jobs.get(asked.job_id, -1), self._contents.get(asked.content, -1)
        shared = np.array([not asked.partners.isdisjoint(str(names).split(",")) for names in self._partners], np.bool_)
        for one, name in zip(populations, codes, strict=True):
            for part in self._parts[one.is_whole]:
                some = part.about(one.rows, least)
                if not len(some):
                    continue
                if one.is_whole:
                    is_changed = some["content"] != content
                    hits = _whole(one, some, least, shared[some["partners"]] | ~is_changed, is_changed)
                    if one.size in exact:
                        hits &= ~some["is_known"]
                else:
                    hits = _exact(one, some, least, some["name"] == name, np.isin(some["name"], codes))
                found = some["place"][hits & (some["job"] != job)]
                if len(found):
                    return one, int(found[0])
        return None


_ROWS: Final = select(table)
_LOCK: Final = threading.Lock()
_MEMORIES: Final = weakref.WeakKeyDictionary[Engine, dict[str, _Memory]]()


def _remembered(conn: Connection, controller: str) -> _Memory:
    memories = _MEMORIES.setdefault(conn.engine, {})
    memory = memories.get(controller)
    if memory is None or not memory.is_of(conn):
        memory = memories[controller] = _Memory()
    memory.read(conn, controller)
    return memory
