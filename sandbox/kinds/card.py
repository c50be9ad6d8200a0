"""A side's points with their names: how a trained half becomes part of a scorecard that may leave.

    other owner                               recipient's node
    points of its bands, whole   -------->    checked, put under its own
                                              scale, start, and one line a band: side, feature, band, points

Reveals:  to the recipient's node and to the recipient: of every column of the other owner its bands (edges, levels) and
          their whole points. Weights stay where they are.
Shapes:   a score is the sum of all lines of ``START`` and of one line for each feature; the lines of ``SCALE`` say what
          points mean.
Errors:   ``ProtocolFailed`` naming the party, if what it sends is no part of a scorecard over its columns.
Not here: when it may leave (``gate.models``, reviewers, and the grants before), the rounding (``mpc.scorecard``).
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sandbox.errors import InvalidSpec, ProtocolFailed
from sandbox.kinds.columns import Mask
from sandbox.kinds.features import Encoder
from sandbox.kinds.kind import Form, Task, blaming
from sandbox.model import Reveal, Scenario
from sandbox.mpc.scorecard import Points, Scale

SCORECARD: Final = "scorecard"  # the output, and the artefact
SCALE: Final = "(scale)"
START: Final = "(start)"
FORM: Final = Form(
    ("side", "feature", "band", "points"),
    steps={"points": 1},
    plain={name: pa.string() for name in ("side", "feature", "band")},
)
MOST_BANDS: Final = 1000  # of one column
MOST_BYTES: Final = 4 << 20
_LABEL: Final = 128  # characters; a longer level is cut off


@dataclass(frozen=True, slots=True)
class Card:
    """One side's part of a scorecard."""

    columns: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    points: Points

    @classmethod
    def of(cls, encoder: Encoder, points: Points) -> Card:
        """Return the points under the names of the encoder's columns and bands."""
        labels = tuple(tuple(label[:_LABEL] for label in part.labels()) for part in encoder.banded())
        return cls(encoder.columns(), labels, points)

    def to_bytes(self) -> bytes:
        """Return it as bytes for the recipient's node."""
        bands = [list(zip(*each, strict=True)) for each in zip(self.labels, self.points.bands, strict=True)]
        features = [{"feature": name, "bands": each} for name, each in zip(self.columns, bands, strict=True)]
        return json.dumps({"base": self.points.base, "features": features}).encode()

    @classmethod
    def from_bytes(cls, body: bytes, columns: Sequence[str], party: str) -> Card:
        """Read the part of another party, over exactly these columns of its dataset.

        Raises:
            ProtocolFailed: it is none; naming the party.
        """
        try:
            if len(body) > MOST_BYTES:
                raise InvalidSpec("a part of a scorecard is too long")
            found = json.loads(body)
            bands = [_bands(feature) for feature in found["features"]]
            points = Points(found["base"], tuple(tuple(one for _, one in column) for column in bands))
            if [feature["feature"] for feature in found["features"]] != list(columns):
                raise InvalidSpec("a part of a scorecard is of other columns")
        except (ValueError, TypeError, KeyError, RecursionError, InvalidSpec):
            raise ProtocolFailed(
                "no part of a scorecard over the planned columns", tell="sent no part of a scorecard", party=party
            ) from None
        return cls(tuple(columns), tuple(tuple(label for label, _ in column) for column in bands), points)


def table(cards: Sequence[tuple[str, Card]], scale: Scale) -> bytes:
    """Return the whole scorecard in Parquet, the parts of (node, card) in their order."""
    lines: list[tuple[str, str, str, int]] = [
        ("", SCALE, "points at the base odds", scale.base_points),
        ("", SCALE, "base odds, good to 1 bad", round(scale.base_odds)),
        ("", SCALE, "points that double the odds", scale.points_to_double),
        ("", SCALE, "scores are rounded to", scale.step),
        ("", START, "", scale.constant * scale.step),
    ]
    for side, card in cards:
        lines.append((side, START, "", card.points.base))
        for name, labels, points in zip(card.columns, card.labels, card.points.bands, strict=True):
            lines += [(side, name, label, one) for label, one in zip(labels, points, strict=True)]
    whole = dict(zip(FORM.names, map(list, zip(*lines, strict=True)), strict=True))
    types = [pa.string(), pa.string(), pa.string(), pa.int64()]
    sink = io.BytesIO()
    pq.write_table(pa.table(whole, schema=pa.schema(list(zip(FORM.names, types, strict=True)))), sink)
    return sink.getvalue()


def hand_over(task: Task, mine: Card) -> dict[str, str]:
    """Send this side's points to the recipient's node; there, put both sides' together and keep the table."""
    recipient = task.plan.recipient_node
    if task.me != recipient:
        task.channel(recipient).send(mine.to_bytes())
        return {}
    cards = []
    for party in task.plan.parties:
        if party.dataset is None:
            continue
        part = mine
        if party.node_id != task.me:
            with blaming(party.node_id):
                body = task.channel(party.node_id).recv(task.deadline_s)
            part = Card.from_bytes(body, party.fields, party.node_id)
        cards.append((party.node_id, part))
    task.keep(SCORECARD, table(cards, Scale(step=task.scenario.score_step)))
    return {SCORECARD: SCORECARD}


def reveals(scenario: Scenario) -> tuple[Reveal, ...]:
    """Say who learns what of a scorecard."""
    node = scenario.recipient.node_id
    what = (
        "of every column of the other data owner: its bands (rounded edges near the fifths of the training rows, or "
        "those of the scenario; levels of enough people) and their points, whole numbers: what the column weighs"
    )
    what_zh = (
        "对方每个字段的分段（训练数据五分位附近的取整分界值，或场景规定的分界值；人数足够的类别）"
        "及各段整数分值，即该字段的权重"
    )
    return (
        Reveal(node, what, what_zh),
        Reveal(
            "recipient", f"{what}; and the same of {node}'s own columns", f"{what_zh}；以及 {node} 本方字段的同类内容"
        ),
    )


def gate_inputs(encoder: Encoder, rows: pa.Table, labels: Mask | None, coefficients: int) -> dict[str, int]:
    """Return what a gate judges a model by, from this side's training rows; see ``gate.models``."""
    total, number = rows.num_rows, 0
    inputs = {"freedom": total - coefficients}
    for part, places in zip(encoder.banded(), encoder.places(rows), strict=True):
        features = part.rows()
        if not features.any():
            continue  # everybody has the same: it weighs nothing
        behind = np.bincount(places, minlength=len(features))[:-1]  # the last band is neutral
        bad = behind if labels is None else np.bincount(places, weights=labels, minlength=len(features))[:-1]
        for count, defaults in zip(behind.tolist(), bad.tolist(), strict=True):
            number += 1
            inputs[f"coefficient.{number}"] = min(count, total - count)
            if labels is not None:
                inputs[f"label.{number}"] = min(int(defaults), count - int(defaults))
    return inputs


def _bands(feature: Any) -> list[tuple[str, int]]:
    bands = [(label, points) for label, points in feature["bands"]]
    if not 1 <= len(bands) <= MOST_BANDS or not all(isinstance(b, str) and len(b) <= _LABEL for b, _ in bands):
        raise InvalidSpec("a column of a scorecard has no bands, or too many")
    return bands
