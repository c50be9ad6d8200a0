"""Our gate beside acro, which checks tables and models in the clear: what ours lets pass, acro does, too.

Three sides: acro itself, in an environment of its own (``acro_peer``); its rules written anew (``acro_rules``); and our
gate, from the numbers that owners add up. What they differ in on purpose is listed in docs/gate-and-acro.md; any other
difference fails here.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import acro_rules as rules
import numpy as np
import pyarrow as pa
import pytest
from acro_rules import Cell
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import OutputWithheld
from sandbox.gate.judge import judge
from sandbox.gate.models import judge_model
from sandbox.kinds import cells, dominance
from sandbox.kinds.counted import Counted
from sandbox.kinds.dominance import Weights
from sandbox.model import AggregateSpec, Dimension, JobKind, Measure, MeasureRange, OutputClass, OutputRule, Statistic

sys.path.append(str(Path(__file__).parents[1] / "kinds"))
from kind_parties import NAMES, Room, ref, room, scenario

HERE: Final = Path(__file__).parent
PAGE: Final = HERE.parents[1] / "docs" / "gate-and-acro.md"
SECONDS: Final = 600
MOST: Final = 1 << 30
OURS: Final = {"sum": Statistic.SUM, "mean": Statistic.MEAN, "count": Statistic.COUNT, "std": Statistic.VARIANCE}
BOUNDS: Final[dict[str, Any]] = {"min_group": 10, "top_two": 900, "remainder": 100}  # as acro's
ALONE: Final[dict[str, dict[str, int]]] = {  # each of its checks by itself
    "MinimumThresholdCheck": {"top_two": 1000, "remainder": 0},
    "NKCheck": {"remainder": 0},
    "PPercentCheck": {"top_two": 1000},
}
MODEL: Final = OutputRule(JobKind.TRAIN, "scorecard", OutputClass.MODEL, 10, 10, 1000, 1 << 20)
Owners = Sequence[int]


@dataclass(frozen=True)
class Table:
    """A table, and which owner has each row of its cells."""

    levels: tuple[int, int]
    cells: tuple[Cell, ...]
    owners: tuple[Owners, ...]
    of: str = "sum"
    margins: bool = False
    missing: bool = False

    @property
    def asked(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("levels", "cells", "of", "margins", "missing")}

    @property
    def placed(self) -> dict[rules.Place, Cell]:
        return rules.placed(self.cells, self.levels, self.margins)

    @property
    def has_negative(self) -> bool:
        return any(value < 0 for cell in self.cells for value in rules.descending(cell))


# --- what is asked ----------------------------------------------------------------------------------------------------


def edges() -> list[Cell]:
    """Cells on both sides of every bound."""
    small = [1] * 10
    found: list[Cell] = [(), [None] * 12, [5] * 9, [5] * 10, [5] * 11, [0] * 12, [0] * 11 + [1], [0] * 10 + [1, 1]]
    found += [[60, 30, *small], [60, 29, *small], [59, 30, 2, *small[1:]], [899, 1, *[10] * 10], [900, 1, *[10] * 10]]
    found += [[100, 100, *small], [100, 100, 0, *small[1:]], [101, 7, *small], [100, 7, 2, *small[1:]]]
    found += [[1000, 11, *[9] * 11], [1000, 10, *[10] * 10], [1000, 1000, *[9] * 11], [1000, 1000, *[10] * 10]]
    found += [[MOST, *[MOST // 100] * 12], [MOST, MOST, *[MOST // 200] * 12], [MOST, *[1] * 30], [1, *[0] * 20]]
    found += [[7] * 9 + [None], [7] * 10 + [None], [7] * 10 + [None] * 9, [7] * 10 + [None] * 10, [7] + [None] * 30]
    return found


def amounts(random: np.random.Generator, rows: int) -> Cell:
    """Amounts of one cell, of which one or two may stand out."""
    law = random.choice(["flat", "heavy", "one", "two", "mostly none", "none"], p=[0.35, 0.2, 0.15, 0.15, 0.1, 0.05])
    flat = random.integers(1, 100, rows)
    if law == "heavy":
        flat = np.minimum(10 * (1 + random.pareto(0.7, rows)), MOST).astype(np.int64)
    elif law == "one" and rows > 2:  # about ten times what all but two have
        flat[0] = 10 * (np.sort(flat[1:])[:-1].sum() + random.integers(-2, 3))
    elif law == "two" and rows > 2:  # about nine times what all others have
        flat[:2] = 45 * flat[2:].sum() // 10 + random.integers(-2, 3, 2)
    elif law == "mostly none":
        flat[random.random(rows) < 0.8] = 0
    elif law == "none":
        flat[:] = 0
    gone = random.random(rows) < (0.3 if random.random() < 0.15 else 0)
    return [None if is_gone else value for value, is_gone in zip(flat.tolist(), gone, strict=True)]


def shared(random: np.random.Generator, cell: Cell, parties: int) -> Owners:
    """Owners of the rows: often one has all."""
    found: Owners = random.integers(0, 1 if random.random() < 0.4 else parties, len(cell)).tolist()
    return found


def drawn(random: np.random.Generator, of: str) -> Table:
    levels = (1, 1) if of == "std" else (int(random.integers(2, 4)), int(random.integers(1, 4)))
    sizes = [random.choice([random.integers(10, 35), random.integers(8, 14)]) for _ in range(levels[0] * levels[1])]
    made = [amounts(random, 0 if of != "std" and random.random() < 0.06 else size) for size in sizes]
    owners = tuple(shared(random, cell, int(random.integers(2, 5))) for cell in made)
    return Table(levels, tuple(made), owners, of, missing=bool(random.random() < 0.3))


def signed(random: np.random.Generator, table: Table) -> Table:
    """The same, some values of it below 0."""
    made = [[-v if v is not None and random.random() < 0.3 else v for v in cell] for cell in table.cells]
    return replace(table, cells=tuple(made))


def whole(random: np.random.Generator, spoilt: str) -> Table:
    """A table with totals, harmless but for one cell."""
    levels = (int(random.integers(2, 4)), int(random.integers(2, 4)))
    made = [random.integers(50, 100, random.integers(20, 40)).tolist() for _ in range(levels[0] * levels[1])]
    if spoilt:
        made[0] = made[0][:4] if spoilt == "small" else [100_000, *made[0]]
    return Table(levels, tuple(made), tuple(random.integers(0, 3, len(cell)).tolist() for cell in made), margins=True)


def models() -> list[list[list[int]]]:
    """The columns of models, a constant first; some of them are nothing but others."""
    random, found = np.random.default_rng(21), []
    for _ in range(60):
        rows = int(random.integers(10, 20))
        own = [[1] * rows, *random.integers(0, 9, (random.integers(1, 6), rows)).tolist()]
        again = [[2 * a + b for a, b in zip(own[1], own[-1], strict=True)]] if random.random() < 0.4 else []
        found.append([*own, *again])
    return found


RANDOM: Final = np.random.default_rng(20)
DRAWN: Final = [drawn(RANDOM, of) for of in ["sum"] * 110 + ["mean"] * 20 + ["count"] * 40 + ["std"] * 40]
SIGNED: Final = [signed(RANDOM, table) for table in DRAWN[:12]]
ON_EDGE: Final = [
    Table((len(edges()), 1), tuple(edges()), tuple([0] * len(cell) for cell in edges()), of) for of in ("sum", "count")
] + [Table((1, 1), (list(range(rows)),), ([0] * rows,), "std") for rows in (9, 10, 11, 12)]
SPOILT: Final = ("", "", "small", "small", "small", "large", "large")
WHOLE: Final = [whole(RANDOM, spoilt) for spoilt in SPOILT]
TABLES: Final = [*DRAWN, *SIGNED, *ON_EDGE, *WHOLE]
MODELS: Final = models()


# --- acro -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def python(request: pytest.FixtureRequest) -> Path:
    """The Python of an environment with acro, made once for each list of pins."""
    needs, cache = HERE / "acro.txt", request.config.cache
    assert cache is not None, "without a cache there is no place for an environment with acro"
    place = cache.mkdir("acro") / hashlib.sha256(needs.read_bytes()).hexdigest()[:16]
    if not place.exists():
        draft = Path(tempfile.mkdtemp(dir=place.parent))
        pip = [str(draft / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        try:
            for line in ([sys.executable, "-m", "venv", str(draft)], [*pip, "-r", str(needs)]):
                done = subprocess.run(line, capture_output=True, text=True, timeout=SECONDS)
                if done.returncode:
                    pytest.fail(f"an environment with acro cannot be made: {(done.stderr or done.stdout)[-1000:]}")
            draft.rename(place)  # what is there under this name is whole
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return place / "bin" / "python"


@pytest.fixture(scope="session")
def acro(python: Path) -> dict[str, Any]:
    """What acro says of all tables and models."""
    outcomes = [[row % 3 for row in range(len(columns[0]))] for columns in MODELS]
    asked = [{"columns": columns, "outcomes": own} for columns, own in zip(MODELS, outcomes, strict=True)]
    question = json.dumps({"tables": [table.asked for table in TABLES], "models": asked})
    line = [str(python), "-I", str(HERE / "acro_peer.py")]
    done = subprocess.run(line, input=question, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert len(found["tables"]) == len(TABLES) and len(found["models"]) == len(MODELS)
    return found


def failed(said: dict[str, Any]) -> dict[rules.Place, set[str]]:
    """Which checks fail at each place of a table, but for the one that acro has to be told to make."""
    found: dict[rules.Place, set[str]] = defaultdict(set)
    for check, places in said["cells"].items():
        for row, column in places if check not in ("MissingCheck", "MinimumDoFCheck") else ():
            found[row, column].add(check)
    return found


def with_acro(test: Callable[..., None]) -> Callable[..., None]:
    """Mark what needs the environment: it may have to be made first."""
    marked: Callable[..., None] = pytest.mark.long(pytest.mark.timeout(3 * SECONDS)(test))
    return marked


# --- our gate ---------------------------------------------------------------------------------------------------------


def asked(table: Table, **rule: Any) -> Room:
    """A job for a table, at all its owners."""
    count = max(2, 1 + max(max(one, default=0) for one in table.owners))
    dimensions = [
        Dimension(name, name, tuple(f"{name} {n}" for n in range(levels)))
        for name, levels in zip(("row", "column"), table.levels, strict=True)
    ]
    held = scenario([("row", "column", "value")] * count, dimensions, (MeasureRange("value", -MOST, MOST),))
    held = replace(held, outputs=tuple(replace(one, **BOUNDS | rule) for one in held.outputs))
    rows: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    for at, (cell, owners) in enumerate(zip(table.cells, table.owners, strict=True)):
        row, column = divmod(at, table.levels[1])
        for value, owner in zip(cell, owners, strict=True):
            own = {"id": f"{at}-{len(rows[owner])}", "row": f"row {row}", "column": f"column {column}", "value": value}
            rows[owner].append(own)
    fields = [("id", pa.string()), ("row", pa.string()), ("column", pa.string()), ("value", pa.int64())]
    tables = [pa.Table.from_pylist(own, schema=pa.schema(fields)) for own in rows]
    measures = (Measure("total", OURS[table.of], "value"),)
    spec = AggregateSpec(tuple(map(ref, NAMES[:count])), "", ("row", "column"), measures, 2048, table.margins)
    return room(spec, held, tables, key_bits=2048)


PLAN: Final = asked(WHOLE[0]).plan


def lets_pass(cell: Cell, owners: Owners, of: str, **rule: Any) -> bool:
    """Whether every owner's gate lets a cell pass: as ``contributors``, but for masks, which cancel."""
    measure = Measure("total", OURS[of], "value")
    held = scenario([("value",)], (), (MeasureRange("value", -MOST, MOST),))
    shape = cells.shape((), (measure,), held)
    numbers, weights = [], []
    for owner in range(max(2, 1 + max(owners, default=0))):
        own = [value for value, at in zip(cell, owners, strict=True) if at == owner]
        values, present = cells.prepare(pa.table({"value": pa.array(own, pa.int64())}), shape.wanted)
        numbers.append((len(own), int(present[0].sum())))
        weights.append(Weights.of_rows(np.zeros(len(own), np.int32), dominance.amounts(shape, values), 1))
    rows, measured = np.array(numbers).T
    joint = Counted(rows.sum(keepdims=True), measured.sum(keepdims=True)[None], np.zeros(0, np.int64))
    covers: list[Any] = [0] * len(weights)
    if shape.bounds:
        marks = [dominance.ladder(shape, one) for one in weights]
        steps = dominance.highest(shape, np.sum(marks, axis=0, dtype=np.uint64))
        parts = [dominance.sixteenths(one, steps, len(weights)) for one in weights]
        told: Any = np.sum(parts, axis=0, dtype=np.uint64)
        covers = [dominance.cover(part, told, steps, len(weights)) for part in parts]
    plan = replace(PLAN, outputs=(replace(PLAN.outputs[0], **BOUNDS | rule),))
    try:
        for own_rows, one, cover in zip(rows, weights, covers, strict=True):
            alone = np.array([own_rows == rows.sum()])
            judge(plan, joint.gate_inputs(shape) | dominance.figures(dominance.names(shape), one, cover, alone))
    except OutputWithheld:
        return False
    return True


