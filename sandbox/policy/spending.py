"""Consents at one owner's node: reserved, spent, given back, withdrawn. Every function works inside the caller's
transaction, the one that also holds the audit entry: of two calls at once on a token's last use, one is refused.

    reserved at admission ── spent before the first engine byte ── given back only if none was sent

Security:  lines of the test environment are counted apart and never against a call in production. The entry commits to
           token and evidence by SM3(salt ‖ token ‖ evidence); what opens it is kept under the node key. A withdrawal
           counts if its key signed the token, certified its key, or is certified as the same person's own; all others
           lie here without effect. A person is kept as a keyed hash.
Reveals:   to the submitter, that the own token is used up or withdrawn; not by whom, when or why. Whoever asked another
           owner's node hears from that node only that the scenario does not allow it.
Errors:    ``BudgetSpent``: used up; ``PolicyRefused``: withdrawn, or a withdrawal by a stranger.
Not here:  whether a token is for this call (``consent``); who carries withdrawals (``api.consents``).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select, update

from sandbox import signed, wire
from sandbox.crypto.sm2 import PublicKey
from sandbox.crypto.sm3 import hkdf, hmac_sm3, sm3, tagged
from sandbox.crypto.sm4 import NONCE_SIZE, seal, unseal
from sandbox.errors import BudgetSpent, NotFound, PolicyRefused, Unauthenticated
from sandbox.model import ConsentWithdrawal, Environment, Scenario, WithdrawalNotice
from sandbox.policy.consent import DIGEST, Consented, certified_key
from sandbox.store import consents, withdrawn_consents

SALT: Final = 32  # bytes


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A withdrawal that was checked, and who proved to be its signer."""

    token: bytes
    scenario_digest: bytes
    signer: str  # key id
    person: str = field(repr=False)  # whose own key it is; empty: an issuer's
    notice: WithdrawalNotice = field(repr=False)


@dataclass(frozen=True, slots=True)
class Untold:
    """A withdrawal, and the owners that do not have it yet."""

    notice: WithdrawalNotice = field(repr=False)
    scenario_digest: bytes
    parties: tuple[str, ...]


# --- use -------------------------------------------------------------------------------------------------------------


def reserve(
    conn: Connection,
    node_key: bytes,
    job_id: str,
    consent: Consented,
    environment: Environment = Environment.PRODUCTION,
) -> bytes:
    """Reserve one call on a consent; returns the digest by which the entry commits to it.

    Raises:
        BudgetSpent: it was used as often as it allows.
    """
    mine = (consents.c.token == consent.token, consents.c.environment == int(environment))
    used = conn.scalar(select(func.count()).select_from(consents).where(*mine)) or 0
    if used >= consent.uses:
        told = "this consent was used already" + (f", {consent.uses} times" if consent.uses > 1 else "")
        raise BudgetSpent(tell=told, hint="ask the person for a new consent")
    content = secrets.token_bytes(SALT) + consent.token + consent.evidence
    nonce = secrets.token_bytes(NONCE_SIZE)
    conn.execute(
        insert(consents).values(
            token=consent.token,
            environment=int(environment),
            job_id=job_id,
            state="reserved",
            sealed=nonce + seal(node_key, nonce, content, use_context(consent.token, environment, job_id)),
        )
    )
    return sm3(content)


def spend(conn: Connection, job_id: str) -> None:
    """Make a reservation final."""
    conn.execute(update(consents).where(consents.c.job_id == job_id).values(state="spent"))


def give_back(conn: Connection, job_id: str) -> None:
    """Return a reservation that was never spent."""
    conn.execute(delete(consents).where(consents.c.job_id == job_id, consents.c.state == "reserved"))


def opening(conn: Connection, node_key: bytes, job_id: str) -> bytes:
    """Return what opens the commitment of a job's entry: salt, token digest and, where there is some, evidence.

    Raises:
        NotFound: the job used no consent at this node, or gave it back.
    """
    row = conn.execute(select(consents).where(consents.c.job_id == job_id)).one_or_none()
    if row is None:
        raise NotFound(tell=f"job {job_id} has used no consent at this node")
    context = use_context(bytes(row.token), Environment(row.environment), job_id)
    return unseal(node_key, row.sealed[:NONCE_SIZE], row.sealed[NONCE_SIZE:], context)


def opened(content: bytes) -> tuple[bytes, bytes]:
    """Return the token digest and the evidence in what opens a commitment."""
    return content[SALT : SALT + DIGEST], content[SALT + DIGEST :]


def used_by(conn: Connection, token: bytes) -> list[str]:
    """Return the ids of the jobs that reserved or spent a token."""
    return [job_id for (job_id,) in conn.execute(select(consents.c.job_id).where(consents.c.token == token))]


def use_context(token: bytes, environment: int, job_id: str) -> bytes:
    """Return what binds sealed bytes to a line of use."""
    return b"consent-use\0" + token + f"\0{int(environment)}\0{job_id}".encode()


# --- withdrawal ------------------------------------------------------------------------------------------------------


