"""The handshake, without a network: what is right passes, and every field that is not is refused by name."""

from __future__ import annotations

import dataclasses
import gc
from typing import Any

import pytest

from sandbox import signed
from sandbox.crypto.sm2 import PrivateKey
from sandbox.errors import PartyFailed, SandboxError, Unauthenticated
from sandbox.model import ChannelPurpose, Hello, SealMode, Signed
from sandbox.peer import handshake
from sandbox.peer.handshake import Caller, Session, Terms, answer

GOV, BANK, OTHER = PrivateKey.generate(), PrivateKey.generate(), PrivateKey.generate()
JOB = "ab" * 16


def terms(**changes: Any) -> Terms:
    base = Terms("gov", "bank", GOV, BANK.public, b"g" * 32, b"b" * 32, JOB, ChannelPurpose.CONTROL, SealMode.SM4)
    return dataclasses.replace(base, **changes)


def other_end(of: Terms, **changes: Any) -> Terms:
    base = dataclasses.replace(
        of,
        node_id=of.peer,
        peer=of.node_id,
        identity=BANK,
        peer_identity=GOV.public,
        certificate=of.peer_certificate,
        peer_certificate=of.certificate,
    )
    return dataclasses.replace(base, **changes)


def shake(caller: Terms, answerer: Terms) -> tuple[Session, Session]:
    calling = Caller(caller)
    reply, answering = answer(answerer, calling.hello)
    return calling.finish(reply), answering


def changed(hello: Signed, key: PrivateKey, **changes: Any) -> Signed:
    said = signed.verify(key.public, "hello", hello, Hello)
    return signed.sign(key, "hello", dataclasses.replace(said, **changes))


def test_both_sides_get_the_same_keys_crosswise() -> None:
    ours, theirs = shake(terms(), other_end(terms()))
    assert ours.send_key == theirs.receive_key
    assert ours.receive_key == theirs.send_key
    assert ours.send_key != ours.receive_key
    assert len(ours.send_key) == 16
    assert ours.connection == theirs.connection
    assert (ours.is_caller, theirs.is_caller) == (True, False)


def test_no_two_connections_share_anything() -> None:
    sessions = [shake(terms(), other_end(terms()))[0] for _ in range(8)]
    assert len({s.send_key for s in sessions} | {s.receive_key for s in sessions}) == 16
    assert len({s.connection for s in sessions}) == 8


CALLER_LIES: list[tuple[dict[str, Any], type[SandboxError]]] = [
    ({"from_": "witness"}, Unauthenticated),
    ({"to": "witness"}, Unauthenticated),
    ({"own_certificate": b"x" * 32}, Unauthenticated),
    ({"peer_certificate": b"x" * 32}, Unauthenticated),
    ({"time_ms": signed.now_ms() - 50_000_000}, Unauthenticated),
    ({"time_ms": signed.now_ms() + 50_000_000}, Unauthenticated),
    ({"answers": b"x" * 32}, Unauthenticated),
    ({"ephemeral_key": b"\x04" + bytes(64)}, Unauthenticated),
    ({"job_id": "cd" * 16}, PartyFailed),
    ({"purpose": ChannelPurpose.RELAY}, PartyFailed),
    ({"seal": SealMode.TLS}, PartyFailed),
]


@pytest.mark.parametrize(("lie", "refusal"), CALLER_LIES)
def test_answerer_refuses_what_it_does_not_agree_with(lie: dict[str, Any], refusal: type[SandboxError]) -> None:
    """Signed by the right key throughout: the content alone is wrong."""
    hello = changed(Caller(terms()).hello, GOV, **lie)
    with pytest.raises(refusal) as caught:
        answer(other_end(terms()), hello)
    assert caught.value.party == "gov"
    assert caught.value.stage == "connect"


@pytest.mark.parametrize(
    ("lie", "refusal"),
    [
        *[(lie, refusal) for lie, refusal in CALLER_LIES if "answers" not in lie],
        ({"answers": b""}, Unauthenticated),
        ({"answers": b"x" * 32}, Unauthenticated),
        ({"connection": b"x" * 16}, PartyFailed),
    ],
)
def test_caller_refuses_what_it_does_not_agree_with(lie: dict[str, Any], refusal: type[SandboxError]) -> None:
    calling = Caller(terms())
    reply, _ = answer(other_end(terms()), calling.hello)
    with pytest.raises(refusal) as caught:
        calling.finish(changed(reply, BANK, **lie))
    assert caught.value.party == "bank"


