"""Challenges at one node: for whom letters are asked, and how far each has come. Inside the caller's transaction.

    owner's node      ask ── unsent ── letters kept and judged (``letters``) ── unsent ...
    recipient's node  take ── shown to whoever holds the letters

``ask`` runs in the transaction that enters the release, with the entry "challenged": no release is without its
challenge, and a node that stops in between sends it after its next start. A change of any letter is a new revision,
which is sent until the other node has it.

Security:  persons are sealed under the node key, and on the way to the other node's sealing key.
Units:     the time for a letter runs from the release, whether or not the recipient's node is up.
Errors:    ``NotFound``; ``take`` says what it refuses.
Not here:  who is drawn (``kinds.drawn``, ``ledger``), documents (``letters``), sending (``api.post``).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Row, insert, or_, select, update

from sandbox import record, signed, wire
from sandbox.crypto.envelope import open_with, seal_to
from sandbox.crypto.sm2 import PrivateKey, PublicKey
from sandbox.crypto.sm3 import tagged
from sandbox.crypto.sm4 import NONCE_SIZE, seal, unseal
from sandbox.errors import AlreadyExists, IntegrityFailed, InvalidSpec, NotFound, PolicyRefused
from sandbox.model import ChallengedPersons, ChallengeNotice, Environment, LetterJudgement, LetterState, Scenario
from sandbox.record import Job
from sandbox.store import challenges, letters

MOST_DAYS: Final = 90
FAILED: Final = frozenset({LetterState.REJECTED, LetterState.MISSING})


@dataclass(frozen=True, slots=True)
class Drawn:
    """One person whose letter is asked for; ``evidence`` is its SM3, where the consent names it."""

    person: str = field(repr=False)
    evidence: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter of a challenge."""

    number: int
    state: LetterState
    digest: bytes
    judged_by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """A challenge as this node keeps it."""

    challenge_id: str
    is_own: bool
    party: str
    job_id: str
    scenario_digest: bytes
    created_ms: int
    due_ms: int
    revision: int
    letters: tuple[Letter, ...]

    @property
    def state(self) -> str:
        """Open, settled or failed."""
        states = {letter.state for letter in self.letters}
        if states & FAILED:
            return "failed"
        return "settled" if states == {LetterState.ACCEPTED} else "open"

    @property
    def failures(self) -> int:
        """How many letters were rejected or are missing."""
        return sum(letter.state in FAILED for letter in self.letters)


# --- at the owner's node ----------------------------------------------------------------------------------------------


def is_drawn(permille: int) -> bool:
    """Draw whether one person's letter is asked for."""
    return secrets.randbelow(1000) < permille


def ask(conn: Connection, node_key: bytes, job: Job, scenario: Scenario, drawn: Sequence[Drawn], now_ms: int) -> str:
    """Keep a challenge to the recipient's node of a job, to be sent soon; returns its id."""
    challenge_id = secrets.token_hex(16)
    row = {"party": job.plan.recipient_node, "job_id": job.job_id, "scenario_digest": job.plan.scenario_digest}
    due_ms = now_ms + max(1, scenario.consent.letter_days) * signed.DAY_MS
    _insert(conn, node_key, challenge_id, drawn, {**row, "due_ms": due_ms, "created_ms": now_ms}, is_own=True)
    return challenge_id


def unsent(conn: Connection) -> list[Challenge]:
    """Return this node's challenges of which the other node has not the newest revision."""
    waiting = (challenges.c.is_own == 1) & (challenges.c.told < challenges.c.revision)
    return [_challenge(conn, row) for row in conn.execute(select(challenges).where(waiting)).all()]


def notice(conn: Connection, node_key: bytes, challenge: Challenge, recipient: PublicKey) -> ChallengeNotice:
    """Return a challenge as it travels, sealed to the recipient's node."""
    people = ChallengedPersons(persons(conn, node_key, challenge.challenge_id))
    return ChallengeNotice(
        challenge.challenge_id,
        challenge.job_id,
        challenge.scenario_digest,
        challenge.due_ms,
        seal_to(recipient, wire.encode(people), persons_aad(challenge.challenge_id)),
        tuple(letter.state for letter in challenge.letters),
        challenge.revision,
    )