def check_withdrawal(scenario: Scenario, scenario_digest: bytes, notice: WithdrawalNotice) -> Withdrawn:
    """Return a withdrawal after checking that its signer is one who may have something to withdraw.

    A person's key withdraws even after the word about it has expired: leaving must not be harder than consenting.

    Raises:
        PolicyRefused: it is neither an issuer's nor a certified person's, its signature does not verify, or it is for
            another scenario.
    """
    signer = PublicKey.from_bytes(notice.signer)
    try:
        value = signed.verify(signer, "consent-withdrawal", notice.withdrawal, ConsentWithdrawal)
    except Unauthenticated:
        raise PolicyRefused(tell="the withdrawal's signature does not verify") from None
    if value.scenario_digest != scenario_digest:
        raise PolicyRefused(tell="the withdrawal is for another scenario")
    person = ""
    if notice.subject_key is not None:
        certified = certified_key(scenario, notice.subject_key)
        if certified.key != notice.signer:
            raise PolicyRefused(tell="the withdrawal is not signed by the person's certified key")
        person = certified.subject_id
    elif notice.signer not in scenario.consent.issuers:
        raise PolicyRefused(tell="the withdrawal is not signed by an issuer the scenario names")
    return Withdrawn(value.token, scenario_digest, signer.key_id, person, notice)


def withdraw(
    conn: Connection, node_key: bytes, lasting_key: bytes, withdrawn: Withdrawn, untold: Iterable[str]
) -> bool:
    """Keep a withdrawal; whether it is new.

    Args:
        lasting_key: a secret of this node that outlives the node key.
        untold: owners that are to hear of it.
    """
    mine = (withdrawn_consents.c.token == withdrawn.token, withdrawn_consents.c.signer == withdrawn.signer)
    if conn.scalar(select(withdrawn_consents.c.signer).where(*mine)) is not None:
        return False
    nonce = secrets.token_bytes(NONCE_SIZE)
    context = withdrawal_context(withdrawn.token, withdrawn.signer)
    conn.execute(
        insert(withdrawn_consents).values(
            token=withdrawn.token,
            signer=withdrawn.signer,
            person=_person(lasting_key, withdrawn.person) if withdrawn.person else b"",
            scenario_digest=withdrawn.scenario_digest,
            sealed=nonce + seal(node_key, nonce, wire.encode(withdrawn.notice), context),
            untold=",".join(sorted(untold)),
        )
    )
    return True


def check_not_withdrawn(conn: Connection, lasting_key: bytes, consent: Consented) -> None:
    """Refuse a token that somebody entitled took back, as far as this node has heard.

    Raises:
        PolicyRefused: it was withdrawn.
    """
    found = conn.execute(
        select(withdrawn_consents.c.signer, withdrawn_consents.c.person).where(
            withdrawn_consents.c.token == consent.token
        )
    ).all()
    own = _person(lasting_key, consent.subject_id) if found else b""
    if any(row.signer in consent.signers or bytes(row.person) == own for row in found):
        raise PolicyRefused(tell="this consent was withdrawn", hint="ask the person for a new consent")


def untold(conn: Connection, node_key: bytes) -> list[Untold]:
    """Return the withdrawals that are still to be handed round."""
    found = conn.execute(select(withdrawn_consents).where(withdrawn_consents.c.untold != "")).all()
    waiting = []
    for row in found:
        context = withdrawal_context(bytes(row.token), row.signer)
        notice = unseal(node_key, row.sealed[:NONCE_SIZE], row.sealed[NONCE_SIZE:], context)
        parties = tuple(row.untold.split(","))
        waiting.append(Untold(wire.decode(WithdrawalNotice, notice), bytes(row.scenario_digest), parties))
    return waiting


def missing(conn: Connection, token: bytes, signer: str) -> frozenset[str]:
    """Return the owners that do not have one withdrawal yet."""
    mine = (withdrawn_consents.c.token == token, withdrawn_consents.c.signer == signer)
    left = conn.scalar(select(withdrawn_consents.c.untold).where(*mine)) or ""
    return frozenset(left.split(",")) - {""}


def told(conn: Connection, token: bytes, signer: str, party: str) -> None:
    """Note that an owner has a withdrawal."""
    mine = (withdrawn_consents.c.token == token, withdrawn_consents.c.signer == signer)
    rest = ",".join(sorted(missing(conn, token, signer) - {party}))
    conn.execute(update(withdrawn_consents).where(*mine).values(untold=rest))


def withdrawal_aad(scenario_digest: bytes) -> bytes:
    """Return what binds a notice on its way to the scenario it is about."""
    return tagged("withdrawal", scenario_digest)


def withdrawal_context(token: bytes, signer: str) -> bytes:
    """Return what binds a sealed notice to its place."""
    return b"withdrawal\0" + token + signer.encode()


def _person(lasting_key: bytes, subject_id: str) -> bytes:
    return hmac_sm3(hkdf(lasting_key, b"", b"withdrawals", 32), subject_id.encode())
