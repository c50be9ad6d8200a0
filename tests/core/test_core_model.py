"""The table of states, and the words of every error."""

from __future__ import annotations

import re

import pytest

from sandbox import errors
from sandbox.errors import SandboxError
from sandbox.model import ENDED, MOVES, State

CLASSES = [
    e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, SandboxError) and e is not SandboxError
]
ALLOWED = {
    "RECEIVED": "ADMITTED REFUSED",
    "ADMITTED": "RUNNING EXPIRED CANCELLED FAILED",
    "RUNNING": "HELD RELEASED REFUSED FAILED CANCELLED",
    "HELD": "RELEASED REFUSED EXPIRED CANCELLED",
    "RELEASED": "",
    "REFUSED": "",
    "FAILED": "",
    "CANCELLED": "",
    "EXPIRED": "",
}


def test_the_moves_are_exactly_those_of_the_design() -> None:
    assert {now.name: {then.name for then in onward} for now, onward in MOVES.items()} == {
        now: set(onward.split()) for now, onward in ALLOWED.items()
    }
    assert {state.name for state in ENDED} == {"RELEASED", "REFUSED", "FAILED", "CANCELLED", "EXPIRED"}
    assert set(MOVES) == set(State)


def test_every_class_has_its_own_words_in_both_languages() -> None:
    for words in ("public", "public_zh"):
        told = [getattr(kind, words) for kind in CLASSES]
        assert len(set(told)) == len(CLASSES) and all(words in vars(kind) for kind in CLASSES)
    assert all(re.search(r"[\u4e00-\u9fff]", kind.public_zh) for kind in CLASSES)
    assert all(kind.next_step for kind in CLASSES)


@pytest.mark.parametrize("kind", CLASSES)
def test_what_is_for_the_log_is_not_for_the_caller(kind: type[SandboxError]) -> None:
    error = kind("row 7 of loans.csv")
    assert (str(error), error.tell, error.hint) == ("row 7 of loans.csv", kind.public, kind.next_step)
    told = kind("row 7", tell="said", hint="next")
    assert (str(told), told.tell, told.hint) == ("row 7", "said", "next")
    assert str(kind()) == kind.public and str(kind(tell="said")) == "said"
