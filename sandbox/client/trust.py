"""Whose signatures an auditor believes, and what a receipt then proves.

    origin <verifier key>           whose log it is: exactly one line
    witness <verifier key>          who may co-sign: any number of lines
    # remark                        skipped, as empty lines are

Source:    verifier keys and receipts as in ``sandbox.audit.checkpoint`` and ``sandbox.audit.receipt``.
Security:  write or check this file by means other than the network it is to judge; a receipt proves nothing more than
           the keys in here are worth.
Errors:    ``InvalidSpec`` for a malformed trust file, ``IntegrityFailed`` for a receipt that does not hold.
Not here:  the same check without this package (``sandbox/audit/verify_receipt.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sandbox import wire
from sandbox.audit import receipt as receipts
from sandbox.audit.checkpoint import Checkpoint, VerifierKey, has_cosignature
from sandbox.audit.receipt import Receipt
from sandbox.client.files import read_file
from sandbox.errors import IntegrityFailed, InvalidSpec
from sandbox.model import Entry


@dataclass(frozen=True, slots=True)
class Trust:
    """The log's owner and those whose co-signatures count."""

    origin: VerifierKey
    witnesses: tuple[VerifierKey, ...]

    @classmethod
    def from_text(cls, text: str) -> Trust:
        """Read the lines described above."""
        keys: dict[str, list[VerifierKey]] = {"origin": [], "witness": []}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            role, _, key = line.strip().partition(" ")
            if role not in keys:
                raise InvalidSpec(f"trust file, line {number}: neither origin nor witness")
            try:
                keys[role].append(VerifierKey.from_text(key.strip()))
            except InvalidSpec as error:
                raise InvalidSpec(f"trust file, line {number}: {error}") from None
        if len(keys["origin"]) != 1:
            raise InvalidSpec(f"trust file: {len(keys['origin'])} origins; exactly one is needed")
        return cls(keys["origin"][0], tuple(keys["witness"]))

    @classmethod
    def from_file(cls, path: Path) -> Trust:
        """Read a trust file."""
        try:
            return cls.from_text(read_file(path).decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise InvalidSpec(f"{path}: a trust file is UTF-8") from None

    def verify(self, text: bytes, required: int = 1) -> Proven:
        """Return what ``text``, a receipt, proves: no result counts without it.

        Args:
            text: the receipt.
            required: how many different witnesses must have co-signed.
        """
        receipt = Receipt.from_text(text)
        checkpoint = receipts.verify(receipt, self.origin, self.witnesses, required)
        signed = receipt.signed_note()
        cosigners = tuple(w.name for w in self.witnesses if has_cosignature(signed, w) and w.key != self.origin.key)
        return Proven(checkpoint, receipt.index, read_entry(receipt.leaf), cosigners)


@dataclass(frozen=True, slots=True)
class Proven:
    """An entry, its place, the checkpoint that covers it, and who co-signed that."""

    checkpoint: Checkpoint
    index: int
    entry: Entry
    cosigners: tuple[str, ...]


def read_entry(leaf: bytes) -> Entry:
    """Return the entry in a leaf.

    Raises:
        IntegrityFailed: it is none.
    """
    try:
        return wire.decode(Entry, leaf)
    except InvalidSpec as error:
        raise IntegrityFailed(f"a leaf of the log is no entry: {error.tell}") from None
