"""SM4-GCM: one-shot sealing, and records in a fixed order.

    seal(key, nonce, plaintext, aad)  ->  ciphertext || 16-byte tag

Source:    GB/T 32907-2016 (SM4), NIST SP 800-38D (GCM), RFC 8998 (the two together).
Security:  a nonce must never repeat under one key: it would give away the XOR of two plaintexts and the
           authentication key. ``RecordSealer`` counts, so prefer it; callers of ``seal`` use a fresh key per message.
           A sealer can be neither copied nor pickled, because the copy would count from the same number.
           "gfni": no branch and no address depends on a key, a plaintext or a tag; the S-box is computed, not looked
           up. Nothing is decrypted before the tag is found right. Keys and work space are wiped, registers are not.
           "openssl": looks bytes up in tables, at addresses that depend on the key.
Reveals:   to whoever sees the bytes: the length of the plaintext.
Shapes:    key 16 bytes, nonce 12 bytes, tag 16 bytes at the end; sender 4 bytes; plaintexts up to 2^36 - 32 bytes.
Units:     the interpreter's lock is given up for long plaintexts.
Errors:    ``IntegrityFailed`` if sealed bytes do not open, whatever the cause; ``InvalidSpec`` on a wrong size;
           ``WrongState`` when a sealer has used its last nonce.
Not here:  where keys come from (``sm3.hkdf``, ``sm2``), envelopes to a public key (``envelope``).

``BACKEND`` is "gfni" (in C, for processors with GFNI and VPCLMULQDQ) or "openssl" (through ``cryptography``, 5 to 25
times slower); ``WHY`` says why in a sentence. The environment variable ``SANDBOX_SM4`` set to one of the names forces
it. What one seals the other opens.
"""

from __future__ import annotations

import os
import threading
from types import ModuleType
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from sandbox.crypto.backends import asked_for
from sandbox.errors import IntegrityFailed, InvalidSpec, WrongState

_native: ModuleType | None
try:
    from sandbox.crypto._sm4 import _native
except ImportError:  # not built: no compiler at installation
    _native = None

KEY_SIZE: Final = 16  # bytes
NONCE_SIZE: Final = 12  # bytes
TAG_SIZE: Final = 16  # bytes
SENDER_SIZE: Final = 4  # bytes; the rest of the nonce is the counter
VARIABLE: Final = "SANDBOX_SM4"

_COUNTER_END: Final = 1 << 64
_MOST_BYTES: Final = (1 << 36) - 32  # under one nonce
_GFNI: Final = "gfni"
_OPENSSL: Final = "openssl"


def backends() -> tuple[str, ...]:
    """Return the back ends that can run here, fastest first."""
    return (_GFNI, _OPENSSL) if _native is not None and _native.runs() else (_OPENSSL,)


def choose(forced: str) -> tuple[str, str]:
    """Return the name of the back end to use and the reason; ``forced`` is a name or empty.

    Raises:
        Unavailable: ``forced`` names something that cannot run here.
    """
    here = backends()
    if forced:
        return asked_for(VARIABLE, forced, here)
    if here[0] == _GFNI:
        return _GFNI, "64 blocks at a time with GFNI and VPCLMULQDQ"
    if _native is None:
        return _OPENSSL, (
            "the C extension of this package was not built, so SM4 is computed by OpenSSL, 5 to 25 times slower; "
            "install gcc and the package again"
        )
    return _OPENSSL, "this processor has no GFNI or no VPCLMULQDQ, so SM4 is computed by OpenSSL"


_HERE: Final = backends()
BACKEND, WHY = choose(os.environ.get(VARIABLE, ""))


def seal(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes, *, backend: str = BACKEND) -> bytes:
    """Encrypt and authenticate ``plaintext``, and authenticate ``aad`` with it.

    The caller must never use the same nonce twice under one key.

    Raises:
        InvalidSpec: a size is wrong, or there is no such back end here.
    """
    native = _checked(key, nonce, len(plaintext), backend)
    if native is not None:
        sealed: bytes = native.seal(key, nonce, plaintext, aad)
        return sealed
    context = Cipher(algorithms.SM4(key), modes.GCM(nonce)).encryptor()
    context.authenticate_additional_data(aad)
    return b"".join((context.update(plaintext), context.finalize(), context.tag))


