"""Queries against a prepared set, beside sets in the clear; its file; and a peer that breaks the protocol."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from engine_pairs import channels, together
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.crypto import sm2curve
from sandbox.errors import (
    BudgetSpent,
    Cancelled,
    DeadlinePassed,
    IntegrityFailed,
    InvalidSpec,
    PartyFailed,
    ProtocolFailed,
)
from sandbox.psi import keys, prepared
from sandbox.psi.prepared import Preparation

PLAN = b"p" * 32
IDENTITY, SALT, SECRET = b"i" * 16, b"salt of a preparation, 32 bytes.", b"\1" * 32


def digests(names: Any, salt: bytes = SALT) -> keys.Digests:
    return keys.digest(pa.array([str(name) for name in names], pa.string()), salt)


def prepare(
    names: Any, *, identity: bytes = IDENTITY, salt: bytes = SALT, secret: bytes = SECRET, **options: Any
) -> tuple[Preparation, bytes]:
    with sm2curve.Scalar(secret) as scalar:
        made = prepared.prepare(digests(names, salt), scalar, prepared.domain_tag(identity, salt), **options)
        return prepared.describe(identity, salt, made, scalar), made


class Recorder:
    """A channel that keeps what was sent through it."""

    def __init__(self, channel: Any) -> None:
        self._channel, self.sent = channel, []

    def send(self, data: bytes) -> None:
        self.sent.append(data)
        self._channel.send(data)

    def recv(self, deadline: float) -> bytes:
        return self._channel.recv(deadline)


class Query:
    """One query of both sides, and what each sent."""

    def __init__(
        self,
        asked: keys.Digests,
        preparation: Preparation,
        names: bytes,
        *,
        most: int = 100_000,
        secret: bytes = SECRET,
        theirs: Preparation | None = None,
        left: dict[str, Any] | None = None,
        right: dict[str, Any] | None = None,
        **both: Any,
    ) -> None:
        both = {"plan": PLAN, "patience_s": 20} | both
        with channels() as (here, there), sm2curve.Scalar(secret) as scalar:
            said = Recorder(here), Recorder(there)

            def query() -> Any:
                try:
                    options = both | {"most": most} | (left or {})
                    return prepared.query(asked, preparation, names, said[0], **options)
                finally:
                    here.close()

            def answer() -> Any:
                options = both | {"most": most, "preparation": theirs or preparation} | (right or {})
                try:
                    return prepared.answer(said[1], scalar, options.pop("most"), **options)
                except Exception:
                    there.close()
                    raise

            self.results = together(query, answer)
        self.left_sent, self.right_sent = said[0].sent, said[1].sent


BIG, BIG_NAMES = prepare(range(3000))  # 0 .. 2999, shared by tests that only look things up


@settings(max_examples=40, deadline=None)
@given(
    asked=st.sets(st.text(max_size=20), max_size=30),
    has=st.sets(st.text(max_size=20), max_size=60),
    common=st.sets(st.text(max_size=20), max_size=15),
)
def test_left_finds_which_of_its_keys_right_has(asked, has, common):
    mine, theirs = sorted(asked | common), sorted(has | common)
    preparation, names = prepare(theirs)
    found, answered = Query(digests(mine), preparation, names).results
    assert answered == len(mine)
    assert found.dtype == np.int64
    assert sorted(found.tolist()) == [place for place, key in enumerate(mine) if key in set(theirs)]
    assert np.array_equal(found, found[keys.order(digests(mine)[found])])


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [(range(0), 0), (range(1), 1), (range(3000, 3001), 0), (range(2999, 3001), 1), (range(2000, 7000), 1000),
     (range(3000), 3000), (range(5000, 5100), 0)],
)  # fmt: skip
def test_none_all_and_sizes_around_a_batch(asked, wanted):
    found, answered = Query(digests(asked), BIG, BIG_NAMES).results
    assert (len(found), answered) == (wanted, len(asked))
    assert sorted(found.tolist()) == [place for place, key in enumerate(asked) if key < 3000]


def test_an_empty_set_can_be_prepared_and_asked():
    preparation, names = prepare([])
    assert preparation.rows == 0 and names == b""
    assert prepared.from_bytes(prepared.to_bytes(preparation, names)) == (preparation, b"")
    found, answered = Query(digests(range(3)), preparation, names).results
    assert len(found) == 0 and answered == 3


@pytest.mark.parametrize("backend", sm2curve.backends())
def test_every_back_end_prepares_the_same_and_is_understood(backend):
    with sm2curve.Scalar(SECRET, backend=backend) as scalar:
        names = prepared.prepare(digests(range(20)), scalar, BIG.tag)
    assert names == prepare(range(20))[1]


def test_threads_and_the_order_of_the_input_make_no_difference():
    given_names = list(range(3000))
    assert prepare(given_names[::-1])[1] == BIG_NAMES == prepare(given_names, threads=3)[1]


def test_names_are_the_ends_of_blinded_keys_ascending():
    flat = sm2curve.hash_to_curve([row.astype("<u8").tobytes() for row in digests(range(50))], BIG.tag)
    with sm2curve.Scalar(SECRET) as scalar:
        points = scalar.multiply(flat)[0]
    wanted = sorted(points[place + 21 : place + 33] for place in range(0, len(points), 33))
    assert prepare(range(50))[1] == b"".join(wanted)


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(st.binary(min_size=12, max_size=12), max_size=40),
    others=st.lists(st.binary(min_size=12, max_size=12), max_size=20),
    near=st.sampled_from([b"", b"\0" * 8, b"\xff" * 8]),
)
def test_looking_up_is_membership(names, others, near):
    # Names that share their first eight bytes are told apart by the rest.
    table = sorted(near + name[len(near) :] for name in names)
    asked = [near + name[len(near) :] for name in others] + table[::2] + [b"\0" * 12, b"\xff" * 12]
    flat = b"".join(asked)
    found = prepared._lookup(prepared._names(memoryview(b"".join(table))), prepared._names(flat))
    assert found.tolist() == [name in table for name in asked]


def test_progress_grows_to_one_of_preparing_and_of_asking():
    preparing: list[float] = []
    asking: list[float] = []
    preparation, names = prepare(range(5000), on_progress=preparing.append)
    Query(digests(range(5000)), preparation, names, left={"on_progress": asking.append})
    for done in (preparing, asking):
        assert len(done) == 2 and done == sorted(done) and done[-1] == 1.0


# -- what is revealed -----------------------------------------------------------------------------------------------


def test_two_preparations_of_one_set_have_nothing_in_common():
    made = [
        prepare(range(300), **other)[1]
        for other in ({}, {"secret": b"\2" * 32}, {"identity": b"j" * 16}, {"salt": b"another" * 4 + b"salt"})
    ]
    cut = [{names[place : place + 12] for place in range(0, len(names), 12)} for names in made]
    assert all(len(part) == 300 for part in cut)
    assert len(set().union(*cut)) == 1200


def test_two_queries_for_one_key_have_nothing_in_common_for_right():
    sent = [Query(digests([7, 8]), BIG, BIG_NAMES).left_sent for _ in range(2)]
    assert [len(message) for message in sent[0]] == [40, 66]
    elements = {sent[run][1][place + 1 : place + 33] for run in (0, 1) for place in (0, 33)}
    assert len(elements) == 4


def test_what_right_sees_does_not_depend_on_what_is_found():
    for asked in (range(100), range(9000, 9100), range(2950, 3050)):
        got = Query(digests(asked), BIG, BIG_NAMES)
        assert [len(message) for message in got.left_sent] == [40, 3300]
        assert [len(message) for message in got.right_sent] == [32, 3300]
        assert got.results[1] == 100


def test_a_secret_and_its_inverse_cancel_and_are_fresh(monkeypatch):
    pairs = [prepared._blinding() for _ in range(3)]
    point = sm2curve.hash_to_curve([b"x"], b"tag")
    for secret, inverse in pairs:
        assert inverse.multiply(secret.multiply(point)[0])[0] == point
    assert len({secret.multiply(point)[0] for secret, _ in pairs}) == 3
    # The order written down here is that of the group: one below it is the last scalar there is.
    last = (prepared._ORDER - 1).to_bytes(32, "big")
    assert sm2curve.Scalar(last).multiply(point)[0] == bytes([point[0] ^ 1]) + point[1:]
    with pytest.raises(InvalidSpec):
        sm2curve.Scalar(prepared._ORDER.to_bytes(32, "big"))


def test_secrets_of_a_query_are_wiped_whatever_happens(monkeypatch):
    made: list[sm2curve.Scalar] = []
    blinding = prepared._blinding

    def kept() -> tuple[sm2curve.Scalar, sm2curve.Scalar]:
        made.extend(blinding())
        return made[-2], made[-1]

    monkeypatch.setattr(prepared, "_blinding", kept)
    before = threading.active_count()
    Query(digests(range(10)), BIG, BIG_NAMES)
    assert isinstance(scripted_right(lambda turn, sent: sent[:-8] if not turn else None), PartyFailed)
    assert len(made) == 4 and all(bytes(one._value) == bytes(32) for one in made)
    assert threading.active_count() == before


def test_a_preparation_does_not_print_its_salt():
    assert repr(SALT)[2:-1] not in repr(BIG) and "salt" not in repr(BIG)


# -- counting what is asked -----------------------------------------------------------------------------------------


def test_no_more_are_answered_than_agreed_on():
    found, answered = Query(digests(range(10)), BIG, BIG_NAMES, most=10).results
    assert len(found) == answered == 10
    got = Query(digests(range(11)), BIG, BIG_NAMES, most=10)
    assert isinstance(got.results[0], InvalidSpec) and got.left_sent == []


@pytest.mark.parametrize("asked", [11, 1 << 31, (1 << 64) - 1])
def test_a_left_that_asks_for_more_gets_nothing(asked):
    counted: list[int] = []
    result, come = scripted_left(asked, bytes(33), most=10, on_asked=counted.append)
    assert isinstance(result, ProtocolFailed)
    assert [len(message) for message in come] == [32] and counted == []


def test_questions_are_counted_before_the_first_answer_and_may_be_refused():
    counted: list[int] = []
    Query(digests(range(10)), BIG, BIG_NAMES, right={"on_asked": counted.append})
    assert counted == [10]

    def spent(asked: int) -> None:
        raise BudgetSpent(f"{asked} more are too many")

    got = Query(digests(range(10)), BIG, BIG_NAMES, right={"on_asked": spent})
    assert [type(result) for result in got.results] == [PartyFailed, BudgetSpent]
    assert [len(message) for message in got.right_sent] == [32]


@pytest.mark.parametrize("most", [-1, 1 << 31])
def test_a_limit_out_of_range_is_none(most):
    got = Query(digests([]), BIG, BIG_NAMES, most=most)
    assert all(isinstance(result, InvalidSpec) for result in got.results), got.results


# -- two sides that do not fit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["identity", "salt", "rows", "secret"])
def test_another_preparation_ends_it_before_a_key_is_used(other):
    changed: dict[str, Any] = {"identity": b"j" * 16} if other == "identity" else {}
    changed |= {"salt": b"x" * 32} if other == "salt" else {}
    changed |= {"secret": b"\3" * 32} if other == "secret" else {}
    theirs, _ = prepare(range(2999 if other == "rows" else 3000), **changed)
    got = Query(digests(range(5)), BIG, BIG_NAMES, theirs=theirs, secret=changed.get("secret", SECRET))
    assert [type(result) for result in got.results] == [PartyFailed, PartyFailed]
    assert [len(message) for message in got.left_sent + got.right_sent] == [40, 32]


@pytest.mark.parametrize("right", [{"plan": b"q" * 32}, {"most": 99_999}])
def test_another_plan_or_limit_ends_it_before_a_key_is_used(right):
    got = Query(digests(range(5)), BIG, BIG_NAMES, right=right)
    assert [type(result) for result in got.results] == [PartyFailed, PartyFailed]
    assert [len(message) for message in got.left_sent + got.right_sent] == [40, 32]


def test_right_does_not_answer_with_a_secret_that_is_not_the_preparations():
    got = Query(digests(range(5)), BIG, BIG_NAMES, secret=b"\3" * 32)
    assert [type(result) for result in got.results] == [PartyFailed, InvalidSpec]
    assert got.right_sent == []


@pytest.mark.parametrize("names", [BIG_NAMES[:-12], BIG_NAMES + bytes(12), BIG_NAMES[:-1], b""])
def test_names_that_are_not_all_there_are_not_searched(names):
    got = Query(digests(range(5)), BIG, names)
    assert isinstance(got.results[0], IntegrityFailed) and got.left_sent == []


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((2, 2), np.uint64), np.arange(4, dtype=np.int64).reshape(2, 2), np.arange(2, dtype=np.uint64)],
    ids=["repeated", "signed", "one word"],
)
def test_digests_that_break_the_contract_go_nowhere(wrong):
    got = Query(wrong, BIG, BIG_NAMES)
    assert isinstance(got.results[0], InvalidSpec) and got.left_sent == []
    with sm2curve.Scalar(SECRET) as scalar, pytest.raises(InvalidSpec):
        prepared.prepare(wrong, scalar, BIG.tag)


# -- the file -------------------------------------------------------------------------------------------------------


def test_a_file_gives_back_what_was_written_without_a_copy():
    data = prepared.to_bytes(BIG, BIG_NAMES)
    preparation, names = prepared.from_bytes(data)
    assert preparation == BIG and names == BIG_NAMES and names.obj is data
    found, _ = Query(digests(range(2990, 3010)), preparation, names).results
    assert len(found) == 10


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_changed_byte_is_found_wherever_it_is(place, flip):
    data = bytearray(prepared.to_bytes(*prepare(range(20))))
    data[place % len(data)] ^= flip
    with pytest.raises(IntegrityFailed):
        prepared.from_bytes(bytes(data))


def test_a_cut_or_longer_file_is_found():
    data = prepared.to_bytes(*prepare(range(5)))
    for size in (*range(len(data)), len(data) + 1, len(data) + 12):
        with pytest.raises(IntegrityFailed):
            prepared.from_bytes((data + bytes(12))[:size])


def test_a_file_of_another_version_is_refused_even_with_its_checksum():
    head = b"prepared-sm2/2".ljust(16, b"\0") + BIG.packed()[16:]
    with pytest.raises(IntegrityFailed):
        prepared.from_bytes(head + prepared.tagged("psi-prepared", head) + BIG_NAMES)


def test_a_description_alone_is_read_back_or_refused():
    head = BIG.packed()
    assert prepared.unpacked(head) == BIG
    too_many = head[:64] + (1 << 31).to_bytes(8, "big") + head[72:]
    for wrong in (b"", head[:-1], head + b"x", b"prepared-sm2/2".ljust(16, b"\0") + head[16:], too_many):
        with pytest.raises(IntegrityFailed):
            prepared.unpacked(wrong)


@pytest.mark.parametrize(
    "field", [{"identity": b"i" * 15}, {"salt": b"s" * 31}, {"rows": -1}, {"rows": 1 << 31}, {"digest": b""},
              {"check": bytes(32)}, {"engine": "ecdh-sm2/1"}],
)  # fmt: skip
def test_a_description_has_fixed_sizes(field):
    fields = {"identity": IDENTITY, "salt": SALT, "rows": 1, "digest": bytes(32), "check": bytes(33)}
    Preparation(**fields)
    with pytest.raises(InvalidSpec):
        Preparation(**(fields | field))


# -- a side that breaks the protocol --------------------------------------------------------------------------------

POINTS = sm2curve.hash_to_curve([b"x", b"y", b"w"], b"made by the peer")
OFF = next(  # about every other x is on no point
    candidate
    for number in range(1, 100)
    if sm2curve.Scalar(bytes(31) + b"\1").multiply(candidate := b"\2" + number.to_bytes(32, "big"))[1]
)
NO_POINTS = [OFF, bytes(33), b"\2" + b"\xff" * 32, b"\4" + POINTS[1:33]]


def scripted_right(reply: Callable[[int, bytes], bytes | None]) -> Any:
    """Ask about three keys of a right that answers each message as ``reply`` says."""
    with channels() as (left, right):

        def peer() -> None:
            for turn in range(2):
                answer = reply(turn, right.recv(5))
                if answer is None:
                    break
                right.send(answer)
            right.close()

        def mine() -> Any:
            try:
                return prepared.query(digests(range(3)), BIG, BIG_NAMES, left, plan=PLAN, most=10, patience_s=5)
            finally:
                left.close()

        return together(mine, peer)[0]


def scripted_left(asked: int, batch: bytes, *, most: int = 100, **options: Any) -> tuple[Any, list[bytes]]:
    """Answer a left that announces ``asked`` elements and sends ``batch``."""
    come: list[bytes] = []
    with channels() as (left, right), sm2curve.Scalar(SECRET) as scalar:

        def peer() -> None:
            try:
                for message in (prepared._agreed(BIG, PLAN, most) + asked.to_bytes(8, "big"), batch):
                    left.send(message)
                    come.append(left.recv(5))
            except PartyFailed:
                pass  # right has ended, which is what is looked at

        def mine() -> Any:
            try:
                return prepared.answer(right, scalar, most, preparation=BIG, plan=PLAN, patience_s=5, **options)
            finally:
                right.close()

        return together(mine, peer)[0], come


@pytest.mark.parametrize("answer", [b"", POINTS[:66], POINTS + POINTS[:33], POINTS[:-1]])
def test_left_finds_out_an_answer_of_the_wrong_size(answer):
    assert isinstance(scripted_right(lambda turn, sent: answer if turn else sent[:-8]), ProtocolFailed)


@pytest.mark.parametrize("lane", [0, 1, 2])
@pytest.mark.parametrize("bad", NO_POINTS)
def test_a_point_off_the_curve_ends_it_at_either_side_before_a_secret_touches_it(bad, lane):
    batch = POINTS[: 33 * lane] + bad + POINTS[33 * (lane + 1) :]
    result = scripted_right(lambda turn, sent: batch if turn else sent[:-8])
    assert isinstance(result, ProtocolFailed) and "1 elements of 3" in str(result)
    result, come = scripted_left(3, batch)
    assert isinstance(result, ProtocolFailed) and "1 elements of 3" in str(result)
    assert [len(message) for message in come] == [32]


def test_a_right_that_returns_our_own_elements_is_no_match():
    assert scripted_right(lambda turn, sent: sent if turn else sent[:-8]).tolist() == []


@pytest.mark.parametrize("batch", [b"", POINTS[:33], POINTS + POINTS[:33], POINTS[:-1]])
def test_right_answers_neither_fewer_nor_more_than_were_announced(batch):
    result, come = scripted_left(3, batch)
    assert isinstance(result, ProtocolFailed)
    assert [len(message) for message in come] == [32]


def test_right_answers_each_element_under_its_secret_and_nothing_else():
    result, come = scripted_left(3, POINTS)
    with sm2curve.Scalar(SECRET) as scalar:
        assert (result, come[1]) == (3, scalar.multiply(POINTS)[0])


@pytest.mark.parametrize("opening", [b"", bytes(39), bytes(40), bytes(41)])
def test_an_opening_of_another_form_is_refused(opening):
    with channels() as (left, right), sm2curve.Scalar(SECRET) as scalar:
        left.send(opening)
        with pytest.raises(PartyFailed):
            prepared.answer(right, scalar, 10, preparation=BIG, plan=PLAN, patience_s=5)


def test_silence_and_stops_end_it():
    stop = threading.Event()
    stop.set()
    assert [type(one) for one in Query(digests([1]), BIG, BIG_NAMES, left={"stop": stop}).results] == [
        Cancelled, PartyFailed,
    ]  # fmt: skip
    assert [type(one) for one in Query(digests([1]), BIG, BIG_NAMES, right={"stop": stop}).results] == [
        PartyFailed, Cancelled,
    ]  # fmt: skip
    with sm2curve.Scalar(SECRET) as scalar, pytest.raises(Cancelled):
        prepared.prepare(digests(range(3)), scalar, BIG.tag, stop=stop)
    with channels() as (left, _), pytest.raises(DeadlinePassed):
        prepared.query(digests([1]), BIG, BIG_NAMES, left, plan=PLAN, most=1, patience_s=0.05)
    with channels() as (_, right), sm2curve.Scalar(SECRET) as scalar, pytest.raises(DeadlinePassed):
        prepared.answer(right, scalar, 1, preparation=BIG, plan=PLAN, patience_s=0.05)
