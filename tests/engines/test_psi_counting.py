"""Counting an intersection against sets in the clear; that nothing links a row; and a peer that breaks the protocol."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from engine_pairs import channels, together
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.crypto import sm2curve
from sandbox.errors import Cancelled, DeadlinePassed, InvalidSpec, JobFailed, PartyFailed, ProtocolFailed, SandboxError
from sandbox.psi import counting, keys
from sandbox.psi.contract import Role, Terms

PLAN, SALT = b"p" * 32, b"salt of this run"


def terms(left: int, right: int, **other: Any) -> Terms:
    return Terms(**{"plan": PLAN, "salt": SALT, "left_rows": left, "right_rows": right} | other)


def digests(names: Any) -> keys.Digests:
    return keys.digest(pa.array([str(name) for name in names], pa.string()), SALT)


class Recorder:
    """A channel that keeps what was sent through it."""

    def __init__(self, channel: Any) -> None:
        self._channel, self.sent = channel, []

    def send(self, data: bytes) -> None:
        self.sent.append(data)
        self._channel.send(data)

    def recv(self, deadline: float) -> bytes:
        return self._channel.recv(deadline)


def run(left: Any, right: Any, mine: Terms | None = None, theirs: Terms | None = None, **options: Any) -> list[Any]:
    mine = mine or terms(len(left), len(right))

    def side(given: keys.Digests, role: Role, agreed: Terms, channel: Any) -> Any:
        try:
            return counting.count(given, role, agreed, channel, patience_s=20, **options)
        except Exception:
            channel.close()
            raise

    with channels() as (here, there):
        return together(
            lambda: side(left, Role.LEFT, mine, here), lambda: side(right, Role.RIGHT, theirs or mine, there)
        )


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a few records, so that a small set already fills many."""
    for name, value in {"HELD": 0, "PART": 64, "BATCH": 16, "ECHO_BATCH": 48}.items():
        monkeypatch.setattr(counting, name, value)


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "scratch"
    folder.mkdir(0o700)
    yield folder
    assert list(folder.iterdir()) == []  # whatever happened, nothing is left behind


# -- the size -------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    left=st.sets(st.text(max_size=20), max_size=40),
    right=st.sets(st.text(max_size=20), max_size=40),
    common=st.sets(st.text(max_size=20), max_size=20),
)
def test_counts_what_sets_have_in_common(left, right, common):
    mine, theirs = left | common, right | common
    assert run(digests(sorted(mine)), digests(sorted(theirs))) == [len(mine & theirs), None]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (range(0), range(0)),
        (range(0), range(5)),
        (range(5), range(0)),
        (range(1), range(1)),
        (range(100), range(100, 150)),
        (range(60), range(60)),
        (range(4096), range(4090, 4200)),
        (range(4097), range(2)),
        (range(3), range(9000)),
    ],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_sizes_around_a_batch_and_overlaps_of_none_and_all(left, right, threads):
    wanted = len(set(left) & set(right))
    assert run(digests(left), digests(right), threads=threads) == [wanted, None]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(("left", "right"), [(700, 500), (1, 700), (700, 1), (63, 64), (300, 0)])
