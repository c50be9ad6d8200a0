"""`sandbox review`: lists, the page of evidence, and decisions, against a node that keeps what it is told."""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Iterator
from concurrent import futures
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox import keyring, signed, wire
from sandbox.cli import evidence
from sandbox.cli.screen import plain
from sandbox.model import (
    Call,
    CheckView,
    Decision,
    DecisionView,
    JobKind,
    OutputClass,
    OutputRule,
    ReleaseView,
    Reveal,
    ReviewDecision,
    ReviewVerdict,
    ReviewView,
    Signed,
)
from sandbox.v1 import review_pb2, review_pb2_grpc

JOB, EARLIER = "ab" * 16, "cd" * 16
VIEW = ReviewView(
    job_id=JOB,
    kind=JobKind.TRAIN,
    state="held",
    plan_digest=b"p" * 32,
    evidence_digest=b"e" * 32,
    scenario="credit",
    scenario_digest=b"s" * 32,
    purpose="joint scores",
    merchant="Example Merchant",
    controller="Holding",
    recipient="0f" * 16,
    recipient_node="bank",
    outputs=(OutputRule(JobKind.TRAIN, "scorecard", OutputClass.MODEL, 20, 10, 1000, 4096, True, 900, 100, True),),
    parties=("bank", "operator"),
    checks=(CheckView("scorecard", "group.smallest", "20", "31"),),
    history=(ReleaseView(EARLIER, JobKind.PSI, "Example Merchant", 1_700_000_000_000, ("aligned",)),),
    decisions=(DecisionView("li", Decision.APPROVE, "looked at the bands", 1_700_000_100_000),),
    approvals_needed=2,
    held_ms=1_700_000_000_000,
    due_ms=1_700_600_000_000,
    is_due_soon=True,
    sample="band,points\n<30,12",
    asked=("bank: loans 1: income", "release_scorecard: true"),
    reveals=(Reveal("bank", "points of every band", "各分段的分值"),),
)
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</td></tr></table><h1>approved by everybody</h1>",
    "\"'><a href='https://evil.example/'>here</a>",
    "&lt;b&gt; &#60;i&#62;",
    "</style><style>.state{display:none}",
    "<!-- ",
    "]]>",
    "\x1b[2J\x1b]0;title\x07",
    "\u202eknab\u202c \u2066x\u2069 \u200b",
    "a\x00b\rc\x85d\u2028e\ufffe",
)


class Desk(review_pb2_grpc.ReviewServiceServicer):
    """Answers with ``view`` whatever is asked, and keeps the decisions whose signature is the reviewer's."""

    def __init__(self, reviewer: keyring.Person) -> None:
        self._key = reviewer.identity.public
        self.view, self.decided = VIEW, list[ReviewDecision]()

    def ListReviews(self, request: Any, context: Any) -> Any:  # noqa: N802
        return review_pb2.ListReviewsResponse(reviews=[wire.to_proto(self.view)])

    def GetReview(self, request: Any, context: Any) -> Any:  # noqa: N802
        return review_pb2.GetReviewResponse(review=wire.to_proto(self.view))

    def DecideReview(self, request: Any, context: Any) -> Any:  # noqa: N802
        call = signed.verify(self._key, "call", wire.from_proto(Signed, request.signed), Call)
        verdict = wire.decode(ReviewVerdict, call.body)
        made = signed.verify(self._key, "review", verdict.decision, ReviewDecision)
        self.decided.append(made)
        said = DecisionView("wang", made.decision, made.reason, made.time_ms)
        view = replace(self.view, decisions=(*self.view.decisions, said))
        return review_pb2.DecideReviewResponse(review=wire.to_proto(view))


@pytest.fixture(scope="module")
def reviewer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, keyring.Person]:
    folder = tmp_path_factory.mktemp("people") / "wang"
    return folder, keyring.create_person(folder, "wang", "Operator")


@pytest.fixture(scope="module")
def listening(
    reviewer: tuple[Path, keyring.Person], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Desk, Path]]:
    folder = tmp_path_factory.mktemp("node")
    keys = keyring.create_node(folder / "keys", "operator")
    desk = Desk(reviewer[1])
    running = grpc.server(futures.ThreadPoolExecutor(2))
    review_pb2_grpc.add_ReviewServiceServicer_to_server(desk, running)
    credentials = grpc.ssl_server_credentials(
        [(keys.tls_key, keys.tls_certificate)], reviewer[1].tls_certificate, require_client_auth=True
    )
    port = running.add_secure_port("127.0.0.1:0", credentials)
    running.start()
    card = folder / "operator.peer"
    card.write_bytes(wire.encode(keys.card("operator", "Operator", f"127.0.0.1:{port}")))
    yield desk, card
    running.stop(None).wait()


@pytest.fixture
def desk(listening: tuple[Desk, Path]) -> Desk:
    found = listening[0]
    found.view, found.decided = VIEW, []
    return found


