"""The door: what is not signed, fresh, for this node, this method and this connection gets its status, no more."""

from __future__ import annotations

import dataclasses
import secrets
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from conftest import Data, Flow
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from node_world import CANARY, World, ref, request
from sqlalchemy import func, select

from sandbox import signed, wire
from sandbox.client import specs
from sandbox.client.connection import full_name
from sandbox.errors import AlreadyExists, BudgetSpent
from sandbox.keyring import create_person
from sandbox.model import (
    Call,
    EntryQuery,
    Failure,
    InclusionQuery,
    JobSubmission,
    ListQuery,
    PsiEngine,
    Quota,
    Signed,
    State,
)
from sandbox.store import jobs, nonces, usage

LIST = "JobService/ListJobs"
UNKNOWN = b"\xf8\x07\x01"


def made(world: World, person: str = "officer", body: object = None, **changes: object) -> Signed:
    """A call signed over a payload changed as asked: what a client gone wrong could send."""
    content = Call(
        1, "bank", full_name(LIST), wire.encode(body or ListQuery()), signed.now_ms(), secrets.token_bytes(16)
    )
    return signed.sign(world.people[person].identity, "call", dataclasses.replace(content, **changes))  # type: ignore[arg-type]


def refused(world: World, data: bytes, code: str, words: str, method: str = LIST, tls: str = "officer") -> None:
    answer = world.raw("bank", world.people[tls], method, data)
    assert (answer.code, words in answer.details) == (code, True), answer
    failure = wire.decode(Failure, answer.trailer)
    assert failure.party == "bank" and failure.cause == answer.details
    assert failure.cause_zh and failure.next_step and CANARY not in repr(failure)


def test_a_good_request_passes(world: World) -> None:
    assert world.raw("bank", world.people["officer"], LIST, request(made(world))).code == "OK"


def test_unsigned(world: World) -> None:
    refused(world, b"", "UNAUTHENTICATED", "not signed")
    refused(world, b"\x0a\x00", "INVALID_ARGUMENT", "Signed.key_id")


def test_replayed_to_the_same_node(world: World) -> None:
    data = request(made(world))
    assert world.raw("bank", world.people["officer"], LIST, data).code == "OK"
    refused(world, data, "UNAUTHENTICATED", "was sent before")


def test_replayed_to_another_node(world: World) -> None:
    home = world.home("operator")
    home.register_key(world.people["officer"].card, ["submitter"])
    answer = world.raw("operator", world.people["officer"], LIST, request(made(world)))
    home.revoke_key(world.people["officer"].key_id)
    home.store.close()
    assert (answer.code, answer.details) == ("UNAUTHENTICATED", "the request is for another node than operator")


@pytest.mark.parametrize("shift_s", [-121, 121, -86_400])
def test_a_clock_that_is_off(world: World, shift_s: int) -> None:
    stale = made(world, time_ms=signed.now_ms() + 1000 * shift_s)
    refused(world, request(stale), "UNAUTHENTICATED", "older or newer than 120 s")


def test_a_clock_that_is_off_a_little_passes(world: World) -> None:
    data = request(made(world, time_ms=signed.now_ms() - 110_000))
    assert world.raw("bank", world.people["officer"], LIST, data).code == "OK"


def test_an_unknown_key_and_a_revoked_one(world: World) -> None:
    stranger = create_person(world.folder / "stranger", "stranger", "Elsewhere")
    by_stranger = signed.sign_call(stranger.identity, "bank", full_name(LIST), ListQuery())
    refused(world, request(by_stranger), "UNAUTHENTICATED", "not signed by a known key")
    shut_out = world.raw("bank", stranger, LIST, request(by_stranger))
    assert shut_out.code == "UNAVAILABLE" and not shut_out.trailer  # TLS itself refuses
    home = world.home("bank")
    home.register_key(stranger.card, ["submitter"])
    assert world.raw("bank", stranger, LIST, request(by_stranger)).code == "OK"
    home.revoke_key(stranger.key_id)
    home.store.close()
    again = signed.sign_call(stranger.identity, "bank", full_name(LIST), ListQuery())
    refused(world, request(again), "UNAUTHENTICATED", "was revoked")
    assert world.raw("bank", stranger, LIST, request(again)).code == "UNAVAILABLE"


def test_a_tampered_payload_or_signature(world: World) -> None:
    good = made(world)
    for broken in (
        dataclasses.replace(good, payload=good.payload.replace(b"bank", b"bonk")),
        dataclasses.replace(good, payload=good.payload + b"\x12\x04bank"),
        dataclasses.replace(good, signature=made(world).signature),
        dataclasses.replace(good, signature=b"\x30\x06\x02\x01\x01\x02\x01\x01"),
        dataclasses.replace(good, key_id=world.people["clerk"].key_id),
    ):
        refused(world, request(broken), "UNAUTHENTICATED", "not signed by a known key")
    as_other_type = signed.sign(world.people["officer"].identity, "scenario", wire.decode(Call, good.payload))
    refused(world, request(as_other_type), "UNAUTHENTICATED", "not signed by a known key")