def test_in_files_it_counts_the_same_and_cleans_up(scratch, left, right):
    mine, theirs = range(left), range(left // 3, left // 3 + right)
    wanted = len(set(mine) & set(theirs))
    assert run(digests(mine), digests(theirs), scratch=scratch) == [wanted, None]


@pytest.mark.usefixtures("small_parts")
def test_files_are_private_and_hold_nothing_of_a_key(scratch, monkeypatch):
    seen: dict[str, bytes] = {}
    write = counting.Names._write

    def watched(self: counting.Names) -> None:
        write(self)
        for path in self._files:
            if path.exists():
                assert path.stat().st_mode & 0o777 == 0o600
                seen[path.name] = path.read_bytes()

    monkeypatch.setattr(counting.Names, "_write", watched)
    mine = digests(range(500))
    assert run(mine, digests(range(250, 750)), scratch=scratch) == [250, None]
    assert len(seen) > 20
    content = b"".join(seen.values())
    words = np.frombuffer(content, np.uint64)
    assert not np.isin(mine.ravel(), words).any() and not np.isin(mine.ravel().byteswap(), words).any()


def test_a_directory_others_may_read_is_refused(tmp_path):
    tmp_path.chmod(0o750)
    assert [type(one) for one in run(digests("abc"), digests("abc"), scratch=tmp_path)] == [InvalidSpec, InvalidSpec]
    missing = tmp_path / "missing"
    assert [type(one) for one in run(digests("abc"), digests("abc"), scratch=missing)] == [InvalidSpec, InvalidSpec]


@pytest.mark.usefixtures("small_parts")
def test_a_file_that_cannot_be_written_or_is_gone_ends_the_run_with_our_own_error(scratch):
    with counting.Names(scratch, 200) as names:
        names.add(bytes(range(160)), 0)
        names._files[0].mkdir()  # in the place of a file
        with pytest.raises(JobFailed):
            list(names.ordered())
        names._files[0].rmdir()
    with counting.Names(scratch, 200) as names:
        names.add(bytes(range(160)), 0)
        pieces = names.ordered()
        next(pieces)
        names._files[1].unlink()
        with pytest.raises(JobFailed):
            next(pieces)
    with counting.Names(scratch, 200) as names:  # emptied between two writes: fewer names than were taken in
        names.add(bytes(range(160)), 0)
        names._write()
        for path in names._files:
            path.unlink()
        with pytest.raises(JobFailed):
            list(names.ordered())


def test_progress_grows_to_one_at_both_sides():
    seen: dict[Role, list[float]] = {Role.LEFT: [], Role.RIGHT: []}
    with channels() as (here, there):
        together(
            *(
                lambda role=role, channel=channel, given=given: counting.count(
                    given, role, terms(9000, 100), channel, on_progress=seen[role].append
                )
                for role, channel, given in (
                    (Role.LEFT, here, digests(range(9000))),
                    (Role.RIGHT, there, digests(range(100))),
                )
            )
        )
    for done in seen.values():
        assert done == sorted(done) and done[-1] == 1.0 and len(done) == 4


# -- what cannot be linked ------------------------------------------------------------------------------------------

A, B = bytes(31) + b"\7", b"\1" * 32  # secrets of the two sides, where a test needs to know them


def transcripts(left: keys.Digests, right: keys.Digests, monkeypatch: Any, **options: Any) -> tuple[list, list]:
    """Run once under secrets that are known; return what left and what right sent."""
    agreed, mine = terms(len(left), len(right)), threading.local()
    with channels() as (here, there), monkeypatch.context() as patched:
        patched.setattr(sm2curve.Scalar, "generate", lambda: sm2curve.Scalar(mine.secret))
        said = Recorder(here), Recorder(there)

        def side(given: keys.Digests, role: Role, secret: bytes) -> Any:
            mine.secret = secret
            return counting.count(given, role, agreed, said[role.value], patience_s=20, **options)

        results = together(lambda: side(left, Role.LEFT, A), lambda: side(right, Role.RIGHT, B))
    assert isinstance(results[0], int) and results[1] is None, results
    return said[0].sent, said[1].sent


def cut(messages: list[bytes], size: int) -> list[bytes]:
    flat = b"".join(messages)
    return [flat[place : place + size] for place in range(0, len(flat), size)]


def test_what_comes_back_of_lefts_own_is_the_same_whatever_order_left_sent_it_in(monkeypatch):
    mine, theirs = digests(range(300)), digests(range(200, 400))
    runs = [transcripts(given, theirs, monkeypatch) for given in (mine, mine[::-1], mine)]
    sent = [cut(left[1:2], 33) for left, _ in runs]
    assert sorted(sent[0]) == sorted(sent[1]) and sent[0] != sent[1] and sent[0] != sent[2]
    echoes = [right[2] for _, right in runs]
    assert echoes[0] == echoes[1] == echoes[2]
    names = cut(echoes[:1], counting.NAME)
    assert names == sorted(names)
    # They are b a H(x) of what was sent: as a set they say whom right met, as a sequence nothing.
    with sm2curve.Scalar(B) as secret:
        again = secret.multiply(b"".join(sent[0]))[0]
    assert set(names) == {point[-16:] for point in cut([again], 33)}


def test_the_sequence_right_sends_is_drawn_afresh(monkeypatch):
    mine, theirs = digests(range(300)), digests(range(200, 400))
    runs = [transcripts(mine, given, monkeypatch)[1] for given in (theirs, theirs, theirs[::-1])]
    sequences = [cut(right[1:2], 33) for right in runs]
    assert sorted(sequences[0]) == sorted(sequences[1]) == sorted(sequences[2])
    for one, other in ((0, 1), (0, 2), (1, 2)):
        places = [sequences[one].index(element) for element in sequences[other]]
        # Of a random permutation of 200 one place stays on average, and 100 neighbours rise; 20 are five deviations.
        assert sum(place == number for number, place in enumerate(places)) < 10
        assert 80 < sum(np.diff(places) > 0) < 120


def test_two_runs_have_no_element_in_common():
    said: list[set[bytes]] = []
    for _ in range(2):
        with channels() as (here, there):
            recorders = Recorder(here), Recorder(there)
            together(
                lambda ends=recorders: counting.count(digests("abc"), Role.LEFT, terms(3, 3), ends[0]),
                lambda ends=recorders: counting.count(digests("bcd"), Role.RIGHT, terms(3, 3), ends[1]),
            )
        said.append(
            {name[-16:] for one in recorders for name in cut(one.sent[1:2], 33)} | set(cut(recorders[1].sent[2:3], 16))
        )
    assert len(said[0]) == len(said[1]) == 9
    assert not said[0] & said[1]


@pytest.mark.usefixtures("small_parts")
def test_nothing_on_the_wire_shows_the_size_or_the_parts(monkeypatch, scratch):
    lengths = set()
    for common in (0, 1, 250):
        for folder in (None, scratch):
            left, right = transcripts(
                digests(range(250)), digests(range(250 - common, 550 - common)), monkeypatch, scratch=folder
            )
            lengths.add((tuple(map(len, left)), tuple(map(len, right))))
    assert len(lengths) == 1
    ((left, right),) = lengths
    assert right[-7:] == (768, 768, 768, 768, 768, 160, 0)
    assert left[-7:] == (0, 0, 0, 0, 0, 0, 4)


# -- a side that breaks the protocol --------------------------------------------------------------------------------


def points(*names: bytes) -> list[bytes]:
    return cut([sm2curve.hash_to_curve(names, b"made by the peer")], 33)


def negated(point: bytes) -> bytes:
    return bytes([point[0] ^ 1]) + point[1:]


X, Y, W = points(b"x", b"y", b"w")
OFF = next(  # about every other x is on no point
    candidate
    for number in range(1, 100)
    if sm2curve.Scalar(bytes(31) + b"\1").multiply(candidate := b"\2" + number.to_bytes(32, "big"))[1]
)
NO_POINTS = {
    "off the curve": OFF,
    "infinity": bytes(33),
    "x not below the prime": b"\2" + b"\xff" * 32,
    "wrong form": b"\4" + X[1:],
}
WRONG: dict[str, Callable[[bytes], bytes]] = {
    "too few": lambda sent: X + Y,
    "too many": lambda sent: X + Y + W + W,
    "a byte short": lambda sent: (X + Y + W)[:-1],
    "repeated": lambda sent: X + Y + Y,
    "repeated up to sign": lambda sent: X + Y + negated(Y),
    "reflected": lambda sent: sent[:33] + X + Y,
    "reflected up to sign": lambda sent: X + negated(sent[33:66]) + Y,
} | {name: lambda sent, point=point: X + point + Y for name, point in NO_POINTS.items()}


def against_left(reply: Callable[[int, bytes], bytes | None]) -> Any:
    """Run the left side with three keys against a right that answers each message as ``reply`` says."""
    with channels() as (left, right):

        def peer() -> None:
            for turn in range(4):
                answer = reply(turn, right.recv(5))
                if answer is None:
                    break
                right.send(answer)
            right.close()

        def mine() -> Any:
            try:
                return counting.count(digests("abc"), Role.LEFT, terms(3, 3), left, patience_s=5)
            finally:
                left.close()

        return together(mine, peer)[0]


def against_right(*messages: Callable[[list[bytes]], bytes]) -> tuple[Any, list[bytes]]:
    """Run the right side with three keys against a left that sends ``messages``, each made from what came so far."""
    come: list[bytes] = []
    with channels() as (left, right):

        def peer() -> None:
            try:
                for message in (lambda _: counting.header(terms(3, 3), counting.ENGINE), *messages):
                    left.send(message(come))
                    come.append(left.recv(5))
            except PartyFailed:
                pass  # the other side has ended, which is what is looked at
            left.close()

        def mine() -> Any:
            try:
                return counting.count(digests("abc"), Role.RIGHT, terms(3, 3), right, patience_s=5)
            finally:
                right.close()

        return together(mine, peer)[0], come


def scripted_right(
    points_sent: Callable[[bytes], bytes], echo: Callable[[list[bytes]], bytes], end: bytes = b""
) -> Any:
    kept: list[bytes] = []

    def reply(turn: int, sent: bytes) -> bytes:
        if turn == 1:
            with sm2curve.Scalar(B) as secret:
                kept.extend(point[-16:] for point in cut([secret.multiply(sent)[0]], 33))
        return [lambda: sent, lambda: points_sent(sent), lambda: echo(kept), lambda: end][turn]()

    return against_left(reply)


def test_a_right_written_by_itself_is_counted_whatever_order_it_answers_in():
    tag = (
        b"sandbox/v1/psi-count/"
        + counting.tagged("psi-count", (32).to_bytes(4, "big") + PLAN + SALT)[:16].hex().encode()
    )
    flat = sm2curve.hash_to_curve(
        [row.astype("<u8").tobytes() for row in digests("zca")], tag + b"/curveSM2_XMD:SM3_SSWU_RO_"
    )
    with sm2curve.Scalar(B) as secret:
        theirs = secret.multiply(flat)[0]
    for turn in (lambda kept: b"".join(kept), lambda kept: b"".join(kept[::-1])):
        assert scripted_right(lambda sent: theirs, turn) == 2


@pytest.mark.parametrize("wrong", WRONG)
def test_left_finds_out_a_wrong_first_round(wrong):
    result = scripted_right(WRONG[wrong], b"".join)
    assert isinstance(result, ProtocolFailed), result
    assert ("1 elements of 3" in str(result)) == (wrong in NO_POINTS)


@pytest.mark.parametrize(
    "echo",
    [
        lambda kept: b"".join(kept[:2]),
        lambda kept: b"".join(kept) + kept[0],
        lambda kept: b"".join(kept)[:-1],
        lambda kept: kept[0] + kept[1] + kept[1],
        lambda kept: kept[0] * 3,
    ],
    ids=["few", "many", "short", "twice", "thrice"],
)
def test_left_finds_out_a_wrong_second_round(echo):
    assert isinstance(scripted_right(lambda sent: X + Y + W, echo), ProtocolFailed)


def test_left_finds_out_a_common_key_that_comes_back_twice(monkeypatch):
    # The name equals one of right's and is there twice: two pairs of neighbours, of which each looks like a match.
    with sm2curve.Scalar(B) as secret:
        flat = secret.multiply(X + Y + W)[0]
    with sm2curve.Scalar(A) as secret:
        name = secret.multiply(flat)[0][33 - 16 : 33]
    monkeypatch.setattr(sm2curve.Scalar, "generate", lambda: sm2curve.Scalar(A))
    assert isinstance(scripted_right(lambda sent: flat, lambda kept: name + name + kept[0]), ProtocolFailed)
    assert scripted_right(lambda sent: flat, lambda kept: name + kept[1] + kept[0]) == 1


def test_left_wants_the_last_answer_empty():
    assert isinstance(scripted_right(lambda sent: X + Y + W, b"".join, end=b"x"), ProtocolFailed)


@pytest.mark.parametrize("wrong", WRONG)
def test_right_finds_out_a_wrong_first_round_and_sends_nothing_more(wrong):
    # What right sent of its own came before the peer has to say anything, so it can be reflected only in a later batch.
    first, empty = WRONG[wrong], lambda come: b""
    if wrong.startswith("reflected"):
        result, come = reflecting(up_to_sign="sign" in wrong)
    else:
        result, come = against_right(lambda come: first(b""), empty, empty)
        assert len(come) in (1, 2)  # the header, and its own blinded keys at most
    assert isinstance(result, ProtocolFailed), result
    assert not any(len(message) == 3 * counting.NAME for message in come)


def reflecting(*, up_to_sign: bool) -> tuple[Any, list[bytes]]:
    """Run the right side against a left that sends one of right's own elements in its second batch."""
    come: list[bytes] = []
    count = counting.BATCH + 1
    agreed = terms(count, 3)
    with sm2curve.Scalar(A) as secret:
        own = secret.multiply(sm2curve.hash_to_curve([b"%d" % number for number in range(count)], b"tag"))[0]
    with channels() as (left, right):

        def peer() -> None:
            left.send(counting.header(agreed, counting.ENGINE))
            left.recv(5)
            left.send(own[: 33 * counting.BATCH])
            theirs = left.recv(5)[:33]
            left.send(negated(theirs) if up_to_sign else theirs)
            try:
                come.append(left.recv(5))
                left.send(b"")
                come.append(left.recv(5))
            except PartyFailed:
                pass

        def mine() -> Any:
            try:
                return counting.count(digests("abc"), Role.RIGHT, agreed, right, patience_s=5)
            finally:
                right.close()

        return together(mine, peer)[0], come


def test_right_wants_empty_turns_and_the_agreed_end():
    empty = lambda come: b""  # noqa: E731
    good = lambda come: X + Y + W  # noqa: E731
    assert isinstance(against_right(good, lambda come: b"x")[0], ProtocolFailed)
    assert isinstance(against_right(good, empty, lambda come: b"dine")[0], ProtocolFailed)
    result, come = against_right(good, empty, lambda come: counting.DONE)
    assert result is None and [len(message) for message in come] == [32, 99, 48, 0]


@pytest.mark.parametrize("other", [{"plan": b"q" * 32}, {"salt": b"another salt 16b"}, {"right_rows": 4}])
def test_different_terms_end_before_any_key_is_used(other):
    given = digests("abc")
    mine, theirs = terms(3, 3), terms(3, 3, **other)
    results = run(given, digests("abcd") if "right_rows" in other else given, mine, theirs)
    assert [type(result) for result in results] == [PartyFailed, PartyFailed]


@pytest.mark.parametrize(
    "given",
    [
        np.zeros((3, 2), np.uint64),
        np.arange(6, dtype=np.int64).reshape(3, 2),
        np.arange(9, dtype=np.uint64).reshape(3, 3),
        np.arange(3, dtype=np.uint64),
        np.arange(8, dtype=np.uint64).reshape(4, 2),
    ],
    ids=["repeated", "signed", "three words", "one word", "too many"],
)
def test_digests_that_break_the_contract_never_reach_the_other_side(given):
    with channels() as (here, _):
        recorder = Recorder(here)
        with pytest.raises(InvalidSpec):
            counting.count(given, Role.LEFT, terms(3, 3), recorder)
    assert recorder.sent == []


@pytest.mark.usefixtures("small_parts")
def test_names_are_ascending_in_memory_and_in_files_and_a_part_cannot_be_overfilled(scratch):
    draw = np.random.default_rng(4)
    raw = draw.bytes(16 * 640)
    wanted = sorted(cut([raw], 16))
    for folder in (None, scratch):
        with counting.Names(folder, 640) as names:
            for first in range(0, 640, 32):
                names.add(raw[16 * first : 16 * (first + 32)], first, count_up=True)
            pieces = list(names.ordered())
        got = np.concatenate(pieces)
        assert len(pieces) == (10 if folder else 1)
        assert cut([got[:, :2].astype(">u8").tobytes()], 16) == wanted
        assert [raw[16 * place : 16 * place + 16] for place in got[:, 2].tolist()] == wanted
    with counting.Names(scratch, 640) as names:
        for number in range(20):
            names.add(b"".join(bytes(14) + (32 * number + k).to_bytes(2, "big") for k in range(32)), 0)
        with pytest.raises(ProtocolFailed):
            list(names.ordered())


def test_a_peer_that_falls_silent_or_a_stop_ends_it_and_wipes_the_secret(monkeypatch):
    made: list[sm2curve.Scalar] = []
    generate = sm2curve.Scalar.generate
    monkeypatch.setattr(sm2curve.Scalar, "generate", lambda: made.append(generate()) or made[-1])
    before, stop = threading.active_count(), threading.Event()
    with channels() as (left, _), pytest.raises(DeadlinePassed):
        counting.count(digests("a"), Role.LEFT, terms(1, 1), left, patience_s=0.1)
    given = digests(range(20_000))

    def side(role: Role, channel: Any, mine: threading.Event | None) -> Any:
        try:
            return counting.count(
                given, role, terms(20_000, 20_000), channel, stop=mine, on_progress=lambda _: stop.set()
            )
        except SandboxError:
            channel.close()
            raise

    with channels() as (here, there):
        results = together(lambda: side(Role.LEFT, here, stop), lambda: side(Role.RIGHT, there, None))
    assert [type(result) for result in results] == [Cancelled, PartyFailed]
    run(digests("abc"), digests("abd"))
    assert threading.active_count() == before
    assert len(made) == 4 and all(bytes(one._value) == bytes(32) for one in made)


@pytest.mark.parametrize("backend", sm2curve.backends())
def test_sides_on_different_back_ends_agree(backend, monkeypatch):
    generate, mixed = sm2curve.Scalar.generate, iter([backend, "libcrypto"])
    monkeypatch.setattr(sm2curve.Scalar, "generate", lambda: generate(backend=next(mixed)))
    assert run(digests(range(60)), digests(range(40, 90))) == [20, None]
