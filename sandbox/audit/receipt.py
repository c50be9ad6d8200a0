"""The proof, in one small file, that an entry is in a log which others watch.

    c2sp.org/tlog-proof@v1
    extra <base64 of the entry>
    index <number>
    <base64 of 32 bytes>            one line a digest of the inclusion path, from the leaf's side to the root's
                                    an empty line
    <origin>                        from here on the checkpoint, as ``checkpoint`` describes it
    <size>
    <root>
                                    an empty line
    — <signature of the origin>
    — <co-signature>                one line each

Source:    C2SP tlog-proof v1, with the entry itself as the extra data and SM3 as the hash of the tree.
Security:  the entry is believed only because its digest leads to the root; nothing here is secret. A receipt counts
           when the origin and at least ``required`` of the given co-signers signed: the origin never counts as its
           own co-signer, two names with one key count once, and one bad line of a known key spoils the whole.
Shapes:    every line ends in a newline; base64 is padded and canonical; an entry has 1 to 65 536 bytes, a path at most
           63 digests, a note one signature line and a receipt at most 31 further ones, all within ``MAX_TEXT``.
Errors:    ``IntegrityFailed`` on anything malformed, too long or not proven.
Not here:  the same check without this package (``verify_receipt.py``, beside this file), which must agree.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.audit.checkpoint import (
    LIMIT,
    MAX_NOTE,
    Checkpoint,
    VerifierKey,
    decode_base64,
    has_cosignature,
    parse_checkpoint,
    split_note,
    verify_checkpoint,
    verify_cosignature,
)
from sandbox.audit.merkle import verify_inclusion
from sandbox.crypto.sm3 import sm3
from sandbox.errors import IntegrityFailed

MAX_LEAF = 65_536  # bytes
MAX_PATH = 63  # digests: no tree here is higher
MAX_TEXT = 2 * MAX_LEAF + MAX_NOTE  # bytes

_TEXT = re.compile(
    rb"c2sp\.org/tlog-proof@v1\nextra ([A-Za-z0-9+/]+={0,2})\nindex (0|[1-9][0-9]{0,18})\n"
    rb"((?:[A-Za-z0-9+/]{43}=\n){0,63})\n(.+\n)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """An entry, its place and path in a log, the origin's note and the co-signature lines of others."""

    leaf: bytes
    index: int
    path: tuple[bytes, ...]
    note: bytes
    cosignatures: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.leaf) <= MAX_LEAF or not 0 <= self.index < LIMIT:
            raise IntegrityFailed("receipt: no such entry or index")
        if len(self.path) > MAX_PATH or any(len(digest) != 32 for digest in self.path):
            raise IntegrityFailed("receipt: the path is not of digests, or too long")
        parse_checkpoint(self.note)
        if [self.note, *self.cosignatures] != _divide(self.signed_note()):
            raise IntegrityFailed("receipt: more than one signature where there must be one")

    def signed_note(self) -> bytes:
        """Return the checkpoint with all its signature lines."""
        return self.note + b"".join(self.cosignatures)

    def to_text(self) -> bytes:
        """Return the file."""
        lines = [
            b"c2sp.org/tlog-proof@v1",
            b"extra " + base64.b64encode(self.leaf),
            b"index %d" % self.index,
            *map(base64.b64encode, self.path),
            b"",
            self.signed_note(),
        ]
        return b"\n".join(lines)

    @classmethod
    def from_text(cls, text: bytes) -> Receipt:
        """Read the file.

        Raises:
            IntegrityFailed: it is malformed or too long.
        """
        match = _TEXT.fullmatch(text) if len(text) <= MAX_TEXT else None
        if match is None:
            raise IntegrityFailed("receipt: malformed or too long")
        leaf, index, path, signed = match.groups()
        note, *cosignatures = _divide(signed)
        return cls(
            decode_base64(leaf),
            int(index),
            tuple(decode_base64(digest) for digest in path.splitlines()),
            note,
            tuple(cosignatures),
        )


def verify(
    receipt: Receipt, origin_key: VerifierKey, witnesses: Sequence[VerifierKey], required: int = 1
) -> Checkpoint:
    """Return the checkpoint that proves the entry, signed by the origin and ``required`` different co-signers.

    Raises:
        IntegrityFailed: the entry is not under that root, or a signature is bad or missing.
    """
    signed = receipt.signed_note()
    checkpoint = verify_checkpoint(signed, origin_key)
    verify_inclusion(receipt.leaf, receipt.index, checkpoint.size, receipt.path, checkpoint.root, sm3)
    cosigners = set()
    for witness in witnesses:
        if witness.name == origin_key.name or witness.key == origin_key.key:
            continue
        if has_cosignature(signed, witness):
            verify_cosignature(signed, witness)
            cosigners.add(witness.key)
    if len(cosigners) < required:
        raise IntegrityFailed(f"receipt: {len(cosigners)} co-signers, {required} are required")
    return checkpoint


def _divide(signed: bytes) -> list[bytes]:
    """Return the note with its first signature line, then each further line."""
    body, lines = split_note(signed)
    return [body + b"\n" + lines[0], *lines[1:]]
