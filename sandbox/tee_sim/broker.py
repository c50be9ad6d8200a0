"""The owner's side: whether an enclave gets a data key; key, rows and bundle sealed for it, and opened in it.

    quote --attest.verify--> Quote --release--> (nothing, or PolicyRefused)
    data key --grant_key--> sealed to the quote's ephemeral key, bound to that quote
    rows --seal_rows--> sealed under the data key, bound to their name
    bundle --seal_bundle--> the merchant's, sealed to an enclave that has loaded none yet

Security:  ``release`` is a pure decision over a verified quote and what the scenario's approvals name; it knows no
           default: an empty set allows nothing. ``grant_key`` takes the decision itself, so that no key can be sealed
           without it. A grant opens only in the enclave that gave the quote: it is sealed to a key that lives for one
           run, and bound to nonce, runtime and bundle. Rows are sealed under a key derived from the data key and fresh
           random bytes, so that a data key may serve several tables.
Reveals:   to whoever carries them: the length of a table in bytes. To the enclave's node, if simulated: everything.
Errors:    ``PolicyRefused`` with one wording for the caller; which question was answered wrongly is in its detail, for
           the data owner's log. ``IntegrityFailed`` for what does not open.
Not here:  the audit entry: the caller writes it, with the ``facts`` of the quote, for a refusal as well.
"""

from __future__ import annotations

import secrets
from collections.abc import Set
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from sandbox.crypto.envelope import open_with, seal_to
from sandbox.crypto.sm2 import PrivateKey
from sandbox.crypto.sm3 import domain, hkdf
from sandbox.crypto.sm4 import KEY_SIZE, TAG_SIZE, RecordOpener, RecordSealer
from sandbox.errors import IntegrityFailed, PolicyRefused
from sandbox.model import Fact
from sandbox.tee_sim.attest import Quote
from sandbox.tee_sim.stream import read_stream, write_stream

REFUSED: Final = "the enclave's quote is not what the data owners approved"
_RECORD: Final = 1 << 20  # bytes of rows in every record but the last
_SALT: Final = 32  # bytes


@dataclass(frozen=True, slots=True)
class Approved:
    """What a scenario's approvals allow to open an owner's rows. Empty sets allow nothing."""

    bundles: Set[bytes]
    runtimes: Set[bytes]
    levels: Set[str]
    accepts_simulated: bool


@dataclass(frozen=True, slots=True)
class Grant:
    """A data key sealed to one enclave, and what the audit entry says about it."""

    sealed: bytes
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Binding:
    """What a sealed key or bundle is tied to besides the enclave's ephemeral key; both sides know it."""

    nonce: bytes
    runtime: bytes
    bundle: bytes

    def under(self, kind: str) -> bytes:
        """Return what is authenticated; the first two have fixed sizes, so parts cannot run together."""
        return domain(kind) + self.nonce + self.runtime + self.bundle


def release(quote: Quote, wanted: Approved) -> None:
    """Decide whether the enclave of a verified quote may have a data key.

    Raises:
        PolicyRefused: it may not.
    """
    if quote.simulated and not wanted.accepts_simulated:
        raise PolicyRefused("the enclave is simulated, and an approval does not accept that", tell=REFUSED)
    if quote.bundle not in wanted.bundles:
        raise PolicyRefused(f"the enclave has loaded bundle {quote.bundle.hex() or 'none'}", tell=REFUSED)
    if quote.runtime not in wanted.runtimes:
        raise PolicyRefused(f"the enclave's runtime is {quote.runtime.hex()}", tell=REFUSED)
    if quote.level not in wanted.levels:
        raise PolicyRefused(f"the enclave's isolation level is {quote.level}", tell=REFUSED)


def facts(quote: Quote) -> tuple[Fact, ...]:
    """Return what an audit entry about a decision on this quote holds."""
    return (
        Fact("vendor", quote.vendor),
        Fact("level", quote.level),
        Fact("runtime", quote.runtime.hex()),
        Fact("bundle", quote.bundle.hex()),
        Fact("quote", quote.digest.hex()),
    )


def grant_key(key: bytes, quote: Quote, wanted: Approved) -> Grant:
    """Return a data key sealed to the enclave, if it may have one.

    Raises:
        PolicyRefused: it may not; nothing was sealed.
    """
    release(quote, wanted)
    return Grant(seal_to(quote.key, key, _binding(quote).under("grant")), facts(quote))


def open_grant(enclave: PrivateKey, sealed: bytes, binding: Binding) -> bytes:
    """Return the data key of a grant; only inside the enclave that gave the quote."""
    key = open_with(enclave, sealed, binding.under("grant"))
    if len(key) != KEY_SIZE:
        raise IntegrityFailed("a grant holds something other than a data key")
    return key


def seal_bundle(bundle: bytes, quote: Quote, merchant: str) -> bytes:
    """Return a merchant's bundle sealed to an enclave that has none yet. Simulated, its node's root can open it.

    Args:
        merchant: its key id; the bundle opens as this merchant's only.
    """
    return seal_to(quote.key, bundle, _binding(quote).under("sealed-bundle") + merchant.encode())


def open_bundle(enclave: PrivateKey, sealed: bytes, binding: Binding, merchant: str) -> bytes:
    """Return a sealed bundle; only inside the enclave that gave the quote, and only as the merchant's who sealed it."""
    return open_with(enclave, sealed, binding.under("sealed-bundle") + merchant.encode())


def seal_rows(key: bytes, name: str, table: pa.Table) -> bytes:
    """Return a table sealed under a data key, as the input table ``name``."""
    salt, plain = secrets.token_bytes(_SALT), write_stream(table)
    sealer = RecordSealer(_row_key(key, salt, name), b"rows")
    starts = range(0, len(plain), _RECORD)  # a stream is never empty
    parts = [sealer.seal(plain[at : at + _RECORD], _flag(at + _RECORD >= len(plain))) for at in starts]
    return b"".join([salt, *parts])


def open_rows(key: bytes, name: str, sealed: bytes) -> pa.Table:
    """Return the table that was sealed as ``name``.

    Raises:
        IntegrityFailed: it was sealed under another key or name, or is not complete and unchanged.
    """
    opener = RecordOpener(_row_key(key, sealed[:_SALT], name), b"rows")
    stride, parts = _RECORD + TAG_SIZE, []
    for at in range(_SALT, max(len(sealed), _SALT + 1), stride):
        parts.append(opener.open(sealed[at : at + stride], _flag(at + stride >= len(sealed))))
    return read_stream(b"".join(parts))


def _binding(quote: Quote) -> Binding:
    return Binding(quote.nonce, quote.runtime, quote.bundle)


def _row_key(key: bytes, salt: bytes, name: str) -> bytes:
    return hkdf(key, salt, domain("rows") + name.encode("utf-8"), KEY_SIZE)


def _flag(last: bool) -> bytes:
    return b"\x01" if last else b"\x00"
