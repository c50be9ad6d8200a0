"""The letters of challenges at the node that asked for them: kept, read, judged, or missing. Inside the caller's
transaction, but for ``laid_down``: the one writer does not wait for a file.

    laid_down ── keep ── document ── judge     accepted, or rejected
    overdue                                    not produced by the due time
    unpunished ── charged ── punished          rejected or missing: scenarios are suspended, once more for each

What a challenge charges is its scenario, and every one that was applied for in its place: an amendment takes no letter
back. One that this node has approved and others have not is charged as soon as they have.

Security:  a letter lies in a file of its own, under a key of its own, which is sealed under the node key and gone once
           the letter is judged; what was replaced goes at once. Where a consent names a letter's SM3, another document
           is not taken for it. Who judges signs the SM3 of the document that was looked at.
Shapes:    a letter is any document of up to 16 MiB; <home>/letters/<challenge>-<number>-<of which key>.sealed.
Errors:    ``NotFound``, ``WrongState``; ``InvalidSpec`` for a document that is not the letter.
Not here:  who may read and judge (``api.consents``); sending and suspending (``api.post``).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, func, select, update

from sandbox import signed, wire
from sandbox.audit import log as audit_log
from sandbox.challenges import FAILED, Challenge, drawn_people, find, letter_of, set_letter
from sandbox.crypto.sm3 import sm3, tagged
from sandbox.crypto.sm4 import KEY_SIZE, NONCE_SIZE, seal, unseal
from sandbox.errors import IntegrityFailed, InvalidSpec, NotFound, WrongState
from sandbox.model import Entry, LetterJudgement, LetterState, NoticeKind, Signed
from sandbox.policy import book
from sandbox.policy.scenario import ENDED, Standing, required, succeeds
from sandbox.registry import Registered
from sandbox.store import challenges, letters, scenarios

FOLDER: Final = "letters"
MOST_BYTES: Final = 16 << 20  # of one document
MOST_REPLACED: Final = 5  # times that one letter may be replaced
RECEIVED: Final = "letter-received"  # the entry of each letter that was kept, by which they are counted
_ONCE: Final = bytes(NONCE_SIZE)  # every file's key seals exactly one message


@dataclass(slots=True)
class Laid:
    """A document sealed in a file of its own, which counts once ``keep`` has said so."""

    digest: bytes
    path: Path
    key: bytes = field(repr=False)
    replaces: Path | None = None


def expect(conn: Connection, sender: str, challenge_id: str, number: int, now_ms: int) -> Challenge:
    """Return the challenge for which a letter comes at the right time.

    Raises:
        NotFound: ``sender`` was asked for no such letter.
        WrongState: it was judged, is too late, or was replaced too often.
    """
    challenge = find(conn, challenge_id)
    if not challenge.is_own or challenge.party != sender:
        raise NotFound(tell="no such challenge, or not yours")
    letter = letter_of(challenge, number)
    is_late = letter.state is LetterState.MISSING or (
        letter.state is LetterState.AWAITED and now_ms >= challenge.due_ms
    )
    if is_late:
        raise WrongState(tell="the time to produce this letter is over", hint="ask the data owner's operator")
    if letter.state not in (LetterState.AWAITED, LetterState.PRODUCED):
        raise WrongState(tell="this letter was judged already")
    if _received(conn, challenge, number) > MOST_REPLACED:
        told = f"this letter was replaced {MOST_REPLACED} times already"
        raise WrongState(tell=told, hint="ask the data owner's people to judge the one they have")
    return challenge


@contextmanager
def laid_down(home: Path, challenge_id: str, number: int, document: bytes) -> Iterator[Laid]:
    """Seal a document into a file, around the transaction that keeps it: this waits for the disk.

    After the block the file that was replaced is removed; or, if the block raises, this one.

    Raises:
        InvalidSpec: it is empty or too large.
    """
    if not 1 <= len(document) <= MOST_BYTES:
        raise InvalidSpec(tell=f"a letter has 1 to {MOST_BYTES} bytes")
    key = secrets.token_bytes(KEY_SIZE)
    path = _path(home, challenge_id, number, key)
    laid = Laid(sm3(document), path, key)
    try:
        _write(path, seal(key, _ONCE, document, key_context(challenge_id, number)))
        yield laid
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    if laid.replaces is not None:
        laid.replaces.unlink(missing_ok=True)


def keep(
    conn: Connection,
    home: Path,
    node_key: bytes,
    sender: str,
    challenge_id: str,
    number: int,
    laid: Laid,
    now_ms: int,
) -> None:
    """Keep a letter that was produced; one that waits to be judged is replaced.

    Raises:
        NotFound, WrongState: as in ``expect``.
        InvalidSpec: it is not the letter that the consent names.
    """
    expect(conn, sender, challenge_id, number, now_ms)
    evidence = drawn_people(conn, node_key, challenge_id)[number - 1].evidence
    if evidence and laid.digest != evidence:
        raise InvalidSpec(tell="this is not the letter that the consent names: it has another SM3")
    before = _key(conn, node_key, challenge_id, number)
    nonce = secrets.token_bytes(NONCE_SIZE)
    wrapped = nonce + seal(node_key, nonce, laid.key, key_context(challenge_id, number))
    set_letter(conn, challenge_id, number, state=LetterState.PRODUCED, digest=laid.digest, wrapped_key=wrapped)
    laid.replaces = None if before is None else _path(home, challenge_id, number, before)


def document(conn: Connection, home: Path, node_key: bytes, challenge_id: str, number: int) -> bytes:
    """Return a letter that waits to be judged.

    Raises:
        WrongState: it was not produced yet, or is judged and gone.
        IntegrityFailed: it is not what was kept.
    """
    key = _key(conn, node_key, challenge_id, number)
    if key is None:
        raise WrongState(tell="there is no letter to read: it was not produced yet, or is judged")
    try:
        sealed = _path(home, challenge_id, number, key).read_bytes()
    except FileNotFoundError:
        raise IntegrityFailed(f"the file of letter {number} of challenge {challenge_id} is gone") from None
    return unseal(key, _ONCE, sealed, key_context(challenge_id, number))


def judge(conn: Connection, judgement: Signed, judge: Registered) -> LetterJudgement:
    """Store what one of the owner's people decided; the letter's key goes with it.

    Raises:
        WrongState: the letter is not to be judged, or another than was looked at.
        PolicyRefused: the signature is not this person's.
        InvalidSpec: a rejection without a reason.
    """
    value = signed.verify(judge.identity, "letter-judgement", judgement, LetterJudgement)
    challenge = find(conn, value.challenge_id)
    letter = letter_of(challenge, value.number)
    if not challenge.is_own or letter.state is not LetterState.PRODUCED:
        raise WrongState(tell="this letter is not to be judged here: not produced yet, or judged already")
    if value.digest != letter.digest:
        raise WrongState(tell="this is not the letter that was looked at", hint="read it again, then decide")
    if not value.accepted and not value.reason.strip():
        raise InvalidSpec(tell="who rejects a letter says why")
    state = LetterState.ACCEPTED if value.accepted else LetterState.REJECTED
    done = {"wrapped_key": None, "judged_by": judge.name, "judgement": wire.encode(judgement)}
    set_letter(conn, value.challenge_id, value.number, state=state, **done)
    return value


def forget(home: Path, challenge_id: str, number: int) -> None:
    """Remove the files of a letter whose key is gone: noise already."""
    for path in (home / FOLDER).glob(f"{challenge_id}-{number}-*.sealed"):
        path.unlink(missing_ok=True)


def overdue(conn: Connection, now_ms: int) -> list[Challenge]:
    """Mark the letters that were not produced in time; returns the challenges they belong to."""
    late = select(letters.c.challenge_id, letters.c.number).join(
        challenges, challenges.c.challenge_id == letters.c.challenge_id
    )
    found = conn.execute(
        late.where(challenges.c.is_own == 1, challenges.c.due_ms <= now_ms, letters.c.state == int(LetterState.AWAITED))
    ).all()
    for row in found:
        set_letter(conn, row.challenge_id, row.number, state=LetterState.MISSING)
    return [find(conn, challenge_id) for challenge_id in sorted({row.challenge_id for row in found})]


def unpunished(conn: Connection) -> list[Challenge]:
    """Return this node's challenges of which more letters failed than a scenario was suspended for."""
    mine = letters.c.challenge_id == challenges.c.challenge_id
    bad = select(func.count()).where(mine, letters.c.state.in_([int(state) for state in FAILED])).scalar_subquery()
    query = select(challenges.c.challenge_id).where(challenges.c.is_own == 1, bad > challenges.c.punished)
    return [find(conn, challenge_id) for challenge_id in conn.scalars(query).all()]


