"""Calls about a merchant's own models: hand a bundle in, take it back, and have a node prove what would run it.

Security:  the signed beginning of an upload carries measurement and digest; the statement that the bundle is the
           caller's is signed apart from it. A quote is checked offline, against the node's card and a nonce made here,
           before it is returned. Every quote is SIMULATED: it proves what the node says, and nothing about hardware,
           and a bundle that was sealed to one can be read by that node's root all the same.
Errors:    ``InvalidSpec`` for a file that no node would take, before anything is sent; of quotes, as in
           ``tee_sim.attest``.
Not here:  what a bundle is and how it is packed (``tee_sim.bundle``).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sandbox import signed
from sandbox.client.connection import CHUNK, Connection
from sandbox.client.datasets import UPLOAD_RATE, UPLOAD_S, Progress
from sandbox.client.files import read_file
from sandbox.crypto.sm3 import sm3
from sandbox.errors import IntegrityFailed
from sandbox.keyring import public_key
from sandbox.model import BundleQuery, BundleStatement, BundleUpload, BundleView, ListQuery, QuoteQuery, QuoteView
from sandbox.tee_sim import attest
from sandbox.tee_sim.attest import Expectation, Quote
from sandbox.tee_sim.broker import seal_bundle
from sandbox.tee_sim.bundle import MOST_BYTES, parse


@dataclass(frozen=True, slots=True)
class Quoted:
    """A quote as it came, and what it says; it has been checked."""

    quote: Quote
    text: bytes = field(repr=False)


class ModelCalls:
    """What a merchant with a model of its own can do, and who looks after it."""

    _line: Connection

    def put_bundle(
        self, path: Path, progress: Progress | None = None, *, seal: bool = False, expect: Expectation | None = None
    ) -> BundleView:
        """Hand a packed bundle in, with a statement that it is the caller's; again, it changes nothing.

        Args:
            seal: to a fresh quote of the node's enclave, before it is sent.
            expect: what that quote has to be, beside fresh: runtimes, levels.

        Raises:
            PolicyRefused: the quote is another than expected; nothing was sent.
        """
        archive = read_file(path, MOST_BYTES)
        bundle = parse(archive)
        said = BundleStatement(bundle.measurement, bundle.manifest.name, signed.now_ms())
        statement = signed.sign(self._line.person.identity, "bundle", said)
        sent, nonce = archive, b""
        if seal:
            found = self.quote().quote
            attest.check(found, expect or Expectation())
            sent, nonce = seal_bundle(archive, found, statement.key_id), found.nonce
        body = BundleUpload(bundle.measurement, len(sent), sm3(sent), statement, nonce)
        answer = self._line.upload(
            "ModelService/PutBundle",
            body,
            _chunks(sent, progress),
            timeout_s=UPLOAD_S + len(sent) / UPLOAD_RATE,
        )
        view = self._line.read(BundleView, answer.bundle)
        if view.measurement != bundle.measurement:
            raise IntegrityFailed("the node answered about another bundle", party=self._line.node.node_id)
        return view

    def withdraw_bundle(self, measurement: bytes) -> BundleView:
        """Have the node destroy a bundle's key and file: one's own, or any if the caller is the node's operator.

        Jobs that name it are refused from then on. Withdrawn again, it changes nothing.
        """
        answer = self._line.call("ModelService/WithdrawBundle", BundleQuery(measurement))
        return self._line.read(BundleView, answer.bundle)

    def bundles(self, after: str = "", limit: int = 0) -> tuple[BundleView, ...]:
        """Return one page of the bundles at the node: the caller's own, or all for its operator, owners, reviewers."""
        answer = self._line.call("ModelService/ListBundles", ListQuery(after, limit))
        return tuple(self._line.read(BundleView, bundle) for bundle in answer.bundles)

    def quote(self, bundle: bytes = b"", nonce: bytes = b"") -> Quoted:
        """Return a quote of the node's runtime, and of a bundle if its measurement is given, checked against the card.

        Args:
            bundle: the measurement of a bundle that is at the node.
            nonce: 32 bytes; by default, fresh random ones.
        """
        nonce = nonce or secrets.token_bytes(attest.NONCE_SIZE)
        answer = self._line.call("ModelService/GetQuote", QuoteQuery(nonce, bundle))
        text = self._line.read(QuoteView, answer.quote).quote
        found = attest.verify(text, public_key(self._line.node), Expectation(nonce=nonce, bundle=bundle))
        return Quoted(found, text)


def _chunks(archive: bytes, progress: Progress | None) -> Iterator[bytes]:
    for first in range(0, len(archive), CHUNK):
        yield archive[first : first + CHUNK]
        if progress is not None:
            progress(min(first + CHUNK, len(archive)), len(archive))
