"""Jobs as people write them: TOML (or JSON with the same members) into shapes.

    align.toml ...     jobs/credit_score/{align,train,score,applicant}.toml
    query.toml         jobs/income_query/query.toml

Shapes:    a dataset is given by ``file``, which holds what ``sandbox dataset show --json`` printed at its owner, or by
           ``code`` and ``version``. Files are looked for beside the document, or in ``files``. ``${name}`` is explained
           in ``members``. A bundle is given by its file or by its measurement.
Errors:    ``InvalidSpec`` naming file and member.
Not here:  scenarios (``application``); whether a job is allowed: the nodes judge that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from sandbox.client import specs
from sandbox.client.files import read_file
from sandbox.client.members import Table, open_document
from sandbox.client.references import bounded, read_measurement, read_reference
from sandbox.client.specs import Applicant
from sandbox.errors import InvalidSpec
from sandbox.model import (
    JobSpec,
    Measure,
    PsiEngine,
    PsiOutput,
    ScoreScope,
    SealedInput,
    Statistic,
)

T = TypeVar("T")
_KINDS: Final = ("psi", "train", "score", "aggregate", "query", "model")


def job_from_file(
    path: Path,
    values: Mapping[str, str] | None = None,
    files: Path | None = None,
    applicant: Applicant | None = None,
) -> tuple[JobSpec, tuple[SealedInput, ...]]:
    """Return the job in a document, and the sealed inputs it goes with.

    Args:
        path: the document.
        values: what ``${name}`` stands for.
        files: where the files it names lie; by default, beside it.
        applicant: whom a score with ``subject = "applicant"`` is about; never written into a document.
    """
    top = open_document(path, values or {})
    digest, deadline_s = top.digest("scenario"), top.take("deadline_s", int, 0)
    options: dict[str, Any] = {"request_id": top.take("request_id", str, ""), "deadline_s": deadline_s}
    kinds = [name for name in _KINDS if top.has(name)]
    if len(kinds) != 1:
        listed = f"[{'], ['.join(_KINDS[:-1])}] and [{_KINDS[-1]}]"
        raise InvalidSpec(tell=f"{top.where}: exactly one of {listed} says what to do")
    body, base = top.table(kinds[0]), files or path.parent
    inputs: tuple[SealedInput, ...] = ()
    if kinds == ["psi"]:
        left, right = (read_reference(body.table(side), base) for side in ("left", "right"))
        spec = specs.align(
            digest,
            left,
            right,
            body.choose("engine", PsiEngine, PsiEngine.AUTO),
            output=body.choose("output", PsiOutput, PsiOutput.ALIGNED),
            measures=[_measure(table) for table in body.tables("measures", [])],
            columns=body.texts("columns", []),
            third=read_reference(body.table("third"), base) if body.has("third") else None,
            bucket_rows=body.take("bucket_rows", int, 0),
            **options,
        )
    elif kinds == ["aggregate"]:
        spec = specs.aggregate(
            digest,
            [read_reference(table, base) for table in body.tables("datasets", [])],
            measures=[_measure(table) for table in body.tables("measures")],
            groups=body.texts("groups", []),
            alignment=body.take("alignment", str, ""),
            key_bits=body.take("key_bits", int, specs.KEY_BITS),
            margins=body.take("margins", bool, False),
            epsilon_milli=body.take("epsilon_milli", int, 0),
            **options,
        )
    elif kinds == ["query"]:
        spec = specs.query(digest, _source(body, base), _statement(body, base), **options)
    elif kinds == ["model"]:
        bundle = read_measurement(body.where, body.take("bundle", str), base)
        params = body.take("params", dict, {})
        spec = specs.model(digest, _source(body, base), bundle, params, **options)
    elif kinds == ["train"]:
        spec = specs.train(
            digest,
            body.take("alignment", str),
            steps=body.take("steps", int, specs.STEPS),
            holdout_percent=body.take("holdout_percent", int, specs.HOLDOUT_PERCENT),
            seed=body.take("seed", str, "").encode(),
            l2_micro=body.take("l2_micro", int, specs.L2_MICRO),
            release_scorecard=body.take("release_scorecard", bool, False),
            **options,
        )
    elif body.take("subject", str, "holdout") == "applicant":
        if applicant is None:
            raise InvalidSpec(tell=f"{top.where}: the job is about one applicant; say who, with which consent")
        spec, inputs = specs.score_applicant(digest, body.take("model", str), applicant, **options)
    else:
        scope = body.choose("subject", ScoreScope, ScoreScope.HOLDOUT)
        spec = specs.score(digest, body.take("model", str), scope, **options)
    body.end()
    top.end()
    return bounded(JobSpec, spec, top.where), inputs


def _source(body: Table, base: Path) -> specs.Source:
    """Return what a query or model reads: the dataset, or the alignment, that is named."""
    if body.has("alignment") and body.has("dataset"):
        raise InvalidSpec(tell=f"{body.where}: give either a dataset or an alignment")
    return body.take("alignment", str) if body.has("alignment") else read_reference(body.table("dataset"), base)


def _statement(table: Table, base: Path) -> str:
    """Return a statement: from the document, or from a file of its own, as it stands there."""
    if table.has("sql") == table.has("file"):
        raise InvalidSpec(tell=f"{table.where}: give either sql or file")
    if table.has("sql"):
        return str(table.take("sql", str))
    path = base / table.take("file", str)
    try:
        return read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidSpec(tell=f"{path} is not UTF-8") from None


def _measure(table: Table) -> Measure:
    statistic, column = table.choose("statistic", Statistic), table.take("column", str)
    name = table.take("name", str, f"{column}_{statistic.name.lower()}")
    made = Measure(name, statistic, column, table.take("weight", str, ""))
    table.end()
    return made
