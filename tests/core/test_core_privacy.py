"""The privacy budget: what is taken, what is kept, and that nothing is ever learnt for free."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, select
from sqlalchemy.exc import IntegrityError

from sandbox.errors import BudgetSpent, InvalidSpec, WrongState
from sandbox.policy import privacy
from sandbox.store import Store, privacy_uses

ONE, OTHER = b"1" * 32, b"2" * 32
BUDGET = 1000
WORDS = "^the scenario's privacy budget does not allow this$"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.at(tmp_path / "node.sqlite")
    made.create()
    yield made
    made.close()


@contextmanager
def in_memory() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    privacy_uses.create(engine)
    with engine.begin() as conn:
        yield conn
    engine.dispose()


def take(conn: Connection, job_id: str, epsilon: int, scenario: bytes = ONE, controller: str = "bank") -> None:
    privacy.reserve(conn, job_id, scenario, controller, epsilon, BUDGET)


def used(store: Store, scenario: bytes = ONE) -> int:
    with store.read() as conn:
        return privacy.used(conn, scenario)


def states(store: Store) -> dict[str, str]:
    with store.read() as conn:
        return {row.job_id: row.state for row in conn.execute(select(privacy_uses))}


@pytest.mark.parametrize(("used", "asked"), [(0, 1000), (999, 1), (400, 600)])
def test_the_budget_may_be_used_to_the_last_thousandth(used: int, asked: int) -> None:
    privacy.check(asked, used, BUDGET)


@pytest.mark.parametrize(
    ("used", "asked", "budget"), [(0, 1001, 1000), (1000, 1, 1000), (400, 601, 1000), (0, 1, 0), (2000, 1, 1000)]
)
def test_more_is_refused_in_one_wording(used: int, asked: int, budget: int) -> None:
    """Whether the budget is gone, too small, or there is none: the same words."""
    with pytest.raises(BudgetSpent, match=WORDS) as refusal:
        privacy.check(asked, used, budget)
    assert refusal.value.tell == str(refusal.value) == privacy.SPENT
    assert not any(character.isdigit() for character in refusal.value.hint)


@pytest.mark.parametrize("asked", [0, -1, -1000])
def test_nothing_less_than_a_thousandth_is_ever_asked(store: Store, asked: int) -> None:
    with pytest.raises(InvalidSpec, match="at least 1"), store.write() as conn:
        take(conn, "a" * 32, asked)
    assert states(store) == {}


def test_losses_add_up_until_the_budget_is_gone(store: Store) -> None:
    for number, epsilon in enumerate((300, 300, 399, 1)):
        with store.write() as conn:
            take(conn, f"{number:032x}", epsilon)
            privacy.spend(conn, f"{number:032x}")
    assert used(store) == BUDGET
    with pytest.raises(BudgetSpent, match=WORDS), store.write() as conn:
        take(conn, "f" * 32, 1)
    assert "f" * 32 not in states(store)


def test_what_is_reserved_counts_before_it_is_spent(store: Store) -> None:
    with store.write() as conn:
        take(conn, "a" * 32, 600)
    with pytest.raises(BudgetSpent, match=WORDS), store.write() as conn:
        take(conn, "b" * 32, 600)
    with store.write() as conn:
        assert privacy.give_back(conn, "a" * 32)
        take(conn, "b" * 32, 600)
    assert states(store) == {"a" * 32: "returned", "b" * 32: "reserved"} and used(store) == 600


def test_a_job_that_fails_after_its_first_byte_has_spent_its_part(store: Store) -> None:
    with store.write() as conn:
        take(conn, "a" * 32, 700)
    with store.write() as conn:
        privacy.spend(conn, "a" * 32)
    with store.write() as conn:
        assert not privacy.give_back(conn, "a" * 32)  # as every job does that ends early
    assert states(store) == {"a" * 32: "spent"} and used(store) == 700
    with pytest.raises(BudgetSpent, match=WORDS), store.write() as conn:
        take(conn, "b" * 32, 301)


def test_a_job_that_ends_before_is_free_once(store: Store) -> None:
    with store.write() as conn:
        take(conn, "a" * 32, 700)
    with store.write() as conn:
        assert privacy.give_back(conn, "a" * 32) and not privacy.give_back(conn, "a" * 32)
    assert used(store) == 0
    with store.read() as conn:
        assert privacy.used_by(conn, "bank") == 0


@pytest.mark.parametrize("before", ["nothing", "returned", "spent"])
def test_nothing_is_computed_without_an_open_reservation(store: Store, before: str) -> None:
    """Not after it was given back, and not a second time: noise that is drawn again is another answer."""
    with store.write() as conn:
        if before != "nothing":
            take(conn, "a" * 32, 100)
        if before == "returned":
            privacy.give_back(conn, "a" * 32)
        if before == "spent":
            privacy.spend(conn, "a" * 32)
    with pytest.raises(WrongState, match="no privacy budget is reserved"), store.write() as conn:
        privacy.spend(conn, "a" * 32)


def test_a_job_takes_its_part_once(store: Store) -> None:
    with store.write() as conn:
        take(conn, "a" * 32, 100)
    with pytest.raises(IntegrityError), store.write() as conn:
        take(conn, "a" * 32, 100)
    assert used(store) == 100


def test_a_transaction_that_fails_takes_nothing(store: Store) -> None:
    with pytest.raises(ValueError, match="later"), store.write() as conn:
        take(conn, "a" * 32, 100)
        raise ValueError("later")
    assert states(store) == {}


def test_a_scenario_has_a_budget_of_its_own_and_its_controller_is_known(store: Store) -> None:
    with store.write() as conn:
        take(conn, "a" * 32, 900)
        take(conn, "b" * 32, 800, OTHER)
        take(conn, "c" * 32, 100, OTHER, "insurer")
        privacy.spend(conn, "b" * 32)
    assert (used(store), used(store, OTHER), used(store, b"3" * 32)) == (900, 900, 0)
    with store.read() as conn:
        assert [privacy.used_by(conn, who) for who in ("bank", "insurer", "nobody")] == [1700, 100, 0]


STEPS = st.lists(st.tuples(st.sampled_from(["take", "spend", "back"]), st.integers(0, 5), st.integers(1, 700)))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_no_order_of_events_gets_an_answer_for_free(steps: list[tuple[str, int, int]]) -> None:
    """Against a plain account: answers are paid for, never beyond the budget, and never taken back."""
    reserved: dict[str, int] = {}
    answered: dict[str, int] = {}
    known: set[str] = set()
    with in_memory() as conn:
        for what, number, epsilon in steps:
            job_id = f"{number:032x}"
            taken = sum(reserved.values()) + sum(answered.values())
            if what == "take" and job_id not in known:
                if taken + epsilon > BUDGET:
                    with pytest.raises(BudgetSpent, match=WORDS):
                        take(conn, job_id, epsilon)
                else:
                    take(conn, job_id, epsilon)
                    reserved[job_id] = epsilon
                    known.add(job_id)
            elif what == "spend":
                if job_id in reserved:
                    privacy.spend(conn, job_id)
                    answered[job_id] = reserved.pop(job_id)
                else:
                    with pytest.raises(WrongState):
                        privacy.spend(conn, job_id)
            elif what == "back":
                assert privacy.give_back(conn, job_id) == (reserved.pop(job_id, None) is not None)
            assert privacy.used(conn, ONE) == sum(reserved.values()) + sum(answered.values()) <= BUDGET
