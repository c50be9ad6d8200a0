"""What every intersection engine is given and gives back.

    positions = intersect(digests, role, terms, bucket, <link>, learner=..., ...)

A table is intersected bucket by bucket (``buckets``, ``shards``). Each bucket is a piece of work of its own: it has its
own link, secrets and padding, and shares nothing with the others but the terms; it can be run anywhere, in any order,
and again. A small table is one bucket. The link is a ``Channel``, or, for an engine in a child process, a
``Workspace`` and the name of the peer in it.

Shapes:   ``digests`` are ``(n, 2)`` unsigned 64-bit: this bucket's keys as ``keys.digest`` gives them under the salt of
          the terms, each once, in any order. The result are ``int64`` positions into them, ascending by digest: the
          same people in the same sequence on both sides, which so depends on neither side's order of input.
          With ``learner`` only that side gets positions; the other gets none.
Security: a digest stands for its key from here on. Two different keys of sets that were fixed before the salt was drawn
          have the same digest with a chance of 2^-128, and would then be taken for one on both sides.
Reveals:  what each engine's docstring says; the numbers of rows, of buckets and the size of a padded bucket always.
Errors:   ``InvalidSpec`` if what I bring breaks the contract, before anything is sent; ``PartyFailed`` if the other
          side works on other terms, another bucket, or for another learner.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sandbox.crypto.sm3 import tagged
from sandbox.errors import InvalidSpec

MIN_SALT = 16  # bytes
MAX_ROWS = 1 << 31
MAX_BUCKETS = 1 << 16


class Role(Enum):
    """Which side of the pair this party is; the two sides differ in nothing else."""

    LEFT = 0
    RIGHT = 1

    @property
    def other(self) -> Role:
        """The other side."""
        return Role.RIGHT if self is Role.LEFT else Role.LEFT


@dataclass(frozen=True, slots=True)
class Bucket:
    """Which part of both tables is intersected: one of ``of`` parts, numbered from 0."""

    number: int
    of: int

    def __post_init__(self) -> None:
        if not (1 <= self.of <= MAX_BUCKETS and 0 <= self.number < self.of):
            raise InvalidSpec("there is no such bucket")


EVERYTHING = Bucket(0, 1)  # the whole table in one piece


@dataclass(frozen=True, slots=True)
class Terms:
    """What both sides agreed on before the first byte; compared before any key is used.

    The salt must be drawn after both sides committed to their keys (from both sides' nonces), so that nobody can
    choose keys to fit it.
    """

    plan: bytes  # digest of the admitted plan
    salt: bytes  # from both sides' nonces; secret from outsiders, so it is compared by digest only
    left_rows: int  # of the whole table, not of a bucket
    right_rows: int

    def __post_init__(self) -> None:
        if len(self.salt) < MIN_SALT:
            raise InvalidSpec("the salt of an intersection is too short")
        if not (0 <= self.left_rows < MAX_ROWS and 0 <= self.right_rows < MAX_ROWS):
            raise InvalidSpec("the row counts of an intersection are out of range")

    def rows(self, role: Role) -> int:
        """Return how many keys the side ``role`` brings, over all buckets."""
        return self.left_rows if role is Role.LEFT else self.right_rows

    def agreement(self, engine: str, bucket: Bucket = EVERYTHING, learner: Role | None = None) -> dict[str, object]:
        """Return the fields that the two sides compare, fit to be shown to the other side."""
        return {
            "engine": engine,
            "plan": self.plan.hex(),
            "salt": tagged("psi-salt", self.salt).hex(),
            "left_rows": self.left_rows,
            "right_rows": self.right_rows,
            "bucket": bucket.number,
            "of": bucket.of,
            "learner": "both" if learner is None else learner.name.lower(),
        }