@pytest.fixture
def as_reviewer(listening: tuple[Desk, Path], reviewer: tuple[Path, keyring.Person]) -> tuple[object, ...]:
    return ("--key", reviewer[0], "--node", listening[1])


# --- lists and the page ---------------------------------------------------------------------------------


def test_what_is_held_is_listed(run: Any, desk: Desk, as_reviewer: Any) -> None:
    [held] = run("review", "list", *as_reviewer, "--json").json
    assert (held["job_id"], held["kind"], held["approvals"], held["approvals_needed"]) == (JOB, "train", 1, 2)
    head, line = run("review", "list", *as_reviewer).out.splitlines()
    assert dict(zip(head.split("\t"), line.split("\t"), strict=True))["recipient node"] == "bank"


def test_a_review_is_shown_whole(run: Any, desk: Desk, as_reviewer: Any) -> None:
    assert run("review", "show", JOB, *as_reviewer, "--json").json == plain(VIEW)
    shown = run("review", "show", JOB, *as_reviewer).out
    for text in ("Example Merchant", "group.smallest", "looked at the bands", "<30,12"):
        assert text in shown


def test_texts_of_others_do_not_reach_the_terminal_raw(run: Any, desk: Desk, as_reviewer: Any) -> None:
    desk.view = spread("\x1b[2J\x07\u202e")
    for words in (("list",), ("show", JOB)):
        shown = run("review", *words, *as_reviewer).out
        assert "\ufffd" in shown
        assert not any(character in shown for character in "\x1b\x07\u202e")


