"""The same score in the clear: what joint training is worth, and what the protocol must reproduce.

    python -m jobs.credit_score.plaintext            a table of 30 hold-outs

Source:    ``sandbox.mpc.reference``, step for step what runs under MPC; beside it ridge logistic regression by Newton's
           method, which has no steps to choose.
Security:  pools both parties' rows. For the demo's made-up people only; no node ever does this.
Shapes:    one hold-out is a fifth of the customers that both parties have, drawn without looking at defaults. An AUC is
           of those rows. A partial score is rounded to points at each side, and the points are added.
Units:     ``RIDGE`` is the penalty of half the squared weights beside the sum of the losses of all training rows.
           Points: 20 double the odds.
Not here:  the secret-shared training itself (``sandbox.mpc.logistic``).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.credit_score.columns import BANK_FEATURES, DEFAULT, ID, OPERATOR_FEATURES
from jobs.credit_score.split import Parties, make_parties
from sandbox.kinds.features import fit
from sandbox.kinds.holdout import draw
from sandbox.mpc import reference
from sandbox.mpc.reference import Schedule, auc

RIDGE: Final = 1.0
POINTS_TO_DOUBLE: Final = 20
STEP: Final = 5  # points
PARTIES_SEED: Final = 1
SEEDS: Final = tuple(f"credit-score/{number}".encode() for number in range(30))
# The hold-out of the demo: of the 30, the one with the median gain (the lower of the two in the middle).
DEMO_SEED: Final = SEEDS[12]

Matrix: TypeAlias = npt.NDArray[np.float32]
Floats: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Aligned:
    """The customers that both parties have, row by row the same people."""

    bank: pa.Table = field(repr=False)
    operator: pa.Table = field(repr=False)
    labels: Mask = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one hold-out showed, as AUC: the bank alone, both, both rounded to points, and both without a last step."""

    bank: float
    joint: float
    rounded: float
    exact: float

    @property
    def gain(self) -> float:
        """What the operator's columns add."""
        return self.joint - self.bank


def align(parties: Parties) -> Aligned:
    """Return the common customers in the order of the bank's rows: what the intersection does without showing ids."""
    place = pc.index_in(parties.bank[ID], value_set=parties.operator[ID].combine_chunks()).combine_chunks()
    bank = parties.bank.filter(place.is_valid())
    return Aligned(bank, parties.operator.take(place.drop_null()), bank[DEFAULT].to_numpy().astype(np.bool_))


def encode(aligned: Aligned, train: Mask, columns: Sequence[str] = BANK_FEATURES) -> tuple[Matrix, Matrix]:
    """Return the features of the bank (of ``columns``) and of the operator, each made from its own columns only."""
    bank = fit(aligned.bank, columns, train, aligned.labels).transform(aligned.bank)
    return bank, fit(aligned.operator, OPERATOR_FEATURES, train, None).transform(aligned.operator)


def encode_pooled(aligned: Aligned, train: Mask) -> Matrix:
    """Return the features that one party with all the columns would make; equal to ``encode`` side by side."""
    table = aligned.bank
    for name in OPERATOR_FEATURES:
        table = table.append_column(name, aligned.operator[name])
    return fit(table, (*BANK_FEATURES, *OPERATOR_FEATURES), train, aligned.labels).transform(table)


def train_exact(features: Matrix, labels: Mask, ridge: float = RIDGE) -> Floats:
    """Return the weights at the minimum of the penalised loss; the intercept ranks nobody and is left out."""
    rows = np.concatenate([features.astype(np.float64), np.ones((len(features), 1))], axis=1)
    penalty = np.full(rows.shape[1], ridge)
    penalty[-1] = 0.0
    weights: Floats = np.zeros(rows.shape[1])
    for _ in range(25):
        chance = 1 / (1 + np.exp(-rows @ weights))
        slope = rows.T @ (chance - labels) + penalty * weights
        curvature = (rows * (chance * (1 - chance))[:, None]).T @ rows + np.diag(penalty)
        step: Floats = np.linalg.solve(curvature, slope)
        weights = weights - step
        if np.abs(step).max() < 1e-9:
            break
    return weights[:-1]


