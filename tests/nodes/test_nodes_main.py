"""The main job on real nodes: aligned, trained, scored, one applicant, and everything verified offline."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from conftest import Data, Flow
from node_world import BAD, SHARED, World, bank_rows, operator_rows, ref
from sqlalchemy import select

from sandbox import signed
from sandbox.audit.merkle import leaf_hash
from sandbox.client import Trust, specs
from sandbox.client.trust import read_entry
from sandbox.crypto.sm3 import sm3
from sandbox.errors import NotFound, PolicyRefused, Unauthenticated, WrongState
from sandbox.model import JobView, PsiEngine, Recipient, ScoreScope, State
from sandbox.store import jobs as job_rows

VERIFIER = Path(__file__).parents[2] / "sandbox" / "audit" / "verify_receipt.py"
ROUNDED = 420
EXACT = {str(SHARED), str(BAD), str(SHARED - BAD), "85", "338"}  # not of rows: the catalogue shows those
SIGNER_ID = "1234567812345678"


def test_the_alignment_is_the_join_in_the_clear(flow: Flow) -> None:
    ours = set(flow.outcomes["score"].outputs["scores"]["id"])
    known = set(operator_rows()["id"].to_pylist())
    assert ours == {person for person in bank_rows()["id"].to_pylist() if person in known}
    assert len(ours) == SHARED
    assert flow.outcomes["psi"].outputs["aligned"] == {"aligned": ROUNDED}


def test_the_reports_are_rounded_and_the_model_ranks(flow: Flow) -> None:
    training: Any = flow.outcomes["train"].outputs["training"]
    assert set(training) == {"rows_held", "rows_trained"} and all(value % 10 == 0 for value in training.values())
    assert abs(sum(training.values()) - SHARED) <= 10
    metrics: Any = flow.outcomes["score"].outputs["metrics"]
    assert set(metrics) == {"auc", "rows"} and metrics["rows"] == ROUNDED
    assert 0.8 < metrics["auc"] <= 1  # the made-up data separate well
    bad = set(bank_rows().filter(pc.equal(bank_rows()["bad"], 1))["id"].to_pylist())
    scores: Any = flow.outcomes["score"].outputs["scores"]
    assert all(int(value) % 5 == 0 for value in scores["points"])
    of_bad = scores["id"].isin(bad)
    assert scores[of_bad]["points"].mean() < scores[~of_bad]["points"].mean()


@pytest.mark.parametrize(("engine", "name"), [(PsiEngine.ECDH_X25519, "ecdh-x25519"), (PsiEngine.ECDH_SM2, "ecdh-sm2")])
def test_every_engine_counts_the_same(
    world: World, data: Data, scenario: bytes, flow: Flow, engine: PsiEngine, name: str
) -> None:
    job = world.released(world.align(scenario, data.bank, data.operator, engine=engine))
    assert (flow.psi.engine, job.engine) == ("rr22", name)
    assert world.officer.result(job.job_id, world.trust()).outputs == flow.outcomes["psi"].outputs


@pytest.mark.parametrize("name", ["psi", "train", "score"])
def test_a_receipt_is_verified_three_ways(
    world: World, flow: Flow, name: str, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    outcome, trust_file = flow.outcomes[name], world.folder / "bank.trust"
    receipt = tmp_path / "receipt.txt"
    receipt.write_bytes(outcome.receipt)
    with subtests.test("the SDK, offline"):
        proven = Trust.from_file(trust_file).verify(outcome.receipt)
        assert proven.cosigners == ("witness",) and proven.entry.what == "delivered"
        assert proven.entry.job_id == outcome.job_id
    with subtests.test("the single file"):
        done = subprocess.run(
            [sys.executable, "-I", str(VERIFIER), str(receipt), str(trust_file)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        spoilt = bytearray(outcome.receipt)
        spoilt[spoilt.index(b"extra ") + 20] ^= 1
        receipt.write_bytes(bytes(spoilt))
        bad = subprocess.run([sys.executable, "-I", str(VERIFIER), str(receipt), str(trust_file)], capture_output=True)
        assert bad.returncode == 1
    with subtests.test("by hand with openssl"):
        by_hand(world, outcome.receipt, tmp_path)


def by_hand(world: World, receipt: bytes, folder: Path) -> None:
    """The checkpoint's body and the origin's signature, as anybody can check them."""
    note = receipt.split(b"\n\n", 1)[1]
    body, _, signatures = note.partition(b"\n\n")
    (line,) = [s for s in signatures.decode().splitlines() if s.startswith("\u2014 bank ")]
    (folder / "body").write_bytes(body + b"\n")
    (folder / "signature").write_bytes(base64.b64decode(line.split()[2])[4:])
    home = world.home("bank")
    (folder / "key.pem").write_bytes(home.keys.checkpoint.public.to_pem())
    home.store.close()
    command = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        "key.pem",
        "-rawin",
        "-digest",
        "sm3",
        "-in",
        "body",
    ]
    command += ["-sigfile", "signature", "-pkeyopt", f"distid:{SIGNER_ID}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and "Verified Successfully" in done.stdout, done.stdout + done.stderr
    (folder / "body").write_bytes(body + b"\nx\n")
    assert subprocess.run(command, cwd=folder, capture_output=True).returncode != 0


def test_every_party_logged_the_same_job_and_plan(world: World, flow: Flow) -> None:
    readers = {"bank": world.bank_owner, "operator": world.op_owner, "witness": world.regulator}
    expected = {"psi": {"bank", "operator"}, "train": {"bank", "operator", "witness"}, "score": {"bank", "operator"}}
    for name, parties in expected.items():
        job: JobView = getattr(flow, name)
        end = time.monotonic() + 10
        while {e.party for e in job.trail} != parties and time.monotonic() < end:
            time.sleep(0.1)  # a job is released before the parties have told each other what they entered
            job = world.officer.job(job.job_id)
        trail = {(entry.party, entry.index): entry for entry in job.trail}
        assert {party for party, _ in trail} == parties
        for party in parties:
            entries = readers[party].entries(job_id=job.job_id)
            whats = [
                e.entry.what for e in entries if not e.entry.what.startswith("challenge")
            ]  # letters asked for later
            assert whats[:2] == ["admitted", "released"] and whats.count("released") == 1
            assert whats[2:] == (["delivered"] if party == "bank" else [])
            for logged in entries:
                assert (logged.entry.job_id, logged.entry.plan_digest) == (job.job_id, job.plan_digest)
                if logged.entry.what in ("admitted", "released"):
                    assert trail[party, logged.index].leaf_hash == leaf_hash(logged.leaf, sm3)


def test_the_logs_of_all_nodes_verify_whole(world: World, flow: Flow) -> None:
    for name in world.nodes.cards:
        home = world.home(name)
        assert home.fsck() > 3
        home.store.close()


def test_a_watch_shows_the_states_in_order_and_sizes_only_at_the_end(
    world: World, data: Data, scenario: bytes, flow: Flow
) -> None:
    job = world.officer.score(scenario, flow.train.job_id, ScoreScope.HOLDOUT)
    views = list(world.officer.watch(job.job_id))
    states = [view.state for view in views]
    assert states == sorted(states) and states[-1] is State.RELEASED and State.RUNNING in states
    for view in views[:-1]:
        assert all(s.bytes == 0 and s.milliseconds % 100 == 0 for s in view.stages) and view.fee is None
    last = world.officer.job(job.job_id)
    assert [s.name for s in last.stages] == ["propose", "agree", "compute", "gate", "reveal", "deliver"]
    assert sum(s.bytes for s in last.stages) > 0 and last.fee is not None
    assert set(last.parties) == {"bank", "operator"}


def test_only_the_recipient_gets_the_result_and_only_after_release(
    world: World, data: Data, slow: tuple[Data, bytes], flow: Flow
) -> None:
    clerk = world.clients["clerk"]
    with pytest.raises(NotFound, match="not found, or not yours"):
        clerk.result(flow.psi.job_id)
    card = signed.open_key_card(world.people["clerk"].card)
    to_clerk = Recipient("bank", card.identity_key, card.sealing.key)
    digest = world.approved(world.draft(data.bank, data.operator, recipient=to_clerk))
    job = world.released(world.align(digest, data.bank, data.operator))
    with pytest.raises(PolicyRefused, match="not the recipient"):  # who submits for another gets no rows
        world.officer.result(job.job_id)
    assert clerk.result(job.job_id, world.trust()).outputs == {"aligned": {"aligned": ROUNDED}}

    pair, digest = slow
    job = world.align(digest, pair.bank, pair.operator)
    with pytest.raises(WrongState, match="not released"):
        world.officer.result(job.job_id)
    world.officer.cancel(job.job_id)
    with pytest.raises(WrongState, match="cancelled, not released"):
        world.officer.result(job.job_id)


def test_others_do_not_learn_that_a_job_exists(world: World, flow: Flow) -> None:
    clerk = world.clients["clerk"]
    for job_id in (flow.psi.job_id, "0" * 32):
        for ask in (clerk.job, clerk.cancel, lambda job_id: next(iter(clerk.watch(job_id)))):
            with pytest.raises(NotFound, match="not found, or not yours"):
                ask(job_id)
    assert not {job.job_id for job in clerk.jobs(limit=500)} & {flow.psi.job_id, flow.train.job_id, flow.score.job_id}
    assert flow.psi.job_id in {job.job_id for job in world.officer.jobs(limit=500)}
    assert flow.psi.job_id in {job.job_id for job in world.op_owner.jobs(limit=500)}  # an auditor sees all


def test_a_plan_has_no_effect_and_prices_as_the_job_does(world: World, data: Data, scenario: bytes, flow: Flow) -> None:
    before = world.select("bank", select(job_rows.c.job_id))
    view = world.officer.plan(specs.score(scenario, flow.train.job_id, ScoreScope.ALIGNED))
    assert view.job_id not in {row.job_id for row in before}
    assert world.select("bank", select(job_rows.c.job_id)) == before
    assert flow.score.fee is not None and view.units_at_most == flow.score.fee.units == 3 * ROUNDED
    assert view.engine == "partial-sums" and view.outputs
    with pytest.raises(PolicyRefused, match="only the scenario's applicant"):
        world.clients["clerk"].plan(specs.align(scenario, ref(data.bank), ref(data.operator)))


def test_entries_hold_no_counts_of_people(world: World, flow: Flow) -> None:
    for client in (world.bank_owner, world.op_owner, world.regulator):
        for logged in client.entries(limit=1000):
            for fact in logged.entry.facts:
                assert fact.value not in EXACT, (logged.entry.what, fact)
            read_entry(logged.leaf)


def test_a_peer_without_a_key_of_ours_is_shut_out(world: World) -> None:
    with pytest.raises(Unauthenticated), world.nodes.client("op-owner", "bank") as client:
        client.jobs()
