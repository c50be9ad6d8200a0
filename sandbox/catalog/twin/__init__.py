"""Twins: made-up rows in the columns of a dataset, for people who may not see the real ones.

    rows --measure--> Measurements --synthesise--> rows of nobody

``measure`` asks noisy questions of the rows, once a version, under one privacy budget; ``synthesise`` sees what they
gave and never a row, so that it costs nothing however often it runs. What is asked and what it costs stands in
``budget``, what is kept of the answers in ``measurements``, who the made-up people are in ``people``.

Not here:  keeping measurements and twins (api), the account of the budget (policy), masks for real rows.
"""

from sandbox.catalog.twin.budget import Ask, Question, questions
from sandbox.catalog.twin.measurements import Measurements
from sandbox.catalog.twin.measuring import measure
from sandbox.catalog.twin.synthesis import synthesise

__all__ = ["Ask", "Measurements", "Question", "measure", "questions", "synthesise"]
