"""The members of a document that a person wrote: typed, none missing, none misspelt.

Shapes:    TOML, or JSON when the name ends in .json. ``${name}`` inside any text stands for a value given at reading
           (``--set name=value``); ``$$`` is the character itself.
Security:  values go into texts only and never become structure.
Errors:    ``InvalidSpec`` naming file and member, also for members that mean nothing and for values nobody gave.
Not here:  what the members mean (``documents``).
"""

from __future__ import annotations

import json
import string
import tomllib
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, TypeVar

from sandbox.client.files import read_file
from sandbox.errors import InvalidSpec

E = TypeVar("E", bound=IntEnum)
_REQUIRED: Final = object()


class Table:
    """One table of a document; ``end`` refuses members that were never taken, so that a misspelt one is noticed."""

    def __init__(self, where: str, members: object) -> None:
        if not isinstance(members, dict):
            raise InvalidSpec(tell=f"{where} is not a table")
        self.where, self._members, self._taken = where, members, set[str]()

    def take(self, name: str, kind: type[Any] | tuple[type[Any], ...], default: Any = _REQUIRED) -> Any:
        """Return the member ``name``; without a default it must be there."""
        self._taken.add(name)
        value = self._members.get(name, default)
        if value is _REQUIRED:
            raise InvalidSpec(tell=f"{self.where}: {name} is missing")
        if name in self._members and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise InvalidSpec(tell=f"{self.where}: {name} is of another type")
        return value

    def choose(self, name: str, kind: type[E], default: E | None = None) -> E:
        """Return the member as one of the names of an enumeration."""
        text = self.take(name, str, default.name if default else _REQUIRED)
        return _member(f"{self.where}: {name}", kind, text)

    def choices(self, name: str, kind: type[E]) -> tuple[E, ...]:
        """Return a list of names of an enumeration."""
        return tuple(_member(f"{self.where}: {name}", kind, text) for text in self.texts(name))

    def texts(self, name: str, default: Any = _REQUIRED) -> tuple[str, ...]:
        """Return a list of texts."""
        items = self.take(name, list, default)
        if not all(isinstance(item, str) for item in items):
            raise InvalidSpec(tell=f"{self.where}: {name} is not a list of texts")
        return tuple(items)

    def digest(self, name: str) -> bytes:
        """Return 32 bytes given as 64 hexadecimal digits."""
        return _hex(f"{self.where}: {name}", self.take(name, str), 32)

    def table(self, name: str, default: Any = _REQUIRED) -> Table:
        """Return a table inside this one."""
        return Table(f"{self.where}: {name}", self.take(name, dict, default))

    def decimal(self, name: str, places: int) -> int:
        """Return a number in units of 10^-places; it must be a whole number of them."""
        return _scaled(f"{self.where}: {name}", self.take(name, (int, float, str)), places)

    def decimals(self, name: str, places: int) -> tuple[int, ...]:
        """Return a list of such numbers."""
        return tuple(_scaled(f"{self.where}: {name}", item, places) for item in self.take(name, list))

    def tables(self, name: str, default: Any = _REQUIRED) -> list[Table]:
        """Return a list of tables."""
        return [Table(f"{self.where}: {name} {n}", item) for n, item in enumerate(self.take(name, list, default), 1)]

    def has(self, name: str) -> bool:
        """Tell whether the member is there."""
        return name in self._members

    def end(self) -> None:
        """Refuse members that nobody took."""
        if unknown := sorted(self._members.keys() - self._taken):
            raise InvalidSpec(tell=f"{self.where}: these members mean nothing here: {', '.join(map(repr, unknown))}")


def open_document(path: Path, values: Mapping[str, str] | None = None) -> Table:
    """Return the top table of the document in a file; without values, of a file that nobody wrote ``${...}`` into."""
    try:
        text = read_file(path).decode("utf-8-sig")
        tree = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidSpec(tell=f"{path}: {error}") from None
    return Table(str(path), tree if values is None else _fill(str(path), tree, values))


def _fill(where: str, tree: Any, values: Mapping[str, str]) -> Any:
    """Put the given values into every text; into texts only, so that a value never becomes structure."""
    if isinstance(tree, dict):
        return {name: _fill(where, item, values) for name, item in tree.items()}
    if isinstance(tree, list):
        return [_fill(where, item, values) for item in tree]
    if not isinstance(tree, str):
        return tree
    try:
        return string.Template(tree).substitute(values)
    except KeyError as error:
        name = error.args[0]
        raise InvalidSpec(tell=f"{where}: ${{{name}}} has no value", hint=f"add --set {name}=VALUE") from None
    except ValueError:
        raise InvalidSpec(tell=f"{where}: a $ that begins no ${{name}}; write $$ for the character") from None


def _member(where: str, kind: type[E], text: str) -> E:
    try:
        return kind[text.upper()]
    except KeyError:
        known = ", ".join(item.name.lower() for item in kind)
        raise InvalidSpec(tell=f"{where} is not one of {known}") from None


def _scaled(where: str, value: object, places: int) -> int:
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise InvalidOperation
        scaled = Decimal(str(value)).scaleb(places)
        if not scaled.is_finite() or scaled != scaled.to_integral_value() or abs(scaled) >= 1 << 63:
            raise InvalidOperation
    except InvalidOperation:
        raise InvalidSpec(tell=f"{where} is not a number with at most {places} decimal places") from None
    return int(scaled)


def _hex(where: str, text: str, size: int) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != size:
        raise InvalidSpec(tell=f"{where} is not {2 * size} hexadecimal digits")
    return value
