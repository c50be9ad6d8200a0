from __future__ import annotations

import os
import socket
import threading
import time

import pytest
from engine_pairs import channels, together

from sandbox.errors import DeadlinePassed, InvalidSpec, PartyFailed, ProtocolFailed, Unavailable
from sandbox.workspace import SocketChannel, dial, listen_once
from sandbox.workspace.channel import MAX_FRAME


def test_messages_arrive_whole_and_in_order():
    sent = [b"", b"x", os.urandom(3_000_000), b"end"]
    with channels() as (left, right):
        got = together(lambda: [left.send(data) for data in sent], lambda: [right.recv(5) for _ in sent])[1]
    assert got == sent


def test_both_sides_can_talk_at_once():
    data = os.urandom(2_000_000)
    with channels() as (left, right):
        results = together(
            lambda: left.send(data), lambda: right.send(data), lambda: left.recv(5), lambda: right.recv(5)
        )
    assert results[2] == results[3] == data


def test_an_end_between_and_inside_messages_is_the_peers_failure():
    with channels() as (left, right):
        left.close()
        with pytest.raises(PartyFailed):
            right.recv(5)
    one, two = socket.socketpair()
    with SocketChannel(two) as channel:
        one.sendall(b"\0\0\0\x09half")
        one.close()
        with pytest.raises(PartyFailed):
            channel.recv(5)


def test_sending_to_a_closed_peer_is_the_peers_failure():
    with channels() as (left, right):
        right.close()
        with pytest.raises(PartyFailed):
            for _ in range(3):
                left.send(b"x" * 1_000_000)


def test_silence_ends_at_the_deadline_even_if_a_byte_drips_in():
    one, two = socket.socketpair()
    stop = threading.Event()

    def drip() -> None:
        one.sendall(b"\0\0\0\x7f")
        while not stop.wait(0.05):
            one.sendall(b".")

    thread = threading.Thread(target=drip)
    thread.start()
    started = time.monotonic()
    with SocketChannel(two) as channel, pytest.raises(DeadlinePassed):
        try:
            channel.recv(0.3)
        finally:
            stop.set()
            thread.join()
    one.close()
    assert time.monotonic() - started < 5


def test_a_frame_above_the_limit_is_refused_on_both_sides():
    one, two = socket.socketpair()
    with SocketChannel(two) as channel:
        one.sendall((MAX_FRAME + 1).to_bytes(4, "big"))
        with pytest.raises(ProtocolFailed):
            channel.recv(5)
    with SocketChannel(one) as channel, pytest.raises(InvalidSpec):
        channel.send(bytes(MAX_FRAME + 1))


def test_dial_waits_for_a_listener_that_comes_late(place):
    path = place / "late.sock"

    def listen() -> bytes:
        time.sleep(0.1)
        with listen_once(path, 5) as channel:
            return channel.recv(5)

    def call() -> None:
        with dial(path, 5) as channel:
            channel.send(b"hello")

    assert together(listen, call)[0] == b"hello"
    assert not path.exists()


def test_nobody_there_ends_at_the_deadline(place):
    with pytest.raises(DeadlinePassed):
        dial(place / "a.sock", 0.05)
    with pytest.raises(DeadlinePassed):
        listen_once(place / "b.sock", 0.05)
    assert not (place / "b.sock").exists()


def test_a_path_the_kernel_cannot_bind_is_refused_clearly(place):
    with pytest.raises(Unavailable, match="limit of 107"):
        listen_once(place / ("x" * 120), 1)