def test_signed_for_another_method(world: World) -> None:
    other = made(world, method=full_name("JobService/CancelJob"))
    refused(world, request(other), "UNAUTHENTICATED", "for another method")


def test_another_protocol_version(world: World) -> None:
    refused(world, request(made(world, protocol=2)), "INVALID_ARGUMENT", "protocol version 2")


def test_the_tls_certificate_of_another_person(world: World) -> None:
    refused(world, request(made(world)), "UNAUTHENTICATED", "TLS certificate is not the one", tls="clerk")


def test_unknown_fields_outside_and_at_depth(world: World, scenario: bytes, data: Data) -> None:
    refused(world, request(made(world)) + UNKNOWN, "INVALID_ARGUMENT", "fields this version does not know")
    inner = wire.encode(made(world)) + UNKNOWN
    refused(world, b"\x0a" + _size(inner) + inner, "INVALID_ARGUMENT", "fields this version does not know")
    body = wire.to_proto(JobSubmission(specs.align(scenario, ref(data.bank), ref(data.operator))))
    body.spec.psi.left.MergeFromString(UNKNOWN)
    deep = made(world, body=ListQuery(), method=full_name("JobService/SubmitJob"))
    content = dataclasses.replace(wire.decode(Call, deep.payload), body=body.SerializeToString())
    deep = signed.sign(world.people["officer"].identity, "call", content)
    refused(world, request(deep), "INVALID_ARGUMENT", "JobSubmission.spec.psi.left has fields", "JobService/SubmitJob")


def _size(inner: bytes) -> bytes:
    number, out = len(inner), b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def test_garbage(world: World) -> None:
    answer = world.raw("bank", world.people["officer"], LIST, b"\xff\xff\xff")
    assert answer.code in ("INTERNAL", "INVALID_ARGUMENT", "UNKNOWN") and CANARY not in answer.details
    broken = made(world, body=ListQuery())
    content = dataclasses.replace(wire.decode(Call, broken.payload), body=b"\xff\xff")
    refused(
        world,
        request(signed.sign(world.people["officer"].identity, "call", content)),
        "INVALID_ARGUMENT",
        "not a ListQuery message",
    )


ROLES = [
    ("bank-owner", "JobService/SubmitJob"),
    ("bank-owner", "JobService/CancelJob"),
    ("officer", "CatalogService/DestroyDataset"),
    ("officer", "ScenarioService/ApproveScenario"),
    ("officer", "ScenarioService/NotifyScenario"),
    ("officer", "AuditService/Cosign"),
    ("officer", "/sandbox.v1.PeerService/Propose"),
    ("officer", "/sandbox.v1.PeerService/Grant"),
    ("officer", "/sandbox.v1.PeerService/Share"),
    ("officer", "/sandbox.v1.PeerService/Ping"),
]


@pytest.mark.parametrize(("person", "method"), ROLES)
def test_no_role_for_it(world: World, person: str, method: str) -> None:
    full = method if method.startswith("/") else full_name(method)
    data = request(made(world, person, method=full))
    refused(world, data, "PERMISSION_DENIED", "your key has no role", full, tls=person)


def test_the_log_is_not_open_to_everybody(world: World, flow: Flow) -> None:
    """A submitter sees the entries of its own jobs, one at a time or together, and no others."""
    own = world.officer.entries(job_id=flow.psi.job_id)
    assert own and world.officer.inclusion(own[0].index)
    other = next(e.index for e in world.bank_owner.entries() if not e.entry.job_id)
    for data, method in (
        (made(world, body=EntryQuery(), method=full_name("AuditService/ListEntries")), "AuditService/ListEntries"),
        (
            made(world, body=InclusionQuery(other), method=full_name("AuditService/GetInclusion")),
            "AuditService/GetInclusion",
        ),
    ):
        refused(world, request(data), "PERMISSION_DENIED", "only operators and auditors", method)
    foreign = made(world, "clerk", body=InclusionQuery(own[0].index), method=full_name("AuditService/GetInclusion"))
    refused(world, request(foreign), "PERMISSION_DENIED", "only operators", "AuditService/GetInclusion", tls="clerk")
    query = made(world, "clerk", body=EntryQuery(job_id=flow.psi.job_id), method=full_name("AuditService/ListEntries"))
    refused(world, request(query), "NOT_FOUND", "not found", "AuditService/ListEntries", tls="clerk")


