"""The letters of challenges at the node that asked for them: kept, read, judged, or missing. Inside the caller's
transaction.

    keep ── document ── judge      accepted, or rejected
    overdue                        not produced by the due time
    unpunished                     rejected or missing: the scenario is to be suspended

Security:  a letter lies in a file of its own, under a key of its own, which is sealed under the node key and gone once
           the letter is judged. Where a consent names a letter's SM3, another document is not taken for it. Who judges
           signs the SM3 of the document that was looked at.
Shapes:    a letter is any document of up to 16 MiB; <home>/letters/<challenge>-<number>-<of which key>.sealed.
Errors:    ``NotFound``, ``WrongState``; ``InvalidSpec`` for a document that is not the letter.
Not here:  who may read and judge (``api.consents``); sending and suspending (``api.rounds``).
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, select, update

from sandbox import signed, wire
from sandbox.challenges import FAILED, Challenge, drawn_people, find, letter_of, set_letter
from sandbox.crypto.sm3 import sm3, tagged
from sandbox.crypto.sm4 import KEY_SIZE, NONCE_SIZE, seal, unseal
from sandbox.errors import IntegrityFailed, InvalidSpec, NotFound, WrongState
from sandbox.model import LetterJudgement, LetterState, Signed
from sandbox.registry import Registered
from sandbox.store import challenges, letters

FOLDER: Final = "letters"
MOST_BYTES: Final = 16 << 20  # of one document
_ONCE: Final = bytes(NONCE_SIZE)  # every file's key seals exactly one message


def keep(
    conn: Connection,
    home: Path,
    node_key: bytes,
    sender: str,
    challenge_id: str,
    number: int,
    document: bytes,
    now_ms: int,
) -> None:
    """Keep a letter that was produced; one that waits to be judged is replaced.

    Raises:
        NotFound: ``sender`` was asked for no such letter.
        WrongState: it was judged, or is too late.
        InvalidSpec: it is empty, too large, or not the letter that the consent names.
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
    if not 1 <= len(document) <= MOST_BYTES:
        raise InvalidSpec(tell=f"a letter has 1 to {MOST_BYTES} bytes")
    evidence = drawn_people(conn, node_key, challenge_id)[number - 1].evidence
    digest = sm3(document)
    if evidence and digest != evidence:
        raise InvalidSpec(tell="this is not the letter that the consent names: it has another SM3")
    key, nonce = secrets.token_bytes(KEY_SIZE), secrets.token_bytes(NONCE_SIZE)
    wrapped = nonce + seal(node_key, nonce, key, key_context(challenge_id, number))
    _write(_path(home, challenge_id, number, key), seal(key, _ONCE, document, key_context(challenge_id, number)))
    set_letter(conn, challenge_id, number, state=LetterState.PRODUCED, digest=digest, wrapped_key=wrapped)


def document(conn: Connection, home: Path, node_key: bytes, challenge_id: str, number: int) -> bytes:
    """Return a letter that waits to be judged.

    Raises:
        WrongState: it was not produced yet, or is judged and gone.
        IntegrityFailed: it is not what was kept.
    """
    mine = (letters.c.challenge_id == challenge_id, letters.c.number == number)
    row = conn.execute(select(letters.c.wrapped_key, letters.c.digest).where(*mine)).one_or_none()
    if row is None or row.wrapped_key is None:
        raise WrongState(tell="there is no letter to read: it was not produced yet, or is judged")
    context = key_context(challenge_id, number)
    key = unseal(node_key, row.wrapped_key[:NONCE_SIZE], row.wrapped_key[NONCE_SIZE:], context)
    try:
        sealed = _path(home, challenge_id, number, key).read_bytes()
    except FileNotFoundError:
        raise IntegrityFailed(f"the file of letter {number} of challenge {challenge_id} is gone") from None
    return unseal(key, _ONCE, sealed, context)


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
    """Return this node's challenges that failed, for which the scenario was not suspended yet."""
    bad = select(letters.c.challenge_id).where(letters.c.state.in_([int(state) for state in FAILED]))
    mine = (challenges.c.is_own == 1) & (challenges.c.is_suspended == 0) & challenges.c.challenge_id.in_(bad)
    return [find(conn, row.challenge_id) for row in conn.execute(select(challenges.c.challenge_id).where(mine)).all()]


def suspended(conn: Connection, challenge_id: str) -> None:
    """Note that the scenario was suspended for a challenge."""
    conn.execute(update(challenges).where(challenges.c.challenge_id == challenge_id).values(is_suspended=1))


def document_aad(challenge_id: str, number: int) -> bytes:
    """Return what binds a sealed document to its place in a challenge."""
    return tagged("letter", f"{challenge_id}\0{number}".encode())


def key_context(challenge_id: str, number: int) -> bytes:
    """Return what binds the key of a letter's file, and the file."""
    return f"letter\0{challenge_id}\0{number}".encode()


def _path(home: Path, challenge_id: str, number: int, key: bytes) -> Path:
    return home / FOLDER / f"{challenge_id}-{number}-{tagged('letter-file', key)[:8].hex()}.sealed"


def _write(path: Path, sealed: bytes) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(sealed)
        file.flush()
        os.fsync(file.fileno())
