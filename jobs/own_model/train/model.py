"""Who pays late? A logistic regression, fitted on three quarters of the applicants and judged on the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

FEATURES = ["log_income", "burden", "months_insured", "age"]


def run(tables: dict[str, pa.Table], params: dict[str, Any]) -> dict[str, pa.Table]:
    """Return the weights of the features in units of their spread, and the quality on held-out rows."""
    rows = tables["applicants"]
    income, debt, months, age = (rows[name].to_numpy() for name in ("income", "debt", "months_insured", "age"))
    late = rows["late"].to_numpy(zero_copy_only=False)
    income = np.maximum(income, 1)
    features = np.column_stack([np.log(income), debt / income, months, age])
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    fitted_on, held_out, late_fitted, late_held = train_test_split(features, late, test_size=0.25, random_state=7)
    model = LogisticRegression(C=1 / params["strength"]).fit(fitted_on, late_fitted)
    auc = roc_auc_score(late_held, model.predict_proba(held_out)[:, 1])
    return {
        "weights": pa.table(
            {"feature": ["intercept", *FEATURES], "weight": np.concatenate([model.intercept_, model.coef_[0]])}
        ),
        "quality": pa.table({"measure": ["auc", "late_share"], "value": [float(auc), float(late.mean())]}),
    }