def test_without_a_client_certificate_nobody_gets_in(world: World) -> None:
    answer = world.raw("bank", None, LIST, request(made(world)))
    assert answer.code == "UNAVAILABLE" and not answer.trailer
    card = world.nodes.cards["bank"]
    with grpc.insecure_channel(card.address) as channel, pytest.raises(grpc.RpcError) as error:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert error.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_health_and_reflection_need_a_certificate_and_no_signature(world: World) -> None:
    officer, card = world.people["officer"], world.nodes.cards["bank"]
    credentials = grpc.ssl_channel_credentials(card.tls_certificate, officer.tls_key, officer.tls_certificate)
    with grpc.secure_channel(card.address, credentials, [("grpc.ssl_target_name_override", "bank")]) as channel:
        reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    ours = {f"sandbox.v1.{name}Service" for name in ("Job", "Catalog", "Scenario", "Audit", "Peer")}
    assert services >= ours | {"grpc.health.v1.Health"}


# --- idempotence ----------------------------------------------------------------------------------------------------


def counts(world: World, job_id: str) -> tuple[int, int, int]:
    """Rows of the job, uses of quota, entries of admission, at the bank."""
    rows = world.select("bank", select(func.count()).select_from(jobs).where(jobs.c.job_id == job_id))
    uses = world.select("bank", select(func.count()).select_from(usage).where(usage.c.job_id == job_id))
    entries = [e.entry.what for e in world.bank_owner.entries(job_id=job_id)]
    return rows[0][0], uses[0][0], entries.count("admitted")


def test_the_same_request_twice_at_once_is_one_job(world: World, scenario: bytes, data: Data) -> None:
    spec = specs.align(scenario, ref(data.bank), ref(data.operator), PsiEngine.ECDH_X25519, request_id="twice")
    with ThreadPoolExecutor(6) as pool:
        views = list(pool.map(lambda _: world.officer.submit(spec), range(6)))
    assert len({view.job_id for view in views}) == 1
    job = world.released(views[0])
    assert world.officer.submit(spec).job_id == job.job_id  # and long after, too
    assert counts(world, job.job_id) == (1, 1, 1)
    other = dataclasses.replace(spec, deadline_s=60)
    with pytest.raises(AlreadyExists, match="twice was used with another body"):
        world.officer.submit(other)
    assert counts(world, job.job_id) == (1, 1, 1)


def test_a_replayed_submission_is_no_retry(world: World, scenario: bytes, data: Data) -> None:
    spec = specs.align(scenario, ref(data.bank), ref(data.operator), PsiEngine.ECDH_X25519)
    call = request(world.call("officer", "bank", "JobService/SubmitJob", JobSubmission(spec)))
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(lambda _: world.raw("bank", world.people["officer"], "JobService/SubmitJob", call), range(4))
        )
    assert sorted(answer.code for answer in answers) == ["OK", *["UNAUTHENTICATED"] * 3]
    job = next(job for job in world.officer.jobs(limit=500) if job.request_id == spec.request_id)
    world.released(job)
    assert counts(world, job.job_id) == (1, 1, 1)


def test_the_nonce_of_a_refused_submission_is_used_up_and_the_refusal_entered(world: World, data: Data) -> None:
    spec = specs.align(bytes(32), ref(data.bank), ref(data.operator))
    call = world.call("officer", "bank", "JobService/SubmitJob", JobSubmission(spec))
    refused(world, request(call), "PERMISSION_DENIED", "no such scenario at this node", "JobService/SubmitJob")
    refused(world, request(call), "UNAUTHENTICATED", "was sent before", "JobService/SubmitJob")
    nonce = wire.decode(Call, call.payload).nonce
    assert len(world.select("bank", select(nonces.c.nonce).where(nonces.c.nonce == nonce))) == 1
    last = world.bank_owner.entries(limit=1000)[-1].entry
    assert last.what == "refused" and {"PolicyRefused"} == {f.value for f in last.facts if f.name == "code"}


def test_quota_is_counted_once_a_job_and_ends(world: World, data: Data) -> None:
    digest = world.approved(world.draft(data.bank, data.operator, quota=Quota(2, 2, 100_000)))
    jobs_made = [world.released(world.align(digest, data.bank, data.operator)) for _ in range(2)]
    assert all(job.state is State.RELEASED for job in jobs_made)
    with pytest.raises(BudgetSpent, match="calls for today are used up"):
        world.align(digest, data.bank, data.operator)
    for node, count in (("bank", 600), ("operator", 900)):  # what each sent into the protocol
        rows = world.select(node, select(usage.c.state, usage.c.rows).where(usage.c.scenario_digest == digest))
        assert [tuple(row) for row in rows] == [("spent", count)] * 2
