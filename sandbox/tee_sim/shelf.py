"""Where a node takes secret bundles in: an enclave that has loaded none, quoted before it gets one.

    key --attest quote, no bundle--> merchant --broker.seal_bundle--> sealed --open--> archive

Security:  the key is made when the node starts and is gone when it ends: a bundle that was sealed before does not open
           after. It keeps a bundle from whoever sees the upload: a proxy that ends TLS, the disk it is buffered on. It
           opens for the merchant who sealed it only: nobody hands in what he overheard as his own.
Reveals:   to the node, since it is simulated: the bundle. Its root can read the key from memory.
Errors:    ``WrongState`` for what does not open: another key's, another nonce's, another runtime's, or changed.
Not here:  quotes (``attest``), what becomes of the archive (``catalog.bundles``).
"""

from __future__ import annotations

from typing import Final

from sandbox.crypto.envelope import RECORD_SIZE
from sandbox.crypto.sm2 import PrivateKey
from sandbox.crypto.sm4 import TAG_SIZE
from sandbox.errors import IntegrityFailed, WrongState
from sandbox.tee_sim.attest import measure_runtime
from sandbox.tee_sim.broker import Binding, open_bundle
from sandbox.tee_sim.bundle import MOST_BYTES

MOST_SEALED: Final = MOST_BYTES + (MOST_BYTES // RECORD_SIZE + 1) * TAG_SIZE + 1024  # bytes; the last for the header


class Shelf:
    """Opens bundles that were sealed to a quote of this process."""

    def __init__(self) -> None:
        self._key = PrivateKey.generate()

    @property
    def key(self) -> bytes:
        """The public key for quotes, 65 bytes."""
        return self._key.public.to_bytes()

    def open(self, sealed: bytes, nonce: bytes, merchant: str) -> bytes:
        """Return the archive of a bundle that a merchant, by its key id, sealed to the quote that answered ``nonce``.

        Raises:
            WrongState: it was sealed to another quote or by another merchant, or was changed.
        """
        try:
            return open_bundle(self._key, sealed, Binding(nonce, measure_runtime(), b""), merchant)
        except IntegrityFailed as error:
            raise WrongState(
                f"a sealed bundle does not open: {error}",
                tell="the bundle was not sealed under your key to a quote that this node gave since it started",
                hint="hand it in again: it is then sealed to a new quote",
            ) from None