def pooled(
    parties: Parties,
    seed: bytes,
    schedule: Schedule | None = None,
    *,
    columns: Sequence[str] = BANK_FEATURES,
    step: int = STEP,
) -> Outcome:
    """Return what one hold-out shows; ``columns`` are the bank's, ``step`` is the points that scores are rounded to."""
    aligned = align(parties)
    test = draw(len(aligned.labels), seed, 0.2)
    blocks = encode(aligned, ~test, columns)
    labels = aligned.labels
    (alone,) = reference.train([blocks[0][~test]], labels[~test], schedule)
    parts = reference.train([block[~test] for block in blocks], labels[~test], schedule)
    sums = [part.sums(block[test].astype(np.float64)) for part, block in zip(parts, blocks, strict=True)]
    quantum = step * np.log(2) / POINTS_TO_DOUBLE
    return Outcome(
        bank=auc(alone.sums(blocks[0][test].astype(np.float64)), labels[test]),
        joint=auc(sums[0] + sums[1], labels[test]),
        rounded=auc(np.rint(sums[0] / quantum) + np.rint(sums[1] / quantum), labels[test]),
        exact=_tested(np.concatenate(blocks, axis=1), labels, test),
    )


def cross_validated(
    parties: Parties, seed: int = 0, *, columns: Sequence[str] = BANK_FEATURES, folds: int = 5
) -> tuple[float, float]:
    """Return the mean AUC of ``train_exact`` over the folds of all common customers: the bank alone, and both."""
    aligned = align(parties)
    random = np.random.default_rng(seed)
    fold = np.empty(len(aligned.labels), dtype=np.int64)
    for member in (~aligned.labels, aligned.labels):
        fold[random.permutation(np.flatnonzero(member))] = np.arange(member.sum()) % folds
    figures = []
    for held in range(folds):
        test = fold == held
        bank, operator = encode(aligned, ~test, columns)
        both = np.concatenate([bank, operator], axis=1)
        figures.append([_tested(features, aligned.labels, test) for features in (bank, both)])
    alone, joint = np.mean(figures, axis=0).tolist()
    return float(alone), float(joint)


def typical(outcomes: Sequence[Outcome]) -> int:
    """Return the place of the median gain, the lower of the two in the middle."""
    return sorted(range(len(outcomes)), key=lambda place: outcomes[place].gain)[(len(outcomes) - 1) // 2]


def main(arguments: list[str]) -> int:
    """Print what the 30 hold-outs show."""
    parser = argparse.ArgumentParser(prog="jobs.credit_score.plaintext", description="the score in the clear")
    parser.add_argument("--parties", type=int, default=PARTIES_SEED, help="the seed that makes the parties")
    parser.add_argument("--without", action="append", default=[], choices=BANK_FEATURES, help="a column to leave out")
    parser.add_argument("--step", type=int, default=STEP, help="points that partial scores are rounded to")
    chosen = parser.parse_args(arguments)
    columns = tuple(name for name in BANK_FEATURES if name not in chosen.without)
    parties = make_parties(chosen.parties)
    outcomes = [pooled(parties, seed, columns=columns, step=chosen.step) for seed in SEEDS]
    table = np.array([(each.bank, each.joint, each.gain, each.rounded - each.joint, each.exact) for each in outcomes])
    print("hold-out            bank   joint    gain  rounding   exact")
    for seed, row in zip(SEEDS, table, strict=True):
        print(f"{seed.decode():16s}  {row[0]:.4f}  {row[1]:.4f}  {row[2]:.4f}   {row[3]:+.4f}  {row[4]:.4f}")
    summary = {"mean": table.mean(0), "deviation": table.std(0), "least": table.min(0), "most": table.max(0)}
    for name, row in summary.items():
        print(f"{name:16s}  {row[0]:.4f}  {row[1]:.4f}  {row[2]:.4f}   {row[3]:+.4f}  {row[4]:.4f}")
    alone, joint = cross_validated(parties, columns=columns)
    print(f"gain of 0.04 or more: {np.count_nonzero(table[:, 2] >= 0.04)} of {len(SEEDS)}")
    print(f"median gain: {SEEDS[typical(outcomes)].decode()}")
    print(f"5-fold cross-validation: bank {alone:.4f}, joint {joint:.4f}")
    return 0


def _tested(features: Matrix, labels: Mask, test: Mask) -> float:
    return auc(features[test] @ train_exact(features[~test], labels[~test]), labels[test])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