def told(conn: Connection, challenge_id: str, revision: int) -> None:
    """Note which revision the other node has."""
    conn.execute(update(challenges).where(challenges.c.challenge_id == challenge_id).values(told=revision))


# --- at the recipient's node ------------------------------------------------------------------------------------------


def take(
    conn: Connection, node_key: bytes, sealing: PrivateKey, here: str, sender: str, notice: ChallengeNotice, now_ms: int
) -> bool:
    """Keep another owner's challenge, or how far it has come; whether it is new.

    Raises:
        NotFound: there is no such job here.
        PolicyRefused: the sender has nothing to ask this node about it.
        AlreadyExists: it asked about this job already under another id, or the id is taken.
        InvalidSpec: it does not open, or is not whole.
    """
    plan = record.read(conn, notice.job_id).plan
    owners = {party.node_id for party in plan.parties if party.dataset is not None} - {here}
    if sender not in owners or plan.recipient_node != here or plan.scenario_digest != notice.scenario_digest:
        raise PolicyRefused(f"{sender} has no letters to ask for of job {notice.job_id}")
    if plan.environment is not Environment.PRODUCTION or notice.due_ms > now_ms + (MOST_DAYS + 1) * signed.DAY_MS:
        raise PolicyRefused(f"{sender} asks for letters of a test, or sets no time in reason")
    asked = (challenges.c.job_id == notice.job_id) & (challenges.c.party == sender) & (challenges.c.is_own == 0)
    taken = asked | (challenges.c.challenge_id == notice.challenge_id)
    rows = conn.execute(select(challenges.c.challenge_id, challenges.c.party).where(taken)).all()
    if any((row.challenge_id, row.party) != (notice.challenge_id, sender) for row in rows):
        raise AlreadyExists(tell="letters of this job were asked for already, or this id is taken")
    if not rows:
        _take_new(conn, node_key, sealing, sender, notice, now_ms)
    known = find(conn, notice.challenge_id)
    if known.is_own or known.job_id != notice.job_id or len(known.letters) != len(notice.letters):
        raise InvalidSpec(tell="a challenge stays about the same letters")
    if not rows or notice.revision > known.revision:
        for number, state in enumerate(notice.letters, 1):
            set_letter(conn, notice.challenge_id, number, state=state)
        changed = update(challenges).where(challenges.c.challenge_id == notice.challenge_id)
        conn.execute(changed.values(revision=notice.revision, told=notice.revision))
    return not rows


def _take_new(
    conn: Connection, node_key: bytes, sealing: PrivateKey, sender: str, notice: ChallengeNotice, now_ms: int
) -> None:
    try:
        opened = open_with(sealing, notice.sealed, persons_aad(notice.challenge_id))
    except IntegrityFailed:
        raise InvalidSpec(tell="the challenge does not open") from None
    people = wire.decode(ChallengedPersons, opened).persons
    if len(people) != len(notice.letters):
        raise InvalidSpec(tell="a challenge names as many persons as letters")
    row = {"party": sender, "job_id": notice.job_id, "scenario_digest": notice.scenario_digest}
    times = {"due_ms": notice.due_ms, "created_ms": now_ms}
    drawn = [Drawn(person) for person in people]
    _insert(conn, node_key, notice.challenge_id, drawn, row | times, is_own=False)


def produced(conn: Connection, challenge_id: str, number: int) -> None:
    """Note that the owner has a letter, until it tells so itself."""
    awaited = (letters.c.challenge_id == challenge_id) & (letters.c.state == int(LetterState.AWAITED))
    changed = update(letters).where(awaited, letters.c.number == number)
    conn.execute(changed.values(state=int(LetterState.PRODUCED)))


# --- at both ----------------------------------------------------------------------------------------------------------


def find(conn: Connection, challenge_id: str) -> Challenge:
    """Return a challenge; ``NotFound`` if there is none."""
    row = conn.execute(select(challenges).where(challenges.c.challenge_id == challenge_id)).one_or_none()
    if row is None:
        raise NotFound(tell="no such challenge, or not yours")
    return _challenge(conn, row)


def asking(conn: Connection) -> list[bytes]:
    """Return the digests of the scenarios under which this node is asked for letters."""
    query = select(challenges.c.scenario_digest).where(challenges.c.is_own == 0).distinct()
    return [bytes(digest) for digest in conn.scalars(query)]