def reason(challenge: Challenge) -> str:
    """Return the words of a suspension: others with each further letter, so that each is said once."""
    return f"letters of challenge {challenge.challenge_id} not produced in time, or rejected: {challenge.failures}"


def charged(conn: Connection, challenge: Challenge, here: str, now_ms: int) -> list[Standing]:
    """Return the scenarios that ``here`` has yet to suspend for the letters of a challenge that failed."""
    line = [challenge.scenario_digest]
    for digest in line:  # grows meanwhile: an amendment may be amended
        scenario = book.application(conn, digest)
        later = conn.scalars(select(scenarios.c.digest).where(scenarios.c.amends == digest)).all()
        line += [bytes(one) for one in later if succeeds(book.application(conn, bytes(one)), scenario)]
    found = [standing for digest in line if (standing := book.standing(conn, digest)) is not None]
    return [one for one in found if _is_open(one, here, now_ms) and not _is_said(conn, one, here, reason(challenge))]


def punished(conn: Connection, challenge: Challenge, here: str, now_ms: int) -> bool:
    """Note for how many letters of a challenge scenarios were suspended, if all that it charges are; whether they are.

    A scenario that ``here`` holds suspended for another reason is as good as one suspended for this.
    """
    if any(one.told.get(here) is not NoticeKind.SUSPENDED for one in charged(conn, challenge, here, now_ms)):
        return False
    mine = challenges.c.challenge_id == challenge.challenge_id
    conn.execute(update(challenges).where(mine).values(punished=challenge.failures))
    return True