def test_the_lists_above_cover_every_field() -> None:
    tried = {name for lie, _ in CALLER_LIES for name in lie} | {"connection"}
    assert tried == {field.name for field in dataclasses.fields(Hello)}


@pytest.mark.parametrize("position", ["payload", "signature"])
def test_any_flipped_byte_is_found(position: str) -> None:
    hello = Caller(terms()).hello
    original = getattr(hello, position)
    for index in range(0, len(original), 7):
        damaged = original[:index] + bytes([original[index] ^ 1]) + original[index + 1 :]
        with pytest.raises(Unauthenticated):
            answer(other_end(terms()), dataclasses.replace(hello, **{position: damaged}))


def test_another_identity_is_refused_on_either_side() -> None:
    with pytest.raises(Unauthenticated):
        answer(other_end(terms()), Caller(terms(identity=OTHER)).hello)
    calling = Caller(terms())
    reply, _ = answer(other_end(terms(), identity=OTHER), calling.hello)
    with pytest.raises(Unauthenticated):
        calling.finish(reply)


def test_seal_mismatch_names_both_modes_and_both_nodes() -> None:
    with pytest.raises(PartyFailed) as caught:
        answer(other_end(terms(), seal=SealMode.TLS), Caller(terms()).hello)
    assert all(word in caught.value.tell for word in ("sm4", "tls", "gov", "bank"))


def test_an_old_answer_does_not_answer_a_new_call() -> None:
    first, second = Caller(terms()), Caller(terms())
    old, _ = answer(other_end(terms()), first.hello)
    with pytest.raises(Unauthenticated):
        second.finish(old)


def test_a_replayed_hello_yields_no_keys_to_who_replays_it() -> None:
    calling = Caller(terms())
    reply, first = answer(other_end(terms()), calling.hello)
    _, second = answer(other_end(terms()), calling.hello)
    ours = calling.finish(reply)
    assert ours.send_key == first.receive_key
    assert {second.send_key, second.receive_key}.isdisjoint({ours.send_key, ours.receive_key})


def test_keys_depend_on_every_byte_of_both_hellos() -> None:
    """The answerer sees another signature over the same hello: same agreement, other transcript, other keys."""
    calling = Caller(terms())
    again = changed(calling.hello, GOV)
    assert again.payload == calling.hello.payload
    assert again.signature != calling.hello.signature
    reply, answering = answer(other_end(terms()), again)
    assert calling.finish(reply).send_key != answering.receive_key


def test_a_hello_cannot_be_reflected_to_its_sender() -> None:
    calling = Caller(terms())
    with pytest.raises(Unauthenticated):
        answer(terms(), calling.hello)
    with pytest.raises(Unauthenticated):
        calling.finish(calling.hello)


def test_ephemeral_scalars_are_dropped() -> None:
    gc.collect()
    before = sum(isinstance(item, PrivateKey) for item in gc.get_objects())
    assert before >= 3  # the keys of this module are seen
    calling = Caller(terms())
    reply, answering = answer(other_end(terms()), calling.hello)
    session = calling.finish(reply)
    gc.collect()
    after = sum(isinstance(item, PrivateKey) for item in gc.get_objects())
    assert after == before
    assert (session.peer, answering.peer) == ("bank", "gov")
    with pytest.raises(Unauthenticated):
        calling.finish(reply)


def test_nothing_secret_prints() -> None:
    session, _ = shake(terms(), other_end(terms()))
    assert repr(session.send_key) not in repr(session)
    assert "identity=" not in repr(terms()).replace("peer_identity=", "")


def test_window_is_two_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = signed.now_ms()
    hello = Caller(terms()).hello
    for late, passes in ((119_000, True), (121_000, False)):
        for sign in (1, -1):
            monkeypatch.setattr(handshake.signed, "now_ms", lambda late=late, sign=sign: now + sign * late)
            if passes:
                answer(other_end(terms()), hello)
            else:
                with pytest.raises(Unauthenticated):
                    answer(other_end(terms()), hello)