def listed(conn: Connection, after: str, limit: int, is_own: bool, theirs: Collection[bytes]) -> list[Challenge]:
    """Return a page of challenges, newest first: this node's own, if asked for, and others' under some scenarios."""
    asked = (challenges.c.is_own == 0) & challenges.c.scenario_digest.in_(theirs)
    query = select(challenges).where(or_(challenges.c.is_own == 1, asked) if is_own else asked)
    if after:
        last = find(conn, after)
        older = challenges.c.created_ms < last.created_ms
        same = (challenges.c.created_ms == last.created_ms) & (challenges.c.challenge_id > after)
        query = query.where(older | same)
    rows = conn.execute(query.order_by(challenges.c.created_ms.desc(), challenges.c.challenge_id).limit(limit)).all()
    return [_challenge(conn, row) for row in rows]


def persons(conn: Connection, node_key: bytes, challenge_id: str) -> tuple[str, ...]:
    """Return whose letters a challenge is about, in the order of their numbers."""
    return tuple(one.person for one in drawn_people(conn, node_key, challenge_id))


def drawn_people(conn: Connection, node_key: bytes, challenge_id: str) -> list[Drawn]:
    """Return the same with what is known of the letters."""
    value = conn.execute(select(challenges.c.sealed).where(challenges.c.challenge_id == challenge_id)).scalar_one()
    packed = unseal(node_key, value[:NONCE_SIZE], value[NONCE_SIZE:], people_context(challenge_id))
    return [Drawn(person, bytes.fromhex(evidence)) for person, evidence in json.loads(packed)]


def letter_of(challenge: Challenge, number: int) -> Letter:
    """Return a letter by its number; ``NotFound`` if there is none."""
    if not 1 <= number <= len(challenge.letters):
        raise NotFound(tell=f"the challenge has letters 1 to {len(challenge.letters)}")
    return challenge.letters[number - 1]


def set_letter(conn: Connection, challenge_id: str, number: int, **values: Any) -> None:
    """Change a letter, which makes a new revision of its challenge."""
    mine = (letters.c.challenge_id == challenge_id, letters.c.number == number)
    conn.execute(update(letters).where(*mine).values({name: _plain(value) for name, value in values.items()}))
    one = challenges.c.challenge_id == challenge_id
    conn.execute(update(challenges).where(one).values(revision=challenges.c.revision + 1))


def persons_aad(challenge_id: str) -> bytes:
    """Return what binds sealed persons to their challenge."""
    return tagged("challenge", challenge_id.encode())


def people_context(challenge_id: str) -> bytes:
    """Return what binds the persons of a challenge at rest."""
    return f"challenge\0{challenge_id}".encode()


def _insert(
    conn: Connection,
    node_key: bytes,
    challenge_id: str,
    drawn: Sequence[Drawn],
    row: Mapping[str, Any],
    is_own: bool,
) -> None:
    people = json.dumps([(one.person, one.evidence.hex()) for one in drawn]).encode()
    nonce = secrets.token_bytes(NONCE_SIZE)
    sealed = nonce + seal(node_key, nonce, people, people_context(challenge_id))
    state = {"is_own": int(is_own), "revision": 1, "told": 0, "punished": 0, "sealed": sealed}
    conn.execute(insert(challenges).values(challenge_id=challenge_id, **row, **state))
    blank = {"state": int(LetterState.AWAITED), "digest": b"", "judged_by": ""}
    for number in range(1, len(drawn) + 1):
        conn.execute(insert(letters).values(challenge_id=challenge_id, number=number, **blank))


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, LetterState) else value


def _challenge(conn: Connection, row: Row[Any]) -> Challenge:
    found = conn.execute(select(letters).where(letters.c.challenge_id == row.challenge_id).order_by(letters.c.number))
    return Challenge(
        row.challenge_id,
        bool(row.is_own),
        row.party,
        row.job_id,
        bytes(row.scenario_digest),
        row.created_ms,
        row.due_ms,
        row.revision,
        tuple(_letter(one) for one in found),
    )


def _letter(row: Row[Any]) -> Letter:
    reason = ""
    if row.judgement is not None:
        reason = wire.decode(LetterJudgement, signed.read_signed(row.judgement).payload).reason
    return Letter(row.number, LetterState(row.state), bytes(row.digest), row.judged_by, reason)
