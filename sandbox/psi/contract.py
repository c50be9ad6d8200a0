"""What every intersection engine is given and gives back.

    positions = intersect(keys, role, terms, ...)

Shapes:  ``keys`` is an Arrow array of strings, unique and without nulls, already normalised by the caller.
         The result is ``int64`` positions into *my* keys. Both sides get the same people in the same sequence:
         ascending by a 128-bit digest of the key under the salt of this run (``keys.digest``). The sequence so
         depends on neither side's order of input.
Reveals: what each engine's docstring says; the size of both sets always.
Errors:  ``InvalidSpec`` if my keys break the contract, ``PartyFailed`` if the other side works on other terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sandbox.crypto.sm3 import tagged
from sandbox.errors import InvalidSpec

MIN_SALT = 16  # bytes
MAX_ROWS = 1 << 31


class Role(Enum):
    """Which side of the pair this party is; the two sides differ in nothing else."""

    LEFT = 0
    RIGHT = 1


@dataclass(frozen=True, slots=True)
class Terms:
    """What both sides agreed on before the first byte; compared before any key is used.

    The salt must be drawn after both sides committed to their keys (from both sides' nonces), so that nobody can
    choose keys to fit it.
    """

    plan: bytes  # digest of the admitted plan
    salt: bytes  # from both sides' nonces; secret from outsiders, so it is compared by digest only
    left_rows: int
    right_rows: int

    def __post_init__(self) -> None:
        if len(self.salt) < MIN_SALT:
            raise InvalidSpec("the salt of an intersection is too short")
        if not (0 <= self.left_rows < MAX_ROWS and 0 <= self.right_rows < MAX_ROWS):
            raise InvalidSpec("the row counts of an intersection are out of range")

    def rows(self, role: Role) -> int:
        """Return how many keys the side ``role`` brings."""
        return self.left_rows if role is Role.LEFT else self.right_rows

    def agreement(self, engine: str, bucket: int = 0, buckets: int = 1) -> dict[str, object]:
        """Return the fields that the two sides compare, fit to be shown to the other side."""
        return {
            "engine": engine,
            "plan": self.plan.hex(),
            "salt": tagged("psi-salt", self.salt).hex(),
            "left_rows": self.left_rows,
            "right_rows": self.right_rows,
            "bucket": bucket,
            "buckets": buckets,
        }
