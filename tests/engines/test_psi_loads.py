"""Loads of the common keys reach left, and nothing else does: who they belong to, which were taken, how they lay."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from engine_pairs import channels, together
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.crypto import sm2curve
from sandbox.errors import Cancelled, InvalidSpec, OutputWithheld, PartyFailed, ProtocolFailed
from sandbox.psi import counting, keys, loads
from sandbox.psi.contract import Terms
from sandbox.psi.keys import Positions

PLAN, SALT = b"p" * 32, b"salt of this run"
SIZE = 24  # bytes a load in these tests


def terms(left: int, right: int, **other: Any) -> Terms:
    return Terms(**{"plan": PLAN, "salt": SALT, "left_rows": left, "right_rows": right} | other)


def digests(names: Any) -> keys.Digests:
    return keys.digest(pa.array([str(name) for name in names], pa.string()), SALT)


def load_of(name: Any) -> bytes:
    return str(name).encode("utf-8").ljust(SIZE, b".")[:SIZE]


class Recorder:
    """A channel that keeps what was sent through it."""

    def __init__(self, channel: Any) -> None:
        self._channel, self.sent = channel, []

    def send(self, data: bytes) -> None:
        self.sent.append(data)
        self._channel.send(data)

    def recv(self, deadline: float) -> bytes:
        return self._channel.recv(deadline)


class Run:
    """One run of both sides, and everything there is to see of it."""

    def __init__(self, left: list[Any], right: list[Any], *, minimum: int = 1, **options: Any) -> None:
        self.taken: list[bytes] = []
        self.asked: list[Positions] = []
        right_minimum = options.pop("right_minimum", minimum)
        right_size = options.pop("right_size", SIZE)
        make = options.pop("make", lambda places: b"".join(load_of(right[place]) for place in places.tolist()))
        left_stop, right_stop = options.pop("left_stop", None), options.pop("right_stop", None)
        on_progress = options.pop("on_progress", None)
        agreed = terms(len(left), len(right))

        def asked(places: Positions) -> bytes:
            self.asked.append(places)
            return make(places)

        with channels() as (here, there):
            said = Recorder(here), Recorder(there)

            def collect() -> Any:
                try:
                    return loads.collect_loads(
                        digests(left), agreed, said[0], load_size=SIZE, minimum=minimum, take=self.taken.append,
                        patience_s=20, stop=left_stop, on_progress=on_progress, **options,
                    )  # fmt: skip
                finally:
                    here.close()

            def send() -> Any:
                try:
                    return loads.send_loads(
                        digests(right), agreed, said[1], load_size=right_size, minimum=right_minimum, make=asked,
                        patience_s=20, stop=right_stop, on_progress=on_progress, **options,
                    )  # fmt: skip
                except Exception:
                    there.close()
                    raise

            self.results = together(collect, send)
        self.left_sent, self.right_sent = said[0].sent, said[1].sent

    @property
    def loads(self) -> list[bytes]:
        flat = b"".join(self.taken)
        return [flat[place : place + SIZE] for place in range(0, len(flat), SIZE)]


@settings(max_examples=40, deadline=None)
@given(
    left=st.sets(st.integers(0, 500), max_size=40),
    right=st.sets(st.integers(0, 500), max_size=40),
    common=st.sets(st.integers(0, 500), max_size=15),
    minimum=st.integers(1, 12),
)
def test_left_gets_the_loads_of_the_common_keys_or_both_are_told_the_same(left, right, common, minimum):
    mine, theirs = sorted(left | common), sorted(right | common)
    wanted = set(mine) & set(theirs)
    got = Run(mine, theirs, minimum=minimum)
    if len(wanted) >= minimum:
        assert got.results == [len(wanted), None]
        assert sorted(got.loads) == sorted(map(load_of, wanted))
        assert sorted(np.concatenate(got.asked).tolist()) == list(range(len(theirs)))
    else:
        assert [type(result) for result in got.results] == [OutputWithheld, OutputWithheld]
        assert str(got.results[0]) == str(got.results[1])
        assert got.taken == [] and got.asked == []


@pytest.mark.parametrize(("left", "right", "first"), [(5000, 4200, 100), (10, 9000, 5), (9000, 10, 5), (4096, 4096, 1)])
def test_sizes_around_a_batch_and_loads_in_several_messages(monkeypatch, left, right, first):
    monkeypatch.setattr(loads, "MESSAGE", 1000 * SIZE + 1)
    mine, theirs = range(left), range(left - first, left - first + right)
    got = Run(list(mine), list(theirs), threads=2)
    wanted = set(mine) & set(theirs)
    assert len(wanted) == first and got.results == [first, None]
    assert sorted(got.loads) == sorted(map(load_of, wanted))
    rest = [right % 1000] if right % 1000 else []
    assert [len(places) for places in got.asked] == [1000] * (right // 1000) + rest
    assert all(places.dtype == np.int64 for places in got.asked)


@pytest.mark.usefixtures("small_parts")
def test_in_files_the_right_loads_are_taken(tmp_path):
    (tmp_path / "scratch").mkdir(0o700)
    got = Run(list(range(500)), list(range(333, 800)), scratch=tmp_path / "scratch")
    assert got.results == [167, None]
    assert sorted(got.loads) == sorted(map(load_of, range(333, 500)))
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HELD": 0, "PART": 64, "BATCH": 16, "ECHO_BATCH": 48}.items():
        monkeypatch.setattr(counting, name, value)


# -- the minimum ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("common", "minimum"), [(0, 1), (9, 10), (1, 20)])
def test_below_the_minimum_no_load_is_made_or_sent(common, minimum):
    got = Run(list(range(30)), list(range(30 - common, 60)), minimum=minimum)
    assert [type(result) for result in got.results] == [OutputWithheld, OutputWithheld]
    assert got.asked == [] and got.taken == []
    # header, blinded keys, what came back, and an empty turn for the verdict
    assert [len(message) for message in got.right_sent] == [32, 33 * (30 + common), 16 * 30, 0]
    assert got.left_sent[3:] == [b"stop"]


def test_at_the_minimum_there_are_loads():
    got = Run(list(range(30)), list(range(20, 60)), minimum=10)
    assert got.results == [10, None] and len(got.loads) == 10


@pytest.mark.parametrize(("left", "right"), [(9, 30), (30, 9), (0, 30), (30, 0), (0, 0)])
def test_with_fewer_rows_than_the_minimum_nothing_but_the_header_is_sent(left, right):
    got = Run(list(range(left)), list(range(right)), minimum=10)
    assert [type(result) for result in got.results] == [OutputWithheld, OutputWithheld]
    assert [len(message) for message in got.left_sent + got.right_sent] == [32, 32]


def test_a_withheld_size_is_in_no_message_and_the_words_are_the_same_everywhere():
    texts = {
        (str(result), result.tell)
        for common in (0, 3, 9)
        for result in Run(list(range(30)), list(range(30 - common, 60)), minimum=10).results
    } | {(str(result), result.tell) for result in Run([1], [1], minimum=10).results}
    assert len(texts) == 1


@pytest.mark.parametrize("minimum", [0, -1])
def test_there_is_always_a_minimum(minimum):
    assert [type(result) for result in Run([1, 2], [1, 2], minimum=minimum).results] == [InvalidSpec, InvalidSpec]


# -- what left cannot tell ------------------------------------------------------------------------------------------


def test_the_sequence_of_loads_is_drawn_afresh_and_follows_the_blinded_keys():
    left, right = list(range(150)), list(range(50, 350))
    runs = [Run(left, names) for names in (right, right, right[::-1])]
    sequences = []
    for got, names in zip(runs, (right, right, right[::-1]), strict=True):
        places = np.concatenate(got.asked)
        assert sorted(places.tolist()) == list(range(300))
        sequences.append([names[place] for place in places.tolist()])
        sent = b"".join(message for message in got.right_sent if len(message) == 300 * SIZE)
        assert sent == b"".join(map(load_of, sequences[-1]))
        # Taken are the loads of the common keys in right's sequence, which says nothing of left's.
        assert got.loads == [load_of(one) for one in sequences[-1] if one < 150]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        places = [sequences[one].index(element) for element in sequences[other]]
        assert sum(place == number for number, place in enumerate(places)) < 10
        assert 110 < sum(np.diff(places) > 0) < 190  # 150 on average, standard deviation 5


def test_what_left_sends_does_not_depend_on_which_or_how_many_loads_it_takes(monkeypatch):
    monkeypatch.setattr(loads, "MESSAGE", 16 * SIZE)
    seen = set()
    for common in (1, 50, 100):
        got = Run(list(range(100)), list(range(100 - common, 200 - common)))
        assert got.results == [common, None]
        after = got.left_sent.index(b"go  ")
        seen.add(
            (tuple(map(len, got.left_sent[:after])), tuple(got.left_sent[after:]), tuple(map(len, got.right_sent)))
        )
    assert len(seen) == 1
    assert next(iter(seen))[1] == (b"go  ", *[b""] * 7, b"done")


def test_progress_grows_to_one():
    seen: list[float] = []
    Run(list(range(50)), list(range(60)), on_progress=seen.append)
    assert max(seen) == 1.0 and seen.count(1.0) == 2


# -- a side that breaks the protocol --------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"right_minimum": 4}, {"right_size": SIZE + 1}])
def test_another_minimum_or_size_ends_before_any_key_is_used(options):
    got = Run([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], minimum=3, **options)
    assert [type(result) for result in got.results] == [PartyFailed, PartyFailed]
    assert [len(message) for message in got.left_sent + got.right_sent] == [32, 32]


def test_counting_and_loads_do_not_talk_to_each_other():
    with channels() as (here, there):
        results = together(
            lambda: counting.count(digests("abc"), counting.Role.LEFT, terms(3, 3), here),
            lambda: loads.send_loads(
                digests("abc"), terms(3, 3), there, load_size=1, minimum=1, make=lambda places: bytes(len(places))
            ),
        )
    assert [type(result) for result in results] == [PartyFailed, PartyFailed]


@pytest.mark.parametrize("size", [0, -1, loads.MESSAGE + 1])
def test_a_load_has_a_size(size):
    with channels() as (here, _):
        recorder = Recorder(here)
        with pytest.raises(InvalidSpec):
            loads.send_loads(digests("abc"), terms(3, 3), recorder, load_size=size, minimum=1, make=lambda places: b"")
    assert recorder.sent == []


def test_a_load_as_large_as_a_message_travels_alone(monkeypatch):
    monkeypatch.setattr(loads, "MESSAGE", SIZE)
    got = Run([1, 2, 3], [2, 3, 4])
    assert got.results == [2, None] and [len(places) for places in got.asked] == [1, 1, 1]


@pytest.mark.parametrize("made", [b"", bytes(2 * SIZE), bytes(3 * SIZE + 1)])
def test_loads_of_another_size_are_never_sent(made):
    got = Run([1, 2, 3], [1, 2, 3], make=lambda places: made)
    assert [type(result) for result in got.results] == [PartyFailed, InvalidSpec]
    assert len(got.right_sent) == 4 and got.taken == []


def test_what_making_or_taking_raises_ends_the_run():
    def refuse(places: Positions) -> bytes:
        raise Cancelled("the caller stopped")

    assert [type(result) for result in Run([1, 2], [1, 2], make=refuse).results] == [PartyFailed, Cancelled]


@pytest.mark.parametrize("side", ["left_stop", "right_stop"])
def test_a_stop_ends_both(side):
    stop = threading.Event()
    stop.set()
    kinds = {type(result) for result in Run([1, 2], [1, 2], **{side: stop}).results}
    assert kinds == {Cancelled, PartyFailed}


def scripted_left(after: Callable[[int], bytes]) -> tuple[Any, list[bytes], int]:
    """Run the right side with three keys against a left that follows the matching and then says ``after``."""
    come: list[bytes] = []
    made = 0
    header = counting.header(terms(3, 3), f"{loads.ENGINE} of {SIZE} bytes, at least 2 common")

    def make(places: Positions) -> bytes:
        nonlocal made
        made += len(places)
        return bytes(SIZE * len(places))

    with channels() as (left, right):

        def peer() -> None:
            first = sm2curve.hash_to_curve([b"x", b"y", b"w"], b"made by the peer")
            try:
                for message in (header, first, b"", *map(after, range(3))):
                    left.send(message)
                    come.append(left.recv(5))
            except PartyFailed:
                pass  # right has ended, which is what is looked at

        def mine() -> Any:
            try:
                return loads.send_loads(
                    digests("abc"), terms(3, 3), right, load_size=SIZE, minimum=2, make=make, patience_s=5
                )
            finally:
                right.close()

        return together(mine, peer)[0], come, made


@pytest.mark.parametrize("verdict", [b"", b"went", b"go", b"stop ", bytes(4)])
def test_right_goes_on_only_when_told_so_in_the_agreed_words(verdict):
    result, come, made = scripted_left(lambda turn: verdict)
    assert isinstance(result, ProtocolFailed), result
    assert made == 0 and all(len(message) != 3 * SIZE for message in come)


def test_right_stops_when_told_to():
    result, _, made = scripted_left(lambda turn: b"stop")
    assert isinstance(result, OutputWithheld) and made == 0


def test_right_wants_empty_turns_and_the_agreed_end():
    assert isinstance(scripted_left(lambda turn: [b"go  ", b"x", b""][turn])[0], ProtocolFailed)
    assert isinstance(scripted_left(lambda turn: [b"go  ", b"", b"over"][turn])[0], ProtocolFailed)
    result, come, made = scripted_left(lambda turn: [b"go  ", b"", b"done"][turn])
    assert result is None and made == 3
    assert [len(message) for message in come] == [32, 99, 48, 0, 3 * SIZE, 0]


@pytest.mark.parametrize("sent", [b"", bytes(2 * SIZE), bytes(3 * SIZE - 1), bytes(4 * SIZE)])
def test_left_takes_nothing_from_a_batch_of_the_wrong_size(sent):
    # Right is honest in everything but the loads: what it sends in their place goes around the check at its own side.
    taken: list[bytes] = []
    with channels() as (here, there):

        class Bent(Recorder):
            def send(self, data: bytes) -> None:
                super().send(sent if data == b"L" * 3 * SIZE else data)

        def left() -> Any:
            try:
                return loads.collect_loads(
                    digests("abc"), terms(3, 3), here, load_size=SIZE, minimum=1, take=taken.append, patience_s=5
                )
            finally:
                here.close()

        results = together(
            left,
            lambda: loads.send_loads(
                digests("abc"), terms(3, 3), Bent(there), load_size=SIZE, minimum=1,
                make=lambda places: b"L" * SIZE * len(places), patience_s=5,
            ),
        )  # fmt: skip
    assert isinstance(results[0], ProtocolFailed) and taken == []


def test_a_private_directory_is_wanted_here_too(tmp_path: Path):
    tmp_path.chmod(0o755)
    assert [type(result) for result in Run([1, 2], [1, 2], scratch=tmp_path).results] == [InvalidSpec, InvalidSpec]