def unseal(key: bytes, nonce: bytes, sealed: bytes, aad: bytes, *, backend: str = BACKEND) -> bytes:
    """Return the plaintext of ``seal``.

    Raises:
        IntegrityFailed: the key, the nonce, the bytes or ``aad`` are not those of ``seal``.
        InvalidSpec: the size of the key or the nonce is wrong, or there is no such back end here.
    """
    native = _checked(key, nonce, 0, backend)
    if not TAG_SIZE <= len(sealed) <= _MOST_BYTES + TAG_SIZE:
        raise IntegrityFailed("sealed bytes are shorter than their tag, or longer than there are")
    if native is not None:
        opened: bytes | None = native.unseal(key, nonce, sealed, aad)
        if opened is None:
            raise IntegrityFailed("sealed bytes do not authenticate")
        return opened
    view = memoryview(sealed)
    context = Cipher(algorithms.SM4(key), modes.GCM(nonce, bytes(view[-TAG_SIZE:]))).decryptor()
    context.authenticate_additional_data(aad)
    plaintext = context.update(view[:-TAG_SIZE])
    try:
        return plaintext + context.finalize()
    except InvalidTag:
        raise IntegrityFailed("sealed bytes do not authenticate") from None


def _checked(key: bytes, nonce: bytes, size: int, backend: str) -> ModuleType | None:
    """Check sizes; return the extension if it is to be used."""
    _check_sizes(key, nonce)
    if size > _MOST_BYTES:
        raise InvalidSpec("one nonce serves 2^36 - 32 bytes")
    if backend not in _HERE:
        raise InvalidSpec("there is no such back end for SM4 on this machine")
    return _native if backend == _GFNI else None


class _Counter:
    """A key and a counter nonce, ``sender || count``: hands out each nonce once."""

    def __init__(self, key: bytes, sender: bytes) -> None:
        if len(sender) != SENDER_SIZE:
            raise InvalidSpec(f"a sender is {SENDER_SIZE} bytes, not {len(sender)}")
        _check_sizes(key, bytes(NONCE_SIZE))
        self._key, self._sender, self._count = key, sender, 0
        self._lock = threading.Lock()

    def _nonce(self) -> bytes:
        if self._count >= _COUNTER_END:
            raise WrongState("every nonce of this key is used; open a new connection")
        return self._sender + self._count.to_bytes(8, "big")

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds a key and a nonce counter: it cannot be copied or pickled")


class RecordSealer(_Counter):
    """Seals records in order, the first under count 0. Two sealers of one key must have different senders."""

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        """Seal the next record.

        Raises:
            WrongState: 2**64 records have been sealed.
        """
        with self._lock:
            nonce = self._nonce()
            self._count += 1  # before sealing: a nonce is spent even if sealing fails
        return seal(self._key, nonce, plaintext, aad)


class RecordOpener(_Counter):
    """Opens the records of one sealer, each once and in order. A record that fails does not advance it."""

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """Open the next record.

        Raises:
            IntegrityFailed: it was changed, or it is not the next one: lost, repeated or reordered.
            WrongState: 2**64 records have been opened.
        """
        with self._lock:
            plaintext = unseal(self._key, self._nonce(), sealed, aad)
            self._count += 1
        return plaintext


def _check_sizes(key: bytes, nonce: bytes) -> None:
    if len(key) != KEY_SIZE:
        raise InvalidSpec(f"an SM4 key is {KEY_SIZE} bytes, not {len(key)}")
    if len(nonce) != NONCE_SIZE:
        raise InvalidSpec(f"a nonce is {NONCE_SIZE} bytes, not {len(nonce)}")