def is_at_the_share(cell: Cell) -> bool:
    """Whether the two largest make up 90 % exactly: at most that is allowed here, and less than that by acro."""
    values = rules.descending(cell)
    return sum(values) > 0 and 10 * sum(values[:2]) == 9 * sum(values)


# --- the same verdicts ------------------------------------------------------------------------------------------------


@with_acro
def test_acro_is_the_one_pinned_and_its_bounds_are_those_compared(acro: dict[str, Any]) -> None:
    assert f"acro=={acro['version']}" in (HERE / "acro.txt").read_text().splitlines()
    assert (acro["bounds"]["safe_threshold"], acro["bounds"]["safe_dof_threshold"]) == (10, 10)
    assert (10, 10, acro["bounds"]["safe_nk_n"]) == (rules.LEAST_ROWS, rules.LEAST_FREEDOM, rules.LARGEST)
    assert rules.SHARE_PERCENT == 100 * acro["bounds"]["safe_nk_k"] == BOUNDS["top_two"] / 10
    assert rules.REST_PERCENT == 100 * acro["bounds"]["safe_pratio_p"] == BOUNDS["remainder"] / 10


@with_acro
@pytest.mark.parametrize("check", rules.CHECKS)
def test_rules_written_anew_say_of_every_cell_what_acro_says(acro: dict[str, Any], check: str) -> None:
    seen: Counter[bool] = Counter()
    for table, said in zip(TABLES, acro["tables"], strict=True):
        if check not in said["checks"]:
            continue
        ours = rules.flagged(check, table.placed)
        assert (said["checks"][check] == "pass") == (not ours), table
        if check != "MinimumDoFCheck":  # of which it gives no places
            assert {(row, column) for row, column in said["cells"][check]} == ours, table
        seen.update(place in ours for place in table.placed)
    assert min(seen[True], seen[False]) >= 6, seen


