"""SM4-GCM: one-shot sealing, and records in a fixed order.

    seal(key, nonce, plaintext, aad)  ->  ciphertext || 16-byte tag

Source:    GB/T 32907-2016 (SM4), NIST SP 800-38D (GCM), RFC 8998 (the two together), computed by OpenSSL through
           ``cryptography``.
Security:  a nonce must never repeat under one key: it would give away the XOR of two plaintexts and the
           authentication key. ``RecordSealer`` counts, so prefer it; callers of ``seal`` use a fresh key per message.
           A sealer can be neither copied nor pickled, because the copy would count from the same number.
Reveals:   to whoever sees the bytes: the length of the plaintext.
Shapes:    key 16 bytes, nonce 12 bytes, tag 16 bytes at the end; sender 4 bytes.
Errors:    ``IntegrityFailed`` if sealed bytes do not open, whatever the cause; ``InvalidSpec`` on a wrong size;
           ``WrongState`` when a sealer has used its last nonce.
Not here:  where keys come from (``sm3.hkdf``, ``sm2``), envelopes to a public key (``envelope``).
"""

from __future__ import annotations

import threading
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from sandbox.errors import IntegrityFailed, InvalidSpec, WrongState

KEY_SIZE: Final = 16  # bytes
NONCE_SIZE: Final = 12  # bytes
TAG_SIZE: Final = 16  # bytes
SENDER_SIZE: Final = 4  # bytes; the rest of the nonce is the counter

_COUNTER_END: Final = 1 << 64


def seal(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Encrypt and authenticate ``plaintext``, and authenticate ``aad`` with it.

    The caller must never use the same nonce twice under one key.
    """
    _check_sizes(key, nonce)
    context = Cipher(algorithms.SM4(key), modes.GCM(nonce)).encryptor()
    context.authenticate_additional_data(aad)
    return b"".join((context.update(plaintext), context.finalize(), context.tag))


def unseal(key: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
    """Return the plaintext of ``seal``.

    Raises:
        IntegrityFailed: the key, the nonce, the bytes or ``aad`` are not those of ``seal``.
    """
    _check_sizes(key, nonce)
    if len(sealed) < TAG_SIZE:
        raise IntegrityFailed("sealed bytes are shorter than their tag")
    view = memoryview(sealed)
    context = Cipher(algorithms.SM4(key), modes.GCM(nonce, bytes(view[-TAG_SIZE:]))).decryptor()
    context.authenticate_additional_data(aad)
    plaintext = context.update(view[:-TAG_SIZE])
    try:
        return plaintext + context.finalize()
    except InvalidTag:
        raise IntegrityFailed("sealed bytes do not authenticate") from None


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
