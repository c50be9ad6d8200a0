"""What a party may say of a scenario, and when: refuse it, ask for changes, suspend, resume, revoke.

    not approved by the own party yet      REFUSED, CHANGES
    approved by every party                SUSPENDED; RESUMED by whoever suspended it
    until it is revoked                    REVOKED

A party speaks with one voice to the others: its last notice counts. Inside, several may have a reason to suspend: the
organisation itself ("") and each source department, by name. Whoever suspended resumes; while another voice still
holds, the node suspends again at once in that voice's name.

Errors:    ``WrongState`` in words for whoever tries.
Not here:  signing and storing (``book``), who speaks for whom (``api.scenarios``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from sandbox.errors import InvalidSpec, WrongState
from sandbox.model import Notice, NoticeKind
from sandbox.policy.scenario import ENDED, Standing

LEAST_REASON = 3  # characters


def check_move(
    standing: Standing, party: str, kind: NoticeKind, reason: str, voice: str, held: Mapping[str, Notice], now_ms: int
) -> None:
    """Refuse a notice that means nothing where the scenario stands.

    Args:
        standing: the scenario as this node knows it.
        party: this node.
        kind: what is to be said.
        reason: why.
        voice: who says it: a department of this node, or empty for its organisation.
        held: this party's suspensions that last, by voice.
        now_ms: the time.
    """
    if kind is not NoticeKind.RESUMED and len(reason.strip()) < LEAST_REASON:
        raise InvalidSpec(tell="give a reason; the other parties read it")
    state = standing.state(now_ms)
    if state == "revoked" or (state in ENDED and kind is not NoticeKind.REVOKED):
        raise WrongState(tell=f"the scenario is {state}")
    if kind in (NoticeKind.REFUSED, NoticeKind.CHANGES) and party in standing.approved_by:
        raise _wrong(f"{party} has approved the scenario already", "suspend or revoke it")
    if kind is NoticeKind.SUSPENDED:
        if standing.awaiting():
            raise _wrong("the scenario is not approved by every party yet", "refuse it or ask for changes")
        if voice in held:
            raise _wrong("the scenario is suspended already", "resume or revoke it")
    if kind is NoticeKind.RESUMED and voice not in held:
        others = ", ".join(sorted(name or party for name in held))
        raise _wrong(f"it is suspended by {others}" if others else f"{party} did not suspend it", "ask who did")


def suspensions(own: Iterable[Notice], voice_of: Callable[[str], str]) -> dict[str, Notice]:
    """Return which suspensions of one party last, by voice, from its notices in order; ``voice_of`` takes an actor."""
    held: dict[str, Notice] = {}
    for notice in own:
        if notice.kind is NoticeKind.SUSPENDED:
            held[voice_of(notice.actor)] = notice
        elif notice.kind is NoticeKind.RESUMED:
            held.pop(voice_of(notice.actor), None)
    return held


def _wrong(tell: str, instead: str) -> WrongState:
    return WrongState(tell=tell, hint=f"{instead} (sandbox scenario show)")
