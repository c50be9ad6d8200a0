"""The line to a node: real gRPC over mutual TLS on loopback, against a server that answers as each test says."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from sandbox import signed, wire
from sandbox.audit.checkpoint import Checkpoint, VerifierKey, sign_checkpoint
from sandbox.catalog.schema import read_schema, schema_bytes
from sandbox.client import Client, connection, jobs
from sandbox.client.requests import BODIES, body_from_json, to_json
from sandbox.crypto.sm3 import sm3
from sandbox.errors import (
    DeadlinePassed,
    IntegrityFailed,
    InvalidSpec,
    OutputWithheld,
    PartyFailed,
    PolicyRefused,
    Unauthenticated,
)
from sandbox.keyring import Person
from sandbox.model import (
    Call,
    Consent,
    ConsentRule,
    DatasetRegistration,
    DatasetView,
    Failure,
    JobKind,
    JobQuery,
    JobView,
    PeerCard,
    PriceTerms,
    Quota,
    Recipient,
    Scenario,
    ScenarioView,
    Signed,
    State,
    UploadFile,
)
from sandbox.peer.failures import STATUS, TRAILER, failure_of
from sandbox.v1 import audit_pb2, catalog_pb2, job_pb2, scenario_pb2

JOB = "ab" * 16
VIEW = JobView(
    JOB,
    JobKind.PSI,
    State.RUNNING,
    1,
    (),
    None,
    bytes(32),
    "rr22",
    "engine-child",
    None,
    (),
    "r",
    "0" * 32,
    ("bank",),
    9,
)
Handler = Callable[[Any, grpc.ServicerContext], Any]


class Scripted(grpc.GenericRpcHandler):
    """Answers each method by a function, and keeps the calls it could verify."""

    def __init__(self, officer: Person) -> None:
        self.answers: dict[str, Handler] = {}
        self.calls: list[Call] = []
        self._officer = officer

    def service(self, details: Any) -> Any:
        method = details.method
        service, name = method[1:].split("/")
        found = connection.SERVICES[service].methods_by_name[name]
        request = connection.GetMessageClass(found.input_type)

        def one(message: Any, context: grpc.ServicerContext) -> Any:
            envelope = wire.from_proto(Signed, message.signed)
            call = signed.verify(self._officer.identity.public, "call", envelope, Call)
            assert (call.audience, call.method) == ("bank", method)
            self.calls.append(call)
            return self.answers[name](message, context)

        def many(messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
            first = next(messages)
            one(first, context)
            return self.answers["chunks"](messages, context)

        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
        }[found.client_streaming, found.server_streaming]
        handle = many if found.client_streaming else one
        return make(handle, request.FromString, lambda message: message.SerializeToString())


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server(bank: Any, officer: Person, port: int) -> Iterator[Scripted]:
    scripted = Scripted(officer)
    running = _start(scripted, bank, officer, port)
    yield scripted
    running.stop(None).wait()


def _start(scripted: Scripted, bank: Any, officer: Person, port: int) -> grpc.Server:
    running = grpc.server(futures.ThreadPoolExecutor(4))
    credentials = grpc.ssl_server_credentials(
        [(bank.keys.tls_key, bank.keys.tls_certificate)], officer.tls_certificate, require_client_auth=True
    )
    running.add_secure_port(f"127.0.0.1:{port}", credentials)
    running.add_generic_rpc_handlers((scripted,))
    running.start()
    return running


@pytest.fixture
def card(bank: Any, port: int) -> PeerCard:
    return replace(bank.card, address=f"127.0.0.1:{port}")


@pytest.fixture
def client(server: Scripted, officer: Person, card: PeerCard) -> Iterator[Client]:
    with Client.connect(officer, card) as connected:
        yield connected


def refuse(error: Any, party: str, stage: str) -> Handler:
    def handle(message: Any, context: grpc.ServicerContext) -> Any:
        context.set_trailing_metadata(((TRAILER, wire.encode(failure_of(error, party, stage))),))
        context.abort(STATUS[type(error)], error.tell)

    return handle


def job_answer(view: JobView) -> Handler:
    return lambda message, context: job_pb2.GetJobResponse(job=wire.to_proto(view))


def watch_answer(*views: JobView) -> Handler:
    return lambda message, context: iter(job_pb2.WatchJobResponse(job=wire.to_proto(view)) for view in views)


def test_a_call_is_signed_for_this_node_and_method_and_answered(server: Scripted, client: Client) -> None:
    server.answers["GetJob"] = job_answer(VIEW)
    assert client.job(JOB) == VIEW
    [call] = server.calls
    assert wire.decode(JobQuery, call.body) == JobQuery(JOB)
    assert abs(call.time_ms - signed.now_ms()) < 60_000


def test_a_refusal_arrives_whole(server: Scripted, client: Client) -> None:
    server.answers["GetJob"] = refuse(PolicyRefused("secret detail", tell="not in this scenario"), "operator", "admit")
    with pytest.raises(PolicyRefused) as caught:
        client.job(JOB)
    error = caught.value
    assert (error.party, error.stage, error.tell) == ("operator", "admit", "not in this scenario")
    assert error.hint == PolicyRefused.next_step
    assert "secret detail" not in str(error)
    assert len(server.calls) == 1  # a node that has spoken is not asked again


def test_an_unreachable_node_is_tried_again_with_a_fresh_signature(
    server: Scripted, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PAUSE_S", 0.01)
    failed: list[int] = []

    def flaky(message: Any, context: grpc.ServicerContext) -> Any:
        if len(failed) < 2:
            failed.append(1)
            context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
        return job_pb2.GetJobResponse(job=wire.to_proto(VIEW))

    server.answers["GetJob"] = flaky
    assert client.job(JOB) == VIEW
    assert len(server.calls) == 3
    assert len({call.nonce for call in server.calls}) == 3
    assert len({call.body for call in server.calls}) == 1


def test_what_must_not_happen_twice_is_not_repeated(server: Scripted, client: Client) -> None:
    def down(message: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.UNAVAILABLE, "going down")

    server.answers["DestroyDataset"] = down
    with pytest.raises(PartyFailed, match="bank"):
        client.destroy_dataset("CODE", 1)
    assert len(server.calls) == 1


def test_nobody_there(officer: Person, bank: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PAUSE_S", 0.01)
    with socket.socket() as held:  # bound, not listening: nothing else can take the port
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        client = Client.connect(officer, replace(bank.card, address=address))
        with client, pytest.raises(PartyFailed) as caught:
            client.job(JOB)
    assert caught.value.party == "bank"
    assert address in caught.value.tell


def test_another_certificate_than_the_card_s_is_refused(
    server: Scripted, officer: Person, card: PeerCard, witness: Any
) -> None:
    swapped = replace(card, tls_certificate=witness.card.tls_certificate)
    with Client.connect(officer, swapped) as client, pytest.raises((Unauthenticated, PartyFailed)):
        client.job(JOB)
    assert server.calls == []


def test_a_key_that_the_node_does_not_know_is_told_so(server: Scripted, stranger: Person, card: PeerCard) -> None:
    with Client.connect(stranger, card) as client, pytest.raises(Unauthenticated, match="does not know this key"):
        client.job(JOB)
    assert server.calls == []


def test_a_card_is_read_and_checked(tmp_path: Path, officer: Person, bank: Any) -> None:
    good = wire.encode(bank.keys.card("bank", "a bank", "127.0.0.1:1"))
    path = tmp_path / "bank.peer"
    path.write_bytes(good)
    with Client.connect(officer, path) as client:
        assert client.node.node_id == "bank"
    path.write_bytes(good.replace(b"127.0.0.1:1", b"127.0.0.9:1"))
    with pytest.raises(Unauthenticated):
        Client.connect(officer, path)


def test_an_answer_of_another_version_is_not_believed_in_part(server: Scripted, client: Client) -> None:
    strange = wire.to_proto(VIEW)
    strange.state = 77
    server.answers["GetJob"] = lambda message, context: job_pb2.GetJobResponse(job=strange)
    with pytest.raises(PartyFailed, match="cannot read"):
        client.job(JOB)


def test_watching_tells_each_change_once_across_streams(
    server: Scripted, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "PAUSE_S", 0.01)
    done = replace(VIEW, state=State.RELEASED)
    streams = [watch_answer(VIEW), watch_answer(VIEW, done)]
    server.answers["WatchJob"] = lambda message, context: streams.pop(0)(message, context)
    assert list(client.watch(JOB)) == [VIEW, done]


def test_a_node_that_restarts_is_found_again(server: Scripted, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "PAUSE_S", 0.01)
    done = replace(VIEW, state=State.RELEASED)

    def breaks(message: Any, context: grpc.ServicerContext) -> Any:
        yield job_pb2.WatchJobResponse(job=wire.to_proto(VIEW))
        context.abort(grpc.StatusCode.UNAVAILABLE, "going down")

    streams: list[Handler] = [breaks, watch_answer(done)]
    server.answers["WatchJob"] = lambda message, context: streams.pop(0)(message, context)
    assert client.wait(JOB) == done


def test_a_node_that_is_gone_is_named(server: Scripted, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "PAUSE_S", 0.01)

    def down(message: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
        yield

    server.answers["WatchJob"] = down
    with pytest.raises(PartyFailed) as caught:
        client.wait(JOB)
    assert caught.value.party == "bank"
    assert len(server.calls) == connection.ATTEMPTS


def test_a_silent_node_is_named(server: Scripted, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "WATCH_S", 0.3)

    def silent(message: Any, context: grpc.ServicerContext) -> Any:
        while context.is_active():
            time.sleep(0.02)
        yield from ()

    server.answers["WatchJob"] = silent
    with pytest.raises(DeadlinePassed, match="bank"):
        client.wait(JOB)


def test_waiting_ends_in_time_though_the_job_goes_on(
    server: Scripted, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "WATCH_S", 0.2)

    def slow(message: Any, context: grpc.ServicerContext) -> Any:
        yield job_pb2.WatchJobResponse(job=wire.to_proto(VIEW))
        while context.is_active():
            time.sleep(0.02)

    server.answers["WatchJob"] = slow
    with pytest.raises(DeadlinePassed, match="goes on"):
        client.wait(JOB, timeout_s=0.5)


def test_waiting_raises_what_stopped_the_job(server: Scripted, client: Client) -> None:
    failure = Failure("OutputWithheld", "operator", "gate", OutputWithheld.public, OutputWithheld.public_zh, "ask")
    server.answers["WatchJob"] = watch_answer(replace(VIEW, state=State.REFUSED, failure=failure))
    with pytest.raises(OutputWithheld) as caught:
        client.wait(JOB)
    assert (caught.value.party, caught.value.stage, caught.value.hint) == ("operator", "gate", "ask")


def result_answer(*parts: Any) -> Handler:
    return lambda message, context: iter(job_pb2.GetResultResponse(**part) for part in parts)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([], "without its head"),
        ([{"chunk": b"x"}], "without its head"),
        (["head", {"chunk": b"12345"}], "longer than announced"),
        (["head", {"chunk": b"123"}], "cut short"),
        (["other", {"chunk": b"1234"}], "another job"),
    ],
)
def test_results_that_are_not_what_they_announce(
    server: Scripted, client: Client, officer: Person, parts: list[Any], reason: str
) -> None:
    heads = {
        name: {"head": job_pb2.ResultHead(job_id=job, recipient=officer.key_id, receipt=b"r", size=4)}
        for name, job in (("head", JOB), ("other", "cd" * 16))
    }
    server.answers["GetResult"] = result_answer(*(heads.get(p, p) if isinstance(p, str) else p for p in parts))
    with pytest.raises((PartyFailed, IntegrityFailed), match=reason):
        client.result(JOB)


SCHEMA = (
    b'{"key": ["id"], "fields": [{"name": "id", "type": "string", "meaning": "who", "grade": "L4"},'
    b' {"name": "v", "type": "integer", "meaning": "what", "grade": "L2"}]}'
)


@pytest.fixture
def table(tmp_path: Path) -> tuple[Path, Path]:
    data, schema = tmp_path / "data.csv", tmp_path / "schema.json"
    data.write_bytes(b"id,v\n" + b"a,1\n" * 700_000)
    schema.write_bytes(SCHEMA)
    return data, schema


def test_an_upload_is_signed_whole_and_sent_in_bounded_parts(
    server: Scripted, client: Client, table: tuple[Path, Path]
) -> None:
    received: list[bytes] = []
    progress: list[tuple[int, int]] = []

    def take(messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
        received.extend(message.chunk for message in messages)
        body = wire.decode(DatasetRegistration, server.calls[0].body)
        view = DatasetView("C", 1, body.name, "bank", body.schema_json, 7, bytes(32), "active", 1, "", 0)
        return catalog_pb2.RegisterDatasetResponse(dataset=wire.to_proto(view))

    server.answers |= {"RegisterDataset": lambda message, context: None, "chunks": take}
    view = client.register_dataset(*table, "people", progress=lambda done, total: progress.append((done, total)))
    body = wire.decode(DatasetRegistration, server.calls[0].body)
    content = table[0].read_bytes()
    assert b"".join(received) == content
    assert max(map(len, received)) <= 1 << 20
    assert body.files == (UploadFile("data.csv", len(content), sm3(content)),)
    assert view.schema_json == body.schema_json == schema_bytes(read_schema(table[1]))
    assert progress[-1] == (len(content), len(content))


def test_a_refused_upload_tells_why(server: Scripted, client: Client, table: tuple[Path, Path]) -> None:
    refusal = refuse(InvalidSpec("x", tell="data.csv: row 2: key repeats"), "bank", "intake")
    server.answers |= {"RegisterDataset": lambda message, context: None, "chunks": refusal}
    with pytest.raises(InvalidSpec, match="row 2"):
        client.register_dataset(*table, "people")


@pytest.mark.parametrize("name", ["data.txt", "data"])
def test_files_of_other_kinds_are_not_sent(server: Scripted, client: Client, table: Any, name: str) -> None:
    other = table[0].rename(table[0].with_name(name))
    with pytest.raises(InvalidSpec, match="ending in"):
        client.register_dataset(other, table[1], "people")
    assert server.calls == []


def test_a_node_that_files_another_scenario_is_found_out(server: Scripted, client: Client, officer: Person) -> None:
    other = signed.sign(officer.identity, "scenario", JobQuery(JOB))
    view = ScenarioView(signed.digest("scenario", other), other, (), ("bank",), "awaiting")
    server.answers["ApplyScenario"] = lambda m, c: scenario_pb2.ApplyScenarioResponse(scenario=wire.to_proto(view))
    point = officer.identity.public.to_bytes()
    mine = Scenario(
        name="n",
        merchant="m",
        purpose="p",
        applicant_key=point,
        datasets=(),
        kinds=(JobKind.PSI,),
        outputs=(),
        recipient=Recipient("bank", point, point),
        operator="operator",
        computing_parties=(),
        not_before_ms=0,
        not_after_ms=1,
        quota=Quota(1, 1, 1),
        consent=Consent(ConsentRule.NONE, ConsentRule.NONE, ()),
        score_step=5,
        models_per_person=1,
        price=PriceTerms("t", "1", False),
        accepts_simulated=False,
        nonce=bytes(16),
    )
    with pytest.raises(IntegrityFailed, match="another scenario"):
        client.apply_scenario(mine)


def test_a_checkpoint_must_be_by_the_key_in_the_card(server: Scripted, client: Client, bank: Any, witness: Any) -> None:
    def answer(keys: Any) -> Handler:
        note = sign_checkpoint(Checkpoint("bank", 3, bytes(32)), "bank", keys.checkpoint)
        text = VerifierKey("bank", keys.checkpoint.public).to_text()
        return lambda m, c: audit_pb2.GetCheckpointResponse(checkpoint=note, verifier_key=text)

    server.answers["GetCheckpoint"] = answer(bank.keys)
    assert client.checkpoint().checkpoint.size == 3
    server.answers["GetCheckpoint"] = answer(witness.keys)
    with pytest.raises(IntegrityFailed, match="card"):
        client.checkpoint()


def test_every_method_has_a_body_for_other_programs() -> None:
    methods = {
        f"{service.name}/{method.name}" for service in connection.SERVICES.values() for method in service.methods
    }
    assert set(BODIES) == methods


def test_requests_for_other_programs_are_what_the_sdk_sends(client: Client, officer: Person) -> None:
    body = body_from_json("JobService/GetJob", f'{{"jobId": "{JOB}"}}')
    made = client.sign_request("/sandbox.v1.JobService/GetJob", body)
    call = signed.verify(officer.identity.public, "call", made, Call)
    assert (call.method, call.body) == ("/sandbox.v1.JobService/GetJob", wire.encode(JobQuery(JOB)))
    message = job_pb2.GetJobRequest()
    json_format.ParseDict(to_json(made), message)
    assert wire.from_proto(Signed, message.signed) == made


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("JobService/Nothing", "{}"),
        ("Nothing", "{}"),
        ("JobService/GetJob", "{"),
        ("JobService/GetJob", '{"job": 1}'),
        ("JobService/GetJob", '{"jobId": "short"}'),
    ],
)
def test_requests_that_no_node_would_take_are_not_signed(method: str, body: str) -> None:
    with pytest.raises(InvalidSpec):
        body_from_json(method, body)