@with_acro
def test_rules_written_anew_say_of_every_model_what_acro_says(acro: dict[str, Any]) -> None:
    ours = ["fail" if rules.is_saturated(columns) else "pass" for columns in MODELS]
    assert ours == acro["models"] and min(map(ours.count, ("pass", "fail"))) >= 10


# --- ours is stricter, never laxer ------------------------------------------------------------------------------------


@with_acro
@pytest.mark.parametrize("check", ALONE)
def test_check_by_check_nothing_passes_here_that_fails_there(acro: dict[str, Any], check: str) -> None:
    """With the others switched off: whatever fails by p % fails by (n, k) as well, at these bounds."""
    seen: Counter[bool] = Counter()
    for table, said in zip(TABLES, acro["tables"], strict=True):
        if table.of not in ("sum", "mean") or table.has_negative:
            continue
        fails = failed(said)
        for at, (cell, owners) in enumerate(zip(table.cells, table.owners, strict=True)):
            if is_listed(cell):
                continue
            fits = not fails[divmod(at, table.levels[1])] & {check, "MinimumThresholdCheck"}
            passes = lets_pass(cell, owners, table.of, **ALONE[check])
            assert fits or not passes, (cell, owners)
            if len(set(owners)) < 2 and None not in cell:
                assert passes == fits, (cell, owners)  # who has everybody judges as acro does
                seen[passes] += 1
    assert min(seen[True], seen[False]) >= 30, seen