def document_aad(challenge_id: str, number: int) -> bytes:
    """Return what binds a sealed document to its place in a challenge."""
    return tagged("letter", f"{challenge_id}\0{number}".encode())


def key_context(challenge_id: str, number: int) -> bytes:
    """Return what binds the key of a letter's file, and the file."""
    return f"letter\0{challenge_id}\0{number}".encode()


def _is_open(standing: Standing, here: str, now_ms: int) -> bool:
    """Whether anything may run under a scenario, now or once others approve it; else nobody need suspend it."""
    if here not in required(standing.scenario) or standing.state(now_ms) in ENDED:
        return False
    return here in standing.approved_by  # who approves after the letters failed does so knowing that


def _is_said(conn: Connection, standing: Standing, here: str, words: str) -> bool:
    own = book.said(conn, standing.digest, here)
    return any(notice.kind is NoticeKind.SUSPENDED and notice.reason == words for notice in own)


def _received(conn: Connection, challenge: Challenge, number: int) -> int:
    """Return how often a letter was kept, by the entries of its job."""
    wanted = {"challenge": challenge.challenge_id, "number": str(number)}
    entries = (wire.decode(Entry, leaf) for _, leaf in audit_log.for_job(conn, challenge.job_id))
    return sum(
        entry.what == RECEIVED and {fact.name: fact.value for fact in entry.facts} == wanted for entry in entries
    )


def _key(conn: Connection, node_key: bytes, challenge_id: str, number: int) -> bytes | None:
    """Return the key of a letter's file; None before there is one, and after it was judged."""
    mine = (letters.c.challenge_id == challenge_id, letters.c.number == number)
    wrapped = conn.scalar(select(letters.c.wrapped_key).where(*mine))
    if wrapped is None:
        return None
    return unseal(node_key, wrapped[:NONCE_SIZE], wrapped[NONCE_SIZE:], key_context(challenge_id, number))


def _path(home: Path, challenge_id: str, number: int, key: bytes) -> Path:
    return home / FOLDER / f"{challenge_id}-{number}-{tagged('letter-file', key)[:8].hex()}.sealed"


def _write(path: Path, sealed: bytes) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(sealed)
        file.flush()
        os.fsync(file.fileno())
