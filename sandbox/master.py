"""The node key (主密钥) of one home: in a file, or split among officers; and how another takes its place.

    <home>/keys/node.key       16 random bytes, under the passphrase when there is one
                node.shares    instead of it: which officer keeps which share; nothing secret
                *.next         what is about to take its place

    write *.next ──► one transaction: everything under the new key, and an entry ──► scrub ──► erase the old ──► rename

Security:  cut off at any point, exactly one of what is there opens the store's secrets (``catalog.rotation``), and that
           one counts: before the commit the old, after it the new. The next start tidies up. A key that is split was
           never in a file: splitting makes a new key, so that what a disk or a backup still has of the old one opens
           nothing. A key that is read stays in the memory of the process until it ends.
Errors:    ``Unavailable`` where shares are lacking, with how many; ``IntegrityFailed`` where no key here is the
           store's; nothing is removed then.
Not here:  who may do this and that nobody else is at work (``home``), what shares look like (``crypto.shares``).
"""

from __future__ import annotations

import functools
import json
import os
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from sandbox import keyring
from sandbox.catalog import rotation
from sandbox.crypto import shares as sharing
from sandbox.crypto.shares import Share
from sandbox.crypto.sm4 import KEY_SIZE
from sandbox.errors import IntegrityFailed, InvalidSpec, NotFound, SandboxError, Unavailable
from sandbox.keyring import NODE_KEY, Master
from sandbox.store import Store

SHARES: Final = "node.shares"
NEXT: Final = ".next"
OFFICER: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
Shares = Callable[[], Sequence[Share]]  # asked at most once, and only where a key is split
Enter = Callable[[Connection, int], None]  # notes in the log how many values came under a new key