@with_acro
def test_what_our_gate_lets_pass_acro_does_but_for_what_is_listed(acro: dict[str, Any]) -> None:
    found: Counter[str] = Counter()
    for table, said in zip(TABLES, acro["tables"], strict=True):
        if table.of == "std" or table.has_negative:
            continue
        fails = failed(said)
        for at, (cell, owners) in enumerate(zip(table.cells, table.owners, strict=True)):
            passes, own = lets_pass(cell, owners, table.of), fails[divmod(at, table.levels[1])]
            if passes and own == {"NKCheck"} and is_at_the_share(cell):
                found["laxer: 90 % exactly"] += 1
                assert not lets_pass(cell, owners, table.of, top_two=899)
            elif passes and own == {"PPercentCheck"} and rules.is_zero(cell):
                found["laxer: nothing but zeros"] += 1
            elif passes:
                assert not own, (cell, owners)
                found["both let pass"] += 1
            elif own:
                found["neither"] += 1
            else:
                is_missing = is_short(cell)
                found["stricter: missing values" if is_missing else "stricter: several owners"] += 1
                assert is_missing or len(set(owners)) > 1, (cell, owners)
    print(dict(found))
    assert len(found) == 6 and found["both let pass"] > 300
    # Many of the cells were made to lie at a bound; of others far fewer are withheld.
    assert found["stricter: several owners"] < 0.2 * found["both let pass"]
    assert found["stricter: missing values"] < 0.2 * found["both let pass"]
    laxer = sum(count for name, count in found.items() if name.startswith("laxer"))
    stricter = f"{found['stricter: missing values']} | {found['stricter: several owners']}"
    line = f"| cells | {found['both let pass']} | {found['neither']} | {stricter} | {laxer} |"
    assert line in PAGE.read_text(encoding="utf-8").splitlines()


