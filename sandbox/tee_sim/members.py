"""The members of a document that somebody else wrote: typed, none missing, none unknown.

Errors:    ``InvalidSpec`` naming the member.
Not here:  what the members mean (``manifest``).
"""

from __future__ import annotations

import re
from typing import Any, Final

from sandbox.errors import InvalidSpec

MOST: Final = 16  # members with names of the user's own in one table
NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_MOST_TEXTS: Final = 1000
_REQUIRED: Final = object()


class Members:
    """One table of a document; ``end`` refuses those that were never taken."""

    def __init__(self, where: str, members: object) -> None:
        if not isinstance(members, dict):
            raise InvalidSpec(tell=f"{where} is not a table of members")
        self.where, self._members, self._taken = where, members, set[str]()

    def at(self, name: str) -> str:
        """Return where the member ``name`` stands."""
        return f"{self.where}: {name}"

    def take(self, name: str, kind: type[Any] | tuple[type[Any], ...], default: Any = _REQUIRED) -> Any:
        """Return the member ``name``; without a default it must be there."""
        self._taken.add(name)
        value = self._members.get(name, default)
        if value is _REQUIRED:
            raise InvalidSpec(tell=f"{self.at(name)} is missing")
        if name in self._members and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise InvalidSpec(tell=f"{self.at(name)} is of another type")
        return value

    def text(self, name: str) -> str:
        """Return a text that is short and shows all it holds."""
        return read_texts(self.at(name), [self.take(name, str)])[0]

    def texts(self, name: str, default: Any = _REQUIRED) -> tuple[str, ...]:
        """Return a list of such texts, none twice."""
        return read_texts(self.at(name), self.take(name, list, default))

    def named(self, name: str, kind: type[Any], *, needed: bool = True) -> dict[str, Any]:
        """Return a table whose members have names of the user's own, all of one type."""
        inner = self.take(name, dict, _REQUIRED if needed else {})
        if len(inner) > MOST or (needed and not inner):
            raise InvalidSpec(tell=f"{self.at(name)} has {len(inner)} members; 1 to {MOST} are allowed")
        for one, value in inner.items():
            if not NAME.fullmatch(one):
                raise InvalidSpec(tell=f"{self.at(name)}: {one[:64]!r} is not 1 to 40 characters of a-z 0-9 _")
            if not isinstance(value, kind):
                raise InvalidSpec(tell=f"{self.at(name)}.{one} is of another type")
        return dict(inner)

    def end(self) -> None:
        """Refuse members that nobody took."""
        if unknown := sorted(str(name)[:64] for name in self._members.keys() - self._taken):
            raise InvalidSpec(tell=f"{self.where}: these members mean nothing here: {', '.join(map(repr, unknown))}")


def read_texts(where: str, items: list[Any]) -> tuple[str, ...]:
    """Return short printable texts, none twice."""
    if len(items) > _MOST_TEXTS or not all(isinstance(item, str) for item in items):
        raise InvalidSpec(tell=f"{where} is not a list of at most {_MOST_TEXTS} texts")
    if not all(1 <= len(item) <= 64 and item.isprintable() and item == item.strip() for item in items):
        raise InvalidSpec(tell=f"{where}: a text has 1 to 64 printable characters and no blanks around it")
    if len(set(items)) != len(items):
        raise InvalidSpec(tell=f"{where} has something twice")
    return tuple(items)