@dataclass(frozen=True, slots=True)
class Split:
    """Who keeps the shares of a node key; the first officer has share 1."""

    set_id: bytes
    need: int
    officers: tuple[str, ...]
    marks: tuple[bytes, ...]  # of the shares: a false one is named

    def join(self, given: Sequence[Share]) -> bytes:
        """Return the key that officers' shares give; shares of other sets are left aside.

        Raises:
            Unavailable: there are too few; says how many are missing, and who keeps them.
            InvalidSpec: one was given twice.
            IntegrityFailed: one is not what its officer was given; names the officer.
        """
        own = [share for share in given if share.set_id == self.set_id]
        for share in own:
            if not 1 <= share.index <= len(self.marks) or share.mark != self.marks[share.index - 1]:
                raise IntegrityFailed(
                    tell=f"the share of {self._keeper(share.index)} is not the one that was given out",
                    hint="start with others, and find out who changed it",
                )
        present = {share.index for share in own}
        if (lacking := self.need - len(present)) > 0:
            others = [name for index, name in enumerate(self.officers, 1) if index not in present]
            strange = f"; {len(given) - len(own)} of those given are of another set" if len(given) > len(own) else ""
            raise Unavailable(
                tell=f"the node key is split (set {self.set_id.hex()}): {lacking} of {self.need} shares are missing, "
                f"kept by {', '.join(others)}{strange}",
                hint="give shares with --share, or their files in SANDBOX_SHARES",
            )
        return sharing.join(own)

    def to_json(self) -> bytes:
        """Return what ``node.shares`` holds."""
        marks = [mark.hex() for mark in self.marks]
        value = {"set": self.set_id.hex(), "need": self.need, "officers": self.officers, "marks": marks}
        return json.dumps(value, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Split:
        """Read ``node.shares``.

        Raises:
            IntegrityFailed: it is not what was written.
        """
        try:
            value = json.loads(data)
            marks = tuple(bytes.fromhex(mark) for mark in value["marks"])
            made = cls(bytes.fromhex(value["set"]), int(value["need"]), tuple(map(str, value["officers"])), marks)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise IntegrityFailed(f"{SHARES} is not what was written") from None
        if not made.need <= len(made.officers) == len(made.marks):
            raise IntegrityFailed(f"{SHARES} does not add up")
        return made

    def _keeper(self, index: int) -> str:
        return self.officers[index - 1] if 1 <= index <= len(self.officers) else f"number {index}"


class MasterKey:
    """The node key of one home. Whoever changes anything must be alone with it."""

    def __init__(self, folder: Path, store: Store, passphrase: bytes | None, shares: Shares) -> None:
        self._folder, self._store, self._passphrase, self._shares = folder, store, passphrase, shares
        self._master: Master | None = None

    @functools.cached_property
    def _given(self) -> tuple[Share, ...]:
        return tuple(self._shares())

    def read(self) -> Master:
        """Return the keys; nothing is written, so the node may be running or not.

        Raises:
            Unavailable: the node key is split, and too few shares are here.
            IntegrityFailed: no key here is the store's.
        """
        if self._master is None:
            self._master = self._find()[1]
        return self._master

    def settle(self) -> None:
        """Tidy up what a crash left of a change, and give homes of before the secrets that outlive the node key."""
        found, master = self._find()
        with self._store.write() as conn:
            if rotation.read_secret(conn, master.node_key, rotation.POPULATION) is None:
                rotation.keep_secret(conn, master.node_key, rotation.POPULATION, master.population_key)
        if found.endswith(NEXT):
            self._finish(found)
        for name in (NODE_KEY, SHARES):
            keyring.erase(self._folder / (name + NEXT))
        self._master = master

    def begin(self) -> None:
        """Make the secrets of a new home.

        Raises:
            InvalidSpec: the store is another node's.
        """
        key = keyring.read_node_key(self._folder / NODE_KEY, self._passphrase)
        with self._store.write() as conn:
            if rotation.names(conn):
                raise InvalidSpec(tell="the database is another node's", hint="give each node a database of its own")
            rotation.keep_secret(conn, key, rotation.POPULATION, secrets.token_bytes(32))

    def holders(self) -> Split | None:
        """Return who keeps the shares; None where the node key is in a file."""
        if (self._folder / NODE_KEY).exists() or not (self._folder / SHARES).exists():
            return None
        return Split.from_json((self._folder / SHARES).read_bytes())

    def into_file(self, enter: Enter) -> int:
        """Put a new node key, in a file, in the place of the one there is; returns how many values it took over."""
        self.settle()
        passphrase = keyring.matching_passphrase(self._folder, self._passphrase)
        new, following = secrets.token_bytes(KEY_SIZE), self._folder / (NODE_KEY + NEXT)
        keyring.write_node_key(following, new, passphrase)
        if keyring.read_node_key(following, passphrase) != new:
            raise IntegrityFailed(f"{following} does not read back as it was written")
        return self._replace(following.name, new, enter)

    def into_shares(
        self, need: int, officers: Sequence[str], hand_out: Callable[[Sequence[Share]], None], enter: Enter
    ) -> Split:
        """Put a new node key, known to officers together only, in the place of the one there is.

        Args:
            need: how many officers it takes to start the node.
            officers: their names; the first gets share 1.
            hand_out: brings the shares where they are to be, for good, or raises: then nothing changes.
            enter: notes it in the log.
        """
        if len(set(officers)) < len(officers) or not all(map(OFFICER.fullmatch, officers)):
            raise InvalidSpec(
                tell="officers are named each once, in lower-case letters, digits and hyphens",
                hint="give names, or files of cards that are there",
            )
        self.settle()
        new = secrets.token_bytes(KEY_SIZE)
        made = sharing.split(new, need, len(officers))
        split = Split(made[0].set_id, need, tuple(officers), tuple(share.mark for share in made))
        with self._store.read() as conn:
            rotation.check(conn, self.read().node_key)  # rather now than when shares are in people's hands
        hand_out(made)
        keyring.write_durably(self._folder / (SHARES + NEXT), split.to_json())
        self._replace(SHARES + NEXT, new, enter)
        return split

    def _replace(self, following: str, new: bytes, enter: Enter) -> int:
        old = self.read().node_key
        try:
            with self._store.write() as conn:
                count = rotation.rewrap(conn, old, new)
                enter(conn, count)
        except BaseException:
            if self._opens(old):  # not a matter of course: the commit may have failed to say that it succeeded
                keyring.erase(self._folder / following)
            raise
        self._finish(following)
        self._master = self._opens(new)
        return count

    def _finish(self, following: str) -> None:
        """Make what the store is under the only one: no more than this is left to do once the commit is through."""
        self._store.scrub()
        for name in (NODE_KEY, SHARES):
            keyring.erase(self._folder / name)
        os.rename(self._folder / following, self._folder / following.removesuffix(NEXT))
        keyring.sync_folder(self._folder)

    def _find(self) -> tuple[str, Master]:
        """Return which of the files there are counts, and the keys: the one that opens the store's secrets."""
        refused: list[SandboxError] = []
        for name in (NODE_KEY, NODE_KEY + NEXT, SHARES, SHARES + NEXT):
            try:
                if (key := self._key_of(name)) is not None:
                    if (master := self._opens(key)) is not None:
                        return name, master
                    refused.append(IntegrityFailed(tell=f"{self._folder / name} is not the key of this node's store"))
            except (Unavailable, InvalidSpec, IntegrityFailed) as error:
                refused.append(error)
        if not refused:
            raise NotFound(tell=f"no key file {self._folder / NODE_KEY}", hint="make a node with `sandbox init`")
        # Where shares could still help they are what to ask for.
        raise next((error for error in refused if isinstance(error, Unavailable)), refused[0])

    def _key_of(self, name: str) -> bytes | None:
        path = self._folder / name
        if not path.exists():
            return None
        if name.startswith(NODE_KEY):
            return keyring.read_node_key(path, self._passphrase)
        return Split.from_json(path.read_bytes()).join(self._given)

    def _opens(self, key: bytes) -> Master | None:
        """Return the keys if this is the one everything is sealed under."""
        with self._store.read() as conn:
            try:
                population = rotation.read_secret(conn, key, rotation.POPULATION)
                if population is None:  # a home of before: whatever there is has to open
                    rotation.check(conn, key)
                    population = rotation.first_population_key(key)
            except IntegrityFailed:
                return None
        return Master(key, population)