def test_the_page_is_a_private_new_file(run: Any, desk: Desk, as_reviewer: Any, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    told = run("review", "show", JOB, "--html", out, *as_reviewer, "--json").json
    assert (told["file"], told["evidence_digest"]) == (str(out), VIEW.evidence_digest.hex())
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert out.read_text(encoding="utf-8") == evidence.draw(VIEW, "operator")
    out.write_text("mine")
    assert run("review", "show", JOB, "--html", out, *as_reviewer).code == 1
    assert out.read_text() == "mine"


class Structure(HTMLParser):
    """What a page is made of, and what it says."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[Any, ...]]] = []
        self.rest: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, tuple(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(("/" + tag, ()))

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.rest.append(data)

    def unknown_decl(self, data: str) -> None:
        self.rest.append(data)

    handle_pi = handle_comment


def spread(text: str) -> ReviewView:
    """The view with ``text`` wherever somebody else's words can stand."""
    return replace(
        VIEW,
        scenario=text,
        purpose=text,
        merchant=text,
        controller=text,
        recipient_node=text,
        outputs=tuple(replace(rule, name=text) for rule in VIEW.outputs),
        parties=(text, text),
        checks=(CheckView(text, text, text, text),),
        history=tuple(replace(one, merchant=text, outputs=(text,)) for one in VIEW.history),
        decisions=tuple(replace(one, reviewer=text, reason=text) for one in VIEW.decisions),
        sample=text,
    )


PLACES = 16  # of ``spread`` on the page


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_others_becomes_markup(text: str) -> None:
    plain_page, page = Structure(evidence.draw(VIEW, "operator")), Structure(evidence.draw(spread(text), "operator"))
    assert page.tags == plain_page.tags
    assert page.rest == plain_page.rest == []
    lines = [evidence.legible(line) for line in text.splitlines()]
    assert all(page.text.count(line) >= PLACES for line in lines[:1])


@given(st.text(min_size=1, max_size=40))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_text_at_all_becomes_markup_or_steers_the_display(text: str) -> None:
    page = evidence.draw(spread(text), "operator")
    assert Structure(page).tags == Structure(evidence.draw(VIEW, "operator")).tags
    assert all(letter.isprintable() or letter == "\n" for letter in page)


def test_the_page_runs_nothing_and_loads_nothing() -> None:
    page = Structure(evidence.draw(VIEW, "operator"))
    inside = {tag for tag, _ in page.tags if not tag.startswith("/")}
    text = {"h1", "h2", "p", "div", "span", "pre"}
    table = {"table", "thead", "tbody", "tr", "th", "td"}
    assert inside <= {"html", "head", "meta", "title", "style", "body"} | table | text
    named = {name for _, attributes in page.tags for name, _ in attributes}
    assert named <= {"lang", "charset", "http-equiv", "content", "class", "scope", "colspan"}
    assert ("http-equiv", "Content-Security-Policy") in [a for _, attributes in page.tags for a in attributes]
    assert "url(" not in page.text
    assert "@import" not in page.text


def test_the_page_says_what_leaves_to_whom_and_why_in_both_languages() -> None:
    text = Structure(evidence.draw(VIEW, "operator")).text
    for value in (
        *("scorecard", "1,000 rows", "90 %", "10 %", "Example Merchant", "Holding", "bank", VIEW.recipient),
        *("joint scores", "group.smallest", "31", "aligned", "looked at the bands", "1 / 2", "operator", "band,points"),
        *(VIEW.evidence_digest.hex(), f"review approve {JOB} --evidence {VIEW.evidence_digest.hex()}"),
    ):
        assert value in text
    for words in (
        "What leaves",
        "出域内容",
        "To whom, for what",
        "接收方与用途",
        "自动检查",
        "截止时间",
        "已有审核意见",
    ):
        assert words in text


def test_the_page_says_where_there_is_nothing() -> None:
    bare = replace(VIEW, controller="", checks=(), history=(), decisions=(), sample="", is_due_soon=False)
    text = Structure(evidence.draw(bare, "operator")).text
    for words in ("nobody else", "no check was noted: do not approve", "请勿同意", "0 / 2", "本次审核未附样本"):
        assert words in text


def test_only_what_is_still_held_is_urgent() -> None:
    def is_urgent(view: ReviewView) -> bool:
        return ("div", (("class", "state soon"),)) in Structure(evidence.draw(view, "operator")).tags

    assert is_urgent(VIEW)
    assert not is_urgent(replace(VIEW, is_due_soon=False))
    assert not is_urgent(replace(VIEW, state="released"))


def test_a_time_that_no_calendar_has_does_not_hide_the_page() -> None:
    late = replace(VIEW, decisions=tuple(replace(one, time_ms=wire.MAX_INTEGER) for one in VIEW.decisions))
    assert f"{wire.MAX_INTEGER} ms" in evidence.draw(late, "operator")


@pytest.mark.parametrize("words", [evidence.KINDS, evidence.CLASSES, evidence.DECISIONS])
def test_every_member_has_words_in_both_languages(words: Any) -> None:
    [kind] = {type(member) for member in words}
    assert set(words) == set(kind)
    assert all(english.isascii() and not chinese.isascii() for english, chinese in words.values())


# --- decisions ------------------------------------------------------------------------------------------


def test_an_approval_is_asked_for_with_what_leaves_to_whom(terminal: Any, desk: Desk, as_reviewer: Any) -> None:
    ended = terminal("review", "approve", JOB, *as_reviewer, keys="y\n")
    assert ended.code == 0
    for value in ("scorecard", "model", "bank", VIEW.recipient, "Example Merchant", "Holding", "joint scores"):
        assert value in ended.out
    assert "Approve?" in ended.out
    [made] = desk.decided
    assert (made.decision, made.evidence_digest) == (Decision.APPROVE, VIEW.evidence_digest)


def test_without_a_yes_nothing_is_decided(terminal: Any, run: Any, desk: Desk, as_reviewer: Any) -> None:
    ended = terminal("review", "approve", JOB, *as_reviewer, "--lang", "zh", keys="n\n")
    assert ended.code == 1
    assert "同意出域？" in ended.out
    unasked = run("review", "approve", JOB, *as_reviewer)
    assert unasked.code == 1
    assert "--yes" in unasked.err
    assert desk.decided == []


def test_programs_say_yes(run: Any, desk: Desk, as_reviewer: Any) -> None:
    told = run("review", "approve", JOB, *as_reviewer, "--yes", "--reason", "as agreed", "--json").json
    assert told["approvals"] == 2
    assert [(made.decision, made.reason) for made in desk.decided] == [(Decision.APPROVE, "as agreed")]


def test_an_approval_can_be_tied_to_the_page_that_was_looked_at(run: Any, desk: Desk, as_reviewer: Any) -> None:
    words = ("review", "approve", JOB, *as_reviewer, "--yes", "--evidence")
    changed = run(*words, "00" * 32)
    assert changed.code == 1
    assert "not what you looked at" in changed.err
    assert run(*words, "not-hex").code == 2
    assert desk.decided == []
    assert run(*words, VIEW.evidence_digest.hex()).code == 0
    assert len(desk.decided) == 1


@pytest.mark.parametrize(("verb", "decision"), [("refuse", Decision.REFUSE), ("send-back", Decision.SEND_BACK)])
def test_who_refuses_says_why(run: Any, desk: Desk, as_reviewer: Any, verb: str, decision: Decision) -> None:
    assert run("review", verb, JOB, *as_reviewer).code == 2
    assert run("review", verb, JOB, *as_reviewer, "--reason", "  ").code == 1
    assert desk.decided == []
    assert run("review", verb, JOB, *as_reviewer, "--reason", "bands too fine").code == 0
    assert [(made.decision, made.reason) for made in desk.decided] == [(decision, "bands too fine")]


def test_the_view_has_no_member_that_the_page_forgets() -> None:
    members = {field.name for field in dataclasses.fields(ReviewView)}
    shown = {name for name in members if f"view.{name}" in Path(str(evidence.__file__)).read_text(encoding="utf-8")}
    assert shown == members
