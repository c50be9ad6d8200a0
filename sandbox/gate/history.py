"""Would this release, beside an earlier one, tell something about a few people? Every number's group is remembered.

A new group and an earlier one of the same controller, both known exactly or both only as "some of all these":

    exact   own people differ     conflict if all who differ may be fewer than ``least``: own ones by the sketches,
                                  others' by their numbers, unless one of them is who receives
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
Not here: how groups are sketched (``kinds.population``), which jobs are judged (the caller's).
"""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, Row, insert, select

from sandbox.kinds.population import SHARED, SUMMED, WORDS, words
from sandbox.model import Population
from sandbox.store import released_populations as table

MOST: Final = 400  # people: of many more, a sketch cannot tell how many
_NAME: Final = 256  # characters kept
_PARTS: Final = 4  # a part of the memory is this many times as long as the next one, or longer
_AT_ONCE: Final = 1 << 16  # rows
_STEPS: Final = (1, 2, 4, 8, WORDS)  # words of a sketch
_ROWS: Final = select(
    *(table.c.id, table.c.controller, table.c.job_id, table.c.name, table.c.is_whole),
    *(table.c.rows, table.c.size, table.c.sketch, table.c.partners, table.c.content),
)

_Column = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks, in which job, and with whose data beside this owner's."""

    controller: str
    job_id: str
    partners: frozenset[str]  # dataset codes of the others
    content: bytes  # digest of the others' content hashes
    is_alone: bool = False  # whoever receives has rows in it and knows what changed there: others are no cover


def note(conn: Connection, asked: Asked, populations: Sequence[Population], now_ms: int) -> None:
    """Remember whom a release is about, in the transaction that found no conflict; a second time changes nothing."""
    noted = conn.execute(
        select(table.c.name, table.c.sketch, table.c.size).where(
            table.c.job_id == asked.job_id, table.c.controller == asked.controller
        )
    )
    held = {(row.name, row.sketch, row.size) for row in noted}
    job = {"controller": asked.controller, "job_id": asked.job_id, "content": asked.content, "time_ms": now_ms}
    job["partners"] = ",".join(sorted(asked.partners))
    fresh = []
    for one in populations:
        numbers = {"is_whole": int(one.is_whole), "rows": one.rows, "size": one.size}
        if (one.name[:_NAME], one.sketch, one.size) not in held:
            fresh.append({**job, **numbers, "name": one.name[:_NAME], "sketch": one.sketch})
    if fresh:
        conn.execute(insert(table), fresh)