@with_acro
def test_values_below_zero_are_judged_by_size_where_acro_asks_people(acro: dict[str, Any]) -> None:
    first = len(DRAWN)
    assert all(one["checks"]["NKCheck"] == "review" for one in acro["tables"][first : first + len(SIGNED)])
    passed = 0
    for table, said in zip(SIGNED, acro["tables"], strict=False):  # of the same amounts without signs
        fails = failed(said)
        for at, (cell, owners) in enumerate(zip(table.cells, table.owners, strict=True)):
            if lets_pass(cell, owners, table.of):
                passed += 1
                assert not fails[divmod(at, table.levels[1])] or is_listed([v and abs(v) for v in cell])
    assert passed >= 10


@with_acro
def test_missing_values_are_counted_where_acro_asks_people(acro: dict[str, Any]) -> None:
    """It does so if it is told to: of any at all. Ours withholds one to nine, and lets pass ten with ten values."""
    let_pass = 0
    for table, said in zip(TABLES, acro["tables"], strict=True):
        for row, column in said["cells"].get("MissingCheck", []):
            at = row * table.levels[1] + column
            if lets_pass(table.cells[at], table.owners[at], table.of):
                let_pass += 1
                assert not is_short(table.cells[at])
    assert not lets_pass([7] * 10 + [None] * 9, [0] * 19, "sum") and lets_pass([7] * 10 + [None] * 10, [0] * 20, "sum")
    assert let_pass


@with_acro
def test_of_ten_rows_a_variance_passes_here_and_of_eleven_there(acro: dict[str, Any]) -> None:
    laxer: Counter[int] = Counter()
    for table, said in zip(TABLES, acro["tables"], strict=True):
        if table.of == "std" and said["checks"]["MinimumDoFCheck"] == "fail":
            (cell,), (owners,) = table.cells, table.owners
            laxer[len(cell)] += lets_pass(cell, owners, "std")
            assert not lets_pass(cell, owners, "std", min_group=11)
    assert {rows for rows, passed in laxer.items() if passed} == {10} < set(laxer)


