"""What acro says of tables and models in the clear: JSON in on standard input, JSON out as the last line.

    {"tables": [{"levels": [2, 1], "cells": [[3, null], [4]], "of": "sum", "margins": false, "missing": false}],
     "models": [{"columns": [[1, 1, 1], [0, 2, 5]], "outcomes": [1, 2, 4]}]}

    {"version": "1.0.2", "bounds": {...},
     "tables": [{"checks": {"NKCheck": "fail"}, "cells": {"NKCheck": [[0, 0]]}}], "models": ["pass"]}

``cells`` are the values in each cell, the last level fastest; ``of`` is the statistic; ``missing`` switches on acro's
check for missing values. Of an answer, ``checks`` are acro's verdicts on the table, and ``cells`` its places (row,
column) where a check fails. Models are fitted by least squares; ``columns`` are all there are, a constant included.

Not here: anything of the sandbox. This runs in an environment of its own, with acro and without us.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from importlib.metadata import version
from typing import Any

import acro  # type: ignore[import-not-found]
import pandas as pd


def tabulate(session: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """Return what acro says of one table."""
    count_rows, count_columns = asked["levels"]
    places = [
        (at // count_columns, at % count_columns, value) for at, one in enumerate(asked["cells"]) for value in one
    ]
    rows, columns, values = (list(part) for part in zip(*places, strict=True)) if places else ([], [], [])
    session.config["check_missing_values"] = asked["missing"]
    session.crosstab(
        pd.Series(pd.Categorical(rows, categories=range(count_rows)), name="row"),
        pd.Series(pd.Categorical(columns, categories=range(count_columns)), name="column"),
        values=pd.Series(values, dtype="float64", name="value"),
        aggfunc=asked["of"],
        margins=asked["margins"],
    )
    found = session.results.get_index(-1)
    return {"checks": found.fair["check_status"], "cells": found.sdc["cells"]}


def fit(session: Any, asked: dict[str, Any]) -> str:
    """Return what acro says of one model."""
    session.ols(pd.Series(asked["outcomes"], dtype="float64"), pd.DataFrame(asked["columns"], dtype="float64").T)
    return str(session.results.get_index(-1).status)


def main() -> None:
    """Answer one question."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    pd.set_option("display.max_rows", 1, "display.max_columns", 1)  # it writes every table into messages nobody reads
    asked = json.load(sys.stdin)
    session = acro.ACRO()
    answer = {
        "version": version("acro"),
        "bounds": {name: session.config[name] for name in session.config if name.startswith("safe_")},
        "tables": [tabulate(session, one) for one in asked["tables"]],
        "models": [fit(session, one) for one in asked["models"]],
    }
    print("\n" + json.dumps(answer))


main()