def conflict(conn: Connection, asked: Asked, populations: Sequence[Population], least: int) -> str:
    """Return why, for the owner only, a release would isolate people beside an earlier one or itself; else nothing."""
    least = min(least, MOST)
    if not populations or least < 2:
        return ""
    exact = [one for one in populations if not one.is_whole]
    columns = ([one.rows for one in exact], [one.size for one in exact], [one.sketch for one in exact])
    groups, every = _Groups.of(*columns, name=np.arange(len(exact))), np.ones(len(exact), np.bool_)
    for place, one in enumerate(exact):
        some = groups.about(one.rows, least, is_upward=True)  # of each two, one looks at the other
        if len(hits := some["name"][_exact(one, some, least, place, every, asked.is_alone)]):
            return _reason(one.name, exact[hits[0]].name, "this job", least)
    with _LOCK:
        while True:
            memory = _remembered(conn)
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
    def of(cls, rows: Sequence[int], sizes: Sequence[int], sketches: Sequence[bytes], **more: _Column) -> _Groups:
        """Return columns of populations, and columns that stand beside them."""
        sketched = words(b"".join(sketches))
        numbers = {"rows": np.array(rows, np.int64), "size": np.array(sizes, np.int64), "sum": sketched[:, WORDS]}
        return cls({**numbers, "bits": sketched[:, :WORDS].T, **more})._ordered()

    def __len__(self) -> int:
        return len(self.columns["rows"])

    def __getitem__(self, name: str) -> _Column:
        return self.columns[name]

    def with_(self, other: _Groups) -> _Groups:
        """Return both."""
        return _Groups({n: np.concatenate([own, other[n]], axis=-1) for n, own in self.columns.items()})._ordered()

    def about(self, rows: int, least: int, is_upward: bool = False) -> _Groups:
        """Return those with about so many rows: with more or fewer, the groups differ by ``least`` people."""
        first, last = self["rows"].searchsorted([rows if is_upward else rows - least + 1, rows + least])
        return _Groups({name: column[..., first:last] for name, column in self.columns.items()})

    def where(self, mask: _Column) -> _Groups:
        """Return some of them."""
        return _Groups({name: column[..., mask] for name, column in self.columns.items()})

    def near(self, sketch: _Column, least: int) -> tuple[_Column, _Column, _Column]:
        """Return the places of the same people, of others of whom fewer than ``least`` may differ, and of how many.

        Sketches are compared by more and more of their words, going on with those that are still near.
        """
        same = self["sum"] == sketch[WORDS]
        places = np.flatnonzero(~same) if same.any() else None  # None: all of them, read without a copy
        apart, first = np.zeros(len(same) if places is None else len(places), np.uint16), 0
        for last in _STEPS:
            for number in range(first, last):
                word = self["bits"][number]
                apart += np.bitwise_count((word if places is None else word[places]) ^ sketch[number])
            close, first = np.flatnonzero(apart < least), last
            if 2 * len(close) < len(apart) or last == WORDS:
                places, apart = close if places is None else places[close], apart[close]
            if not len(apart):
                break
        return np.flatnonzero(same), np.zeros(0, np.int64) if places is None else places, np.maximum(apart, 1)

    def _ordered(self) -> _Groups:
        order = np.argsort(self["rows"], kind="stable")
        return _Groups({name: np.ascontiguousarray(column[..., order]) for name, column in self.columns.items()})


def _exact(one: Population, groups: _Groups, least: int, name: int, listed: _Column, is_alone: bool = False) -> _Column:
    """Return the places of exactly known groups in conflict with a new one; ``listed``: the names of the new job's."""
    same, places, own = groups.near(words(one.sketch)[0], least)
    sizes = np.abs(groups["size"][same] - one.size)
    same = same[(groups["rows"][same] > 0) & (sizes > 0) & (sizes < least)]
    rows, others = groups["rows"][places], groups["size"][places] - groups["rows"][places]
    cover = 0 if is_alone else np.abs(others - (one.size - one.rows))
    close = own + cover < least
    # A few own people among others': two cells have nobody in common, and look near only because there are so few.
    is_small = (np.minimum(rows, one.rows) < least) & (others > 0) & (one.size > one.rows)
    names = groups["name"][places]
    is_apart = (names != name) & (listed[names] | (own == rows + one.rows))
    return np.concatenate([same, places[close & ~(is_small & is_apart)]])


def _whole(one: Population, groups: _Groups, least: int, shared: _Column, content: int) -> _Column:
    """Return the places of earlier whole sets in conflict with a new one; ``shared``: partners that are there again."""
    same, places, _ = groups.near(words(one.sketch)[0], least)
    sizes = np.abs(groups["size"] - one.size)
    is_changed = groups["content"] != content
    is_told = (sizes > 0) | (groups["is_summed"] & (one.name == SUMMED))
    same = same[(is_changed & is_told & (sizes < least))[same]]
    return np.concatenate([same, places[((shared[groups["partners"]] | ~is_changed) & (sizes < least))[places]]])


# --- what is remembered -----------------------------------------------------------------------------------------------


class _Codes(dict[Hashable, int]):
    """Small numbers for what is only compared."""

    def of(self, keys: Iterable[Hashable]) -> _Column:
        """Return the numbers of some, which get one if they have none."""
        return np.array([self.setdefault(key, len(self)) for key in keys], np.int32)


