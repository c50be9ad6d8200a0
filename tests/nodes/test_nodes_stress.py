"""Callers who hang up in the middle of everything: the node lives, and serves the next one."""

from __future__ import annotations

import time
from typing import Any

import grpc
from node_world import World, request

from sandbox.client.connection import full_name
from sandbox.model import EntryQuery, JobQuery, ListQuery

BURSTS, CALLS = 40, 12
BODIES: list[tuple[str, object]] = [
    ("JobService/ListJobs", ListQuery()),
    ("JobService/GetJob", JobQuery("0" * 32)),
    ("AuditService/ListEntries", EntryQuery()),
    ("JobService/WatchJob", JobQuery("0" * 32)),
]


def test_callers_who_hang_up_do_not_hurt_the_node(world: World) -> None:
    officer, card, process = world.people["officer"], world.nodes.cards["bank"], world.nodes.processes["bank"]
    credentials = grpc.ssl_channel_credentials(card.tls_certificate, officer.tls_key, officer.tls_certificate)
    options = [("grpc.ssl_target_name_override", "bank"), ("grpc.use_local_subchannel_pool", 1)]
    for burst in range(BURSTS):
        channel: Any = grpc.secure_channel(card.address, credentials, options)
        grpc.channel_ready_future(channel).result(timeout=20)
        pending = []
        for number in range(CALLS):
            method, body = BODIES[number % len(BODIES)]
            data = request(world.call("officer", "bank", method, body))
            if "Watch" in method:
                pending.append(channel.unary_stream(full_name(method))(data, timeout=10))
            else:
                pending.append(channel.unary_unary(full_name(method)).future(data, timeout=10))
        time.sleep(0.004 * (burst % 10))  # the calls are now at every place between the socket and the answer
        for one in pending[::2]:
            one.cancel()
        channel.close()
        assert process.poll() is None, world.log("bank")[-2000:]
    assert world.officer.jobs() is not None