@with_acro
@pytest.mark.parametrize("number", range(len(WHOLE)))
def test_whole_tables_with_totals_and_blanks(acro: dict[str, Any], number: int) -> None:
    """As owners compute them, masks and all: what leaves has no cell or total that acro would stop."""
    table, spoilt = WHOLE[number], SPOILT[number]
    fails = {place for place, own in failed(acro["tables"][number - len(WHOLE)]).items() if own}
    every = [lets_pass(cell, owners, "sum") for cell, owners in zip(table.cells, table.owners, strict=True)]
    assert (0, 0) in fails if spoilt else not fails
    assert every == [place not in fails for place in np.ndindex(table.levels)]
    assert released(table) == (None if spoilt else set())
    blank = released(table, suppress=True)
    if spoilt == "small":
        assert blank is not None and fails < blank  # and those around it, which acro leaves there
    else:
        assert blank == (None if spoilt else set())


def released(table: Table, **rule: Any) -> set[rules.Place] | None:
    """Which lines of a table are blank as it leaves; None if it does not."""
    try:
        found = asked(table, **rule).run()["totals"]
    except OutputWithheld:
        return None
    totals = found.column("total").to_pylist()
    assert len(totals) == (table.levels[0] + 1) * (table.levels[1] + 1)
    return {divmod(line, table.levels[1] + 1) for line, total in enumerate(totals) if total is None}


@with_acro
def test_models_that_our_gate_lets_pass_acro_does(acro: dict[str, Any]) -> None:
    stricter = 0
    for columns, said in zip(MODELS, acro["models"], strict=True):
        rows = len(columns[0])
        try:
            judge_model(MODEL, {"freedom": rows - len(columns), "coefficient.1": rows})
        except OutputWithheld:
            stricter += said == "pass"
            assert said == "fail" or np.linalg.matrix_rank(np.array(columns)) < len(columns)
        else:
            assert said == "pass"
    assert 0 < stricter < len(MODELS) / 5  # columns that are sums of others count here


# --- without acro, by its rules: in every run of the tests ------------------------------------------------------------

AMOUNT = st.none() | st.sampled_from([0, 1]) | st.integers(0, 100) | st.integers(0, MOST)
ROWS = st.lists(st.tuples(AMOUNT, st.integers(0, 3)), max_size=16)
TALL = st.tuples(ROWS, st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=8, max_size=20))
JUDGED = ("MinimumThresholdCheck", "PresenceOfZeroCheck", "NKCheck", "PPercentCheck")


@given(TALL | ROWS.map(lambda rows: (rows, [])), st.booleans())
@settings(max_examples=300, deadline=None)
def test_nothing_passes_that_the_rules_would_stop(
    drawn: tuple[list[tuple[int | None, int]], list[tuple[int, int]]], is_alone: bool
) -> None:
    rows = [*drawn[0], *drawn[1]]
    cell, owners = [value for value, _ in rows], [0 if is_alone else owner for _, owner in rows]
    stopped = any(rules.CHECKS[check](cell) for check in JUDGED)
    passes = lets_pass(cell, owners, "sum")
    assert not (passes and stopped) or is_listed(cell)
    if is_alone and None not in cell and not is_listed(cell):
        assert passes == (not stopped)  # who has everybody judges as acro does


def test_even_groups_of_fourteen_are_never_withheld_because_several_owners_have_them() -> None:
    random = np.random.default_rng(22)
    for _ in range(100):
        cell = random.integers(1, 100, random.integers(14, 35)).tolist()
        assert lets_pass(cell, random.integers(0, random.integers(2, 5), len(cell)).tolist(), "sum")


def test_what_is_listed_as_laxer_is_so() -> None:
    share, zeros, ten = [60, 30, *[1] * 10], [0] * 12, [5] * 10
    assert rules.is_dominated(share) and lets_pass(share, [0] * 12, "sum")
    assert not lets_pass([61, *share[1:]], [0] * 12, "sum")
    assert rules.is_exposed(zeros) and lets_pass(zeros, [0] * 12, "sum")
    assert rules.has_little_freedom(ten) and lets_pass(ten, [0] * 10, "std")
    assert not lets_pass(ten[1:], [0] * 9, "std")


def is_listed(cell: Cell) -> bool:
    """Whether docs/gate-and-acro.md says that this cell passes here and not there."""
    return is_at_the_share(cell) or rules.is_zero(cell)


def is_short(cell: Cell, least: int = 10) -> bool:
    """Whether too few have a value, or too few have none."""
    there = len(rules.descending(cell))
    return there < least or 0 < len(cell) - there < least
