"""Whole tables, cut into buckets, against what a database says the join of their keys is."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from engine_pairs import SALT, channels, digests, joined, needs_spu, terms, together
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from sandbox.psi import ecdh, ecdh_sm2, rr22
from sandbox.psi.contract import Bucket, Role
from sandbox.psi.shards import Shards, assemble

Intersect = Callable[[Any, Role, Any, Bucket], Any]

TEXT = (
    st.text(max_size=24) | st.integers(0, 10**18).map(str) | st.sampled_from(["", " ", "0", "00", "é", "e\u0301", "𠮷"])
)


@st.composite
def tables(draw: st.DrawFn, most: int) -> tuple[list[str], list[str]]:
    """Two columns of distinct keys, from apart to equal, of very different or of equal length."""
    shape = draw(st.sampled_from(["apart", "one", "some", "subset", "equal"]))
    mine, theirs = (draw(st.lists(TEXT, unique=True, max_size=most)) for _ in range(2))
    theirs = [text for text in theirs if text not in set(mine)]
    if shape == "one":
        theirs += mine[:1]
    elif shape == "some":
        theirs += draw(st.lists(st.sampled_from(mine), unique=True)) if mine else []
    elif shape == "subset":
        theirs = draw(st.lists(st.sampled_from(mine), unique=True)) if mine else []
    elif shape == "equal":
        theirs = draw(st.permutations(mine))
    event(shape)
    return (mine, theirs) if draw(st.booleans()) else (theirs, mine)


def join(left: Sequence[str], right: Sequence[str]) -> set[tuple[int, int]]:
    """Return the pairs of rows with equal keys, as a database finds them."""
    sides = {"l": left, "r": right}
    with duckdb.connect(":memory:", config={"threads": 1}) as database:
        for name, side in sides.items():
            rows = {"key": pa.array(side, pa.string()), "place": pa.array(range(len(side)), pa.int64())}
            database.register(name, pa.table(rows))
        found = database.execute("SELECT l.place, r.place FROM l JOIN r ON l.key = r.key").fetchall()
    return set(found)


def check(run: Callable[..., list[Any]], both: tuple[list[str], list[str]], cut: int, learner: Role | None) -> None:
    """Intersect two tables in ``cut`` buckets, and compare with the database."""
    agreed = terms(len(both[0]), len(both[1]))

    def side(role: Role, intersect: Intersect) -> Any:
        texts = both[role.value]
        with tempfile.TemporaryDirectory() as folder:
            shards = Shards(Path(folder), SALT, cut)
            half = len(texts) // 2
            shards.add(pa.array(texts[:half], pa.string()), 0)
            shards.add(pa.array(texts[half:], pa.string()), half)
            shards.close()
            assert shards.rows == len(texts)
            parts = []
            for number in range(cut):
                part, rows = shards.load(number)
                parts.append(rows[intersect(part, role, agreed, Bucket(number, cut))])
            return assemble(parts)

    left, right = run(side)
    pairs = join(*both)
    for role, got in ((Role.LEFT, left), (Role.RIGHT, right)):
        assert isinstance(got, np.ndarray) and got.dtype == np.int64, got
        if learner not in (None, role):
            assert len(got) == 0
            continue
        assert len(got) == len(pairs) and set(got.tolist()) == {pair[role.value] for pair in pairs}
        names = [tuple(row) for row in digests(both[role.value])[got].tolist()]
        assert names == sorted(names)
    if learner is None:
        assert set(zip(left.tolist(), right.tolist(), strict=True)) == pairs


LEARNERS = st.sampled_from([None, None, Role.LEFT, Role.RIGHT])
CUTS = st.integers(1, 5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [ecdh, ecdh_sm2], ids=["x25519", "sm2"])
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(both=tables(60), cut=CUTS, learner=LEARNERS)
def test_over_a_channel(engine, both, cut, learner):
    def run(side: Any) -> list[Any]:
        with channels() as pair:

            def intersect(part: Any, role: Role, agreed: Any, bucket: Bucket) -> Any:
                return engine.intersect(part, role, agreed, bucket, pair[role.value], learner=learner, patience_s=30)

            return together(lambda: side(Role.LEFT, intersect), lambda: side(Role.RIGHT, intersect))

    check(run, both, cut, learner)


@needs_spu
@pytest.mark.slow
@settings(max_examples=24, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(both=tables(200), cut=st.sampled_from([1, 1, 2, 3]), learner=LEARNERS)
def test_in_child_processes(both, cut, learner):
    names = ("left", "right")

    def run(side: Any) -> list[Any]:
        with tempfile.TemporaryDirectory(prefix="e-", dir="/tmp") as place, joined(Path(place), names) as spaces:

            def intersect(part: Any, role: Role, agreed: Any, bucket: Bucket) -> Any:
                space, peer = spaces[names[role.value]], names[role.other.value]
                return rr22.intersect(part, role, agreed, bucket, space, peer=peer, deadline_s=60, learner=learner)

            return together(lambda: side(Role.LEFT, intersect), lambda: side(Role.RIGHT, intersect))

    check(run, both, cut, learner)
