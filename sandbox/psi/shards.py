"""A table's keys on their way into buckets: digests and row numbers, a file a bucket, in a private directory.

    shards = Shards(directory, salt, buckets)          in each bucket's worker, which may be another process:
    shards.add(keys, first_row)  for each batch        shards = Shards(directory, salt, buckets)
    shards.close()                                     digests, rows = shards.load(number)
                                                       part = rows[intersect(digests, ...)]
    assemble(parts)  the rows of all buckets           shards.remove(number)

Security: the files hold digests and numbers, nothing of a row besides; digests of guessable keys can be guessed by who
          has the salt. They are 0600 in a directory that the caller gives, keeps private, and removes.
Units:    memory is at most ``HELD`` rows of 24 bytes, twice, beside the caller's batch, and one bucket on loading.
          One bucket stays in memory, where ``add`` was called, and is never written.
Shapes:   a record is two numbers of digest and one of row, little-endian, 64 bits each.
Errors:   ``InvalidSpec`` for what is no column of unique keys; ``WrongState`` for calls out of order, and on shards of
          another salt or number of buckets; ``IntegrityFailed`` if a file is not as it was written; ``JobFailed`` if
          the directory cannot be used.
Not here: normalisation of keys, how many buckets (``buckets``), who works on which.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sandbox.crypto.sm3 import tagged
from sandbox.errors import IntegrityFailed, InvalidSpec, JobFailed, WrongState
from sandbox.psi.buckets import number_of
from sandbox.psi.contract import MAX_BUCKETS, MAX_ROWS
from sandbox.psi.keys import Digests, Positions, check_unique, digest

HELD: Final = 1 << 18  # rows: 6 MiB, and as much again while they are sorted into buckets
_RECORD: Final = 24  # bytes
_INDEX: Final = "index"

Records = NDArray[np.uint64]


class Shards:
    """The digests and row numbers of one table, by bucket."""

    def __init__(self, directory: Path, salt: bytes, buckets: int) -> None:
        """Args:
        directory: private to this job, existing; only this table's shards are in it.
        salt: of the terms.
        """
        if not 1 <= buckets <= MAX_BUCKETS:
            raise InvalidSpec("a table cannot be cut into that many buckets")
        self._directory, self._salt, self._buckets = directory, salt, buckets
        self._held = np.empty((0, 3), np.uint64)
        self._whole: list[Records] | None = []  # of a single bucket; None when that has been removed
        self._filled = 0
        self._counts: NDArray[np.int64] | None = None  # rows by bucket, in the process that writes
        self._closed: list[int] | None = None  # and of complete shards

    @property
    def rows(self) -> int:
        """How many rows have been added; after ``close``, anywhere, how many there are."""
        if self._closed is None and self._counts is not None:
            return int(self._counts.sum()) + self._filled
        return sum(self._index())

    def add(self, keys: pa.Array, first_row: int) -> None:
        """Take a batch of normalised keys, the first of which is in row ``first_row`` of the table.

        Raises:
            InvalidSpec: they are no keys (``keys.digest``), or too many.
            WrongState: the shards are complete already, or begun by another writer.
        """
        counts = self._writing()
        digests = digest(keys, self._salt)
        if not 0 <= first_row <= (1 << 63) - 1 - len(digests) or self.rows + len(digests) >= MAX_ROWS:
            raise InvalidSpec("a table has more rows than an intersection takes")
        if self._whole is not None and self._buckets == 1:
            self._whole.append(_records(digests, first_row))
            counts[0] += len(digests)
            return
        done = 0
        while done < len(digests):
            part = digests[done : done + HELD - self._filled]
            self._held[self._filled : self._filled + len(part)] = _records(part, first_row + done)
            self._filled += len(part)
            done += len(part)
            if self._filled == HELD:
                self._spill()

    def close(self) -> None:
        """Complete the shards, so that buckets can be loaded; harmless when done twice."""
        if self._closed is not None:
            return
        counts = self._writing()
        self._spill()
        self._held = np.empty((0, 3), np.uint64)
        if self._buckets > 1:
            # In place only when everything is written: before that there is nothing to load.
            draft = self._directory / f"{_INDEX}.draft"
            _write(draft, json.dumps({"salt": self._tag(), "rows": counts.tolist()}).encode("ascii"), os.O_EXCL)
            draft.rename(self._directory / _INDEX)
        self._closed = counts.tolist()

    def load(self, number: int) -> tuple[Digests, Positions]:
        """Return the digests of a bucket and the row of the table that each stands in.

        Raises:
            InvalidSpec: there is no such bucket, or a key of it occurs twice in the table.
            WrongState: the shards are not complete here, or the bucket has been removed.
            IntegrityFailed: the bucket is not as it was written.
        """
        counts = self._index()
        if not 0 <= number < self._buckets:
            raise InvalidSpec("there is no such bucket")
        if self._buckets > 1:
            records = self._read(number, counts[number])
        elif self._whole is None:
            raise WrongState("this bucket has been removed")
        else:
            records = np.concatenate([np.empty((0, 3), np.uint64), *self._whole])
            self._whole = [records]
        digests = np.ascontiguousarray(records[:, :2])
        check_unique(digests)
        return digests, records[:, 2].astype(np.int64)

    def remove(self, number: int) -> None:
        """Remove a bucket that is no longer needed; harmless when done twice."""
        if self._buckets == 1:
            self._whole = None
        else:
            self._path(number).unlink(missing_ok=True)

    def _writing(self) -> NDArray[np.int64]:
        """Return the rows written to each bucket so far, in the process that writes."""
        if self._closed is not None:
            raise WrongState("these shards are complete")
        if self._counts is None:
            if self._buckets > 1:
                try:
                    used = any(self._directory.iterdir())
                except OSError as error:
                    raise JobFailed("the directory of shards cannot be read") from error
                if used:
                    raise WrongState("the directory of these shards is in use already")
                self._held = np.empty((HELD, 3), np.uint64)
            self._counts = np.zeros(self._buckets, np.int64)
        return self._counts

    def _spill(self) -> None:
        """Append what is held to the buckets' files."""
        counts = self._writing()
        held, self._filled = self._held[: self._filled], 0
        numbers = number_of(held, self._buckets)
        records = held.take(np.argsort(numbers, kind="stable"), axis=0)
        sizes = np.bincount(numbers, minlength=self._buckets)
        ends = np.cumsum(sizes)
        for number in np.flatnonzero(sizes).tolist():
            part = records[ends[number] - sizes[number] : ends[number]]
            _write(self._path(number), part.astype("<u8", copy=False).data, 0 if counts[number] else os.O_EXCL)
            counts[number] += len(part)

    def _index(self) -> list[int]:
        """Return the rows of each bucket of complete shards."""
        if self._closed is None:
            try:
                index = json.loads((self._directory / _INDEX).read_bytes())
                tag, counts = index["salt"], [int(count) for count in index["rows"]]
            except FileNotFoundError as error:
                raise WrongState("these shards are not complete, or are held by another process") from error
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise IntegrityFailed("the index of shards is damaged") from error
            if tag != self._tag() or len(counts) != self._buckets:
                raise WrongState("these shards are of another salt or number of buckets")
            self._closed = counts
        return self._closed

    def _read(self, number: int, count: int) -> Records:
        if not count:
            return np.empty((0, 3), np.uint64)
        try:
            words = np.fromfile(self._path(number), "<u8")
        except FileNotFoundError as error:
            raise WrongState("this bucket has been removed") from error
        except OSError as error:
            raise JobFailed("a bucket's file cannot be read") from error
        if len(words) * 8 != count * _RECORD:
            raise IntegrityFailed("a bucket's file has another size than was written")
        records = words.astype(np.uint64, copy=False).reshape(-1, 3)
        if bool((number_of(records, self._buckets) != number).any()):
            raise IntegrityFailed("a bucket's file holds keys of another bucket")
        return records

    def _path(self, number: int) -> Path:
        return self._directory / f"bucket-{number}"

    def _tag(self) -> str:
        return tagged("psi-salt", self._salt).hex()


def assemble(parts: Sequence[Positions]) -> Positions:
    """Return the common rows of all buckets, given in the order of their numbers, in the sequence of the contract."""
    return np.concatenate([np.empty(0, np.int64), *parts])


def _records(digests: Digests, first_row: int) -> Records:
    records = np.empty((len(digests), 3), np.uint64)
    records[:, :2] = digests
    records[:, 2] = np.arange(first_row, first_row + len(digests), dtype=np.uint64)
    return records


def _write(path: Path, data: bytes | memoryview, more: int) -> None:
    """Append to a file that only its owner may read."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | more
    try:
        with os.fdopen(os.open(path, flags, 0o600), "wb") as out:
            out.write(data)
    except FileExistsError as error:
        raise WrongState("the directory of these shards is in use already") from error
    except OSError as error:
        raise JobFailed("a bucket's file cannot be written") from error
