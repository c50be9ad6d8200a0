"""Who may open a data owner's rows in an enclave, and this node's own word on where code would run.

    scenario, approved --approved--> what the broker compares a quote with
    quote(nonce, bundle) --quoted, release--> facts for the audit entry, or PolicyRefused

Security:  where the enclave is this node's own and so are the rows, that it is simulated needs nobody's acceptance;
           rows of this node go into another's only if this party's approval accepts it. A scenario names programs, a
           level and, if it likes, runtimes; without those it is the one that this node measured itself.
Errors:    ``PolicyRefused`` with one wording.
Not here:  the decision (``tee_sim.broker``), the jail (``kinds.confined``).
"""

from __future__ import annotations

import secrets

from sandbox import signed
from sandbox.crypto.sm2 import PrivateKey, PublicKey
from sandbox.keyring import NodeKeys
from sandbox.kinds import confined
from sandbox.model import JobSpec, ModelSpec, Scenario
from sandbox.tee_sim import attest, broker
from sandbox.tee_sim.attest import Expectation, Quote, SimulatedAttester
from sandbox.tee_sim.broker import Approved
from sandbox.tee_sim.levels import Level


def approved(scenario: Scenario, spec: JobSpec, accepts_simulated: bool = True) -> Approved:
    """Return what a scenario's approvals let open the rows of this node for a job.

    A bundle has to be one that the scenario names. A statement is none: admission has read it against the scenario.

    Args:
        accepts_simulated: whether a simulated enclave will do; the node's own does for its own rows.
    """
    levels = tuple(Level)  # strongest first
    program = frozenset({confined.program_of(spec)})
    return Approved(
        bundles=program & frozenset(scenario.bundles) if isinstance(spec.kind, ModelSpec) else program,
        runtimes=frozenset(scenario.runtimes or {attest.measure_runtime()}),
        levels=frozenset(level.value for level in levels[: levels.index(confined.least(scenario)) + 1]),
        accepts_simulated=accepts_simulated,
    )


def quote(keys: NodeKeys, level: str, nonce: bytes, program: bytes, key: bytes = b"") -> bytes:
    """Return this node's quote of its runtime, and of a program if one is named, over an enclave's key.

    Args:
        key: the public key of the enclave, 65 bytes; where nothing will be sealed to it, one that is nobody's.
    """
    certificate = signed.certify(keys.identity, "attestation", keys.attestation.public)
    fresh = key or PrivateKey.generate().public.to_bytes()
    return SimulatedAttester(keys.attestation, certificate, level).quote(nonce, program, fresh)


def quoted(keys: NodeKeys, level: str, bundle: bytes) -> Quote:
    """Return this node's quote of a bundle, over a nonce of this moment, as its verifier read it."""
    nonce = secrets.token_bytes(attest.NONCE_SIZE)
    text = quote(keys, level, nonce, bundle)
    return attest.verify(text, keys.identity.public, Expectation(nonce=nonce, bundle=bundle))


def release(found: Quote, scenario: Scenario, spec: JobSpec) -> None:
    """Decide whether this node's enclave of a quote may open rows of this node under a scenario.

    Raises:
        PolicyRefused: it may not.
    """
    broker.release(found, approved(scenario, spec))


def read(text: bytes, nonce: bytes, root: PublicKey) -> Quote:
    """Return another node's quote, if it is that node's and answers this node's nonce; what it says is still open.

    Raises:
        IntegrityFailed, InvalidSpec, PolicyRefused: it is not.
    """
    return attest.verify(text, root, Expectation(nonce=nonce))
