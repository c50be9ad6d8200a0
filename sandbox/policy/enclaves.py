"""Who may open a data owner's rows in an enclave, and this node's own word on where code would run.

    scenario, approved --approved--> what the broker compares a quote with
    quote(nonce, bundle) --quoted, release--> facts for the audit entry, or PolicyRefused

Security:  the enclave is this node's own and so are the rows: that it is simulated needs nobody's acceptance. Rows of
           another organisation never come here. The runtime is compared with what this node measured: a scenario
           names bundles and a level, and no runtime; the entry names it, for whoever compares it with another node's.
Errors:    ``PolicyRefused`` with one wording.
Not here:  the decision (``tee_sim.broker``), the jail (``kinds.confined``).
"""

from __future__ import annotations

import secrets

from sandbox import signed
from sandbox.crypto.sm2 import PrivateKey
from sandbox.keyring import NodeKeys
from sandbox.kinds import confined
from sandbox.model import Scenario
from sandbox.tee_sim import attest, broker
from sandbox.tee_sim.attest import Expectation, Quote, SimulatedAttester
from sandbox.tee_sim.broker import Approved
from sandbox.tee_sim.levels import Level


def approved(scenario: Scenario) -> Approved:
    """Return what a scenario's approvals let open the rows of this node."""
    levels = tuple(Level)  # strongest first
    return Approved(
        bundles=frozenset(scenario.bundles),
        runtimes=frozenset({attest.measure_runtime()}),
        levels=frozenset(level.value for level in levels[: levels.index(confined.least(scenario)) + 1]),
        accepts_simulated=True,  # the node's own rows, in its own enclave
    )


def quote(keys: NodeKeys, level: str, nonce: bytes, bundle: bytes) -> bytes:
    """Return this node's quote of its runtime, and of a bundle if one is named, over a key that is nobody's."""
    certificate = signed.certify(keys.identity, "attestation", keys.attestation.public)
    fresh = PrivateKey.generate().public.to_bytes()
    return SimulatedAttester(keys.attestation, certificate, level).quote(nonce, bundle, fresh)


def quoted(keys: NodeKeys, level: str, bundle: bytes) -> Quote:
    """Return this node's quote of a bundle, over a nonce of this moment, as its verifier read it."""
    nonce = secrets.token_bytes(attest.NONCE_SIZE)
    text = quote(keys, level, nonce, bundle)
    return attest.verify(text, keys.identity.public, Expectation(nonce=nonce, bundle=bundle))


def release(found: Quote, scenario: Scenario) -> None:
    """Decide whether the enclave of a quote may open rows of this node under a scenario.

    Raises:
        PolicyRefused: it may not.
    """
    broker.release(found, approved(scenario))