class _Memory:
    """The table's rows as columns, in a few parts for each controller."""

    def __init__(self) -> None:
        self._last: Row[Any] | None = None
        self._kinds, self._jobs, self._names = _Codes(), _Codes(), _Codes()
        self._partners, self._contents = _Codes(), _Codes()
        self._parts: defaultdict[int, list[_Groups]] = defaultdict(list)  # kind: a controller, and whether whole

    def is_of(self, conn: Connection) -> bool:
        """Whether the last row that was read is still what it was."""
        last = self._last
        return last is None or conn.execute(_ROWS.where(table.c.id == last.id)).first() == last

    def read(self, conn: Connection) -> None:
        """Add the rows that have come since."""
        query = _ROWS.order_by(table.c.id)
        if self._last is not None:
            query = query.where(table.c.id > self._last.id)
        kept: list[Row[Any]] = []  # of the last job, as there may be more of it
        for some in conn.execute(query).partitions(_AT_ONCE):
            rows = [*kept, *some]
            cut = len(rows)
            while cut and rows[cut - 1].job_id == rows[-1].job_id:
                cut -= 1
            self._add(rows[:cut])
            kept, self._last = rows[cut:], rows[-1]
        self._add(kept)

    def _add(self, rows: Sequence[Row[Any]]) -> None:
        if not rows:
            return
        ids, controllers, jobs, names, wholes, own, sizes, sketches, partners, contents = zip(*rows, strict=True)
        exact = {(job, size) for job, size, name in zip(jobs, sizes, names, strict=True) if name == SHARED}
        groups = _Groups.of(
            own,
            sizes,
            sketches,
            place=np.array(ids, np.int64),
            part=self._kinds.of(zip(controllers, wholes, strict=True)),
            job=self._jobs.of(jobs),
            name=self._names.of(names),
            partners=self._partners.of(partners),
            content=self._contents.of(contents),
            is_summed=np.array([name == SUMMED for name in names], np.bool_),
            is_known=np.array([one in exact for one in zip(jobs, sizes, strict=True)], np.bool_),
        )
        for kind in np.unique(groups["part"]).tolist():
            parts = self._parts[kind]
            parts.append(groups.where(groups["part"] == kind))
            while len(parts) > 1 and len(parts[-2]) < _PARTS * len(parts[-1]):
                parts[-2:] = [parts[-2].with_(parts[-1])]

    def search(self, asked: Asked, populations: Sequence[Population], least: int) -> tuple[Population, int] | None:
        """Return a new population, and the id of the earlier one it is in conflict with."""
        names = [self._names.get(one.name[:_NAME], -1) for one in populations]
        listed = np.zeros(len(self._names), np.bool_)
        listed[[name for name in names if name >= 0]] = True
        exact = {one.size for one in populations if one.name == SHARED}
        job, content = self._jobs.get(asked.job_id, -1), self._contents.get(asked.content, -1)
        shared = np.array([not asked.partners.isdisjoint(str(codes).split(",")) for codes in self._partners], np.bool_)
        for one, name in zip(populations, names, strict=True):
            kind = self._kinds.get((asked.controller, int(one.is_whole)), -1)
            for part in self._parts.get(kind, ()):
                some = part.about(one.rows, least)
                if not len(some):
                    continue
                if one.is_whole:
                    hits = _whole(one, some, least, shared, content)
                    hits = hits[~some["is_known"][hits]] if one.size in exact else hits
                else:
                    hits = _exact(one, some, least, name, listed, asked.is_alone)
                hits = hits[some["job"][hits] != job]
                if len(hits):
                    return one, int(some["place"][hits[0]])
        return None


_LOCK: Final = threading.Lock()
_MEMORIES: Final = weakref.WeakKeyDictionary[Engine, _Memory]()


def _remembered(conn: Connection) -> _Memory:
    memory = _MEMORIES.pop(conn.engine, None)  # back only when it is complete
    if memory is None or not memory.is_of(conn):
        memory = _Memory()
    memory.read(conn)
    _MEMORIES[conn.engine] = memory
    return memory
