"""The steering program, run by a small interpreter of classic BPF on made-up packets."""

import socket
import statistics
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from random import Random

import pytest

from drumd.supervisor.sockets.steering import Instruction, program

CONNECTIONS = 64


def packet(port: int, source: str = "127.0.0.1") -> bytes:
    tcp = struct.pack("!HH16x", port, 8080)
    if ":" in source:
        return struct.pack("!B7x16s16x", 0x60, socket.inet_pton(socket.AF_INET6, source)) + tcp
    return struct.pack("!B11x4s4x", 0x45, socket.inet_pton(socket.AF_INET, source)) + tcp


def run(code: Sequence[Instruction], data: bytes) -> int:  # noqa: C901, PLR0912 - one arm an instruction
    a = x = 0
    memory = [0] * 16
    at = 0
    while True:
        operation, on_true, on_false, k = code[at]
        at += 1
        place = (k - 0xFFF00000) & 0xFFFFFFFF
        match operation:
            case 0x20 | 0x28 | 0x30:
                size = {0x20: 4, 0x28: 2, 0x30: 1}[operation]
                a = int.from_bytes(data[place : place + size], "big")
            case 0x60:
                a = memory[k]
            case 0x61:
                x = memory[k]
            case 0x02:
                memory[k] = a
            case 0x34:
                a //= k
            case 0x94:
                a %= k
            case 0x24:
                a = a * k & 0xFFFFFFFF
            case 0x74:
                a >>= k
            case 0x0C:
                a = a + x & 0xFFFFFFFF
            case 0x15:
                at += on_true if a == k else on_false
            case 0x05:
                at += k
            case 0x06:
                return k
            case _:
                raise AssertionError(f"unknown instruction {operation:#x}")


def share_of_the_busiest(count: int, ports: Iterable[int], source: str = "127.0.0.1") -> float:
    code = program(list(range(count)))
    counts = Counter(run(code, packet(port, source)) for port in ports)
    return max(counts.values()) * count / sum(counts.values())


def ports(random: Random, steps: Sequence[int]) -> list[int]:
    port = random.randrange(32768, 50000)
    chosen = []
    for _ in range(CONNECTIONS):
        port += random.choice(steps)
        chosen.append(32768 + (port - 32768) % 28232)
    return chosen


@pytest.mark.parametrize("source", ["10.1.2.3", "2001:db8::7"])
@pytest.mark.parametrize("indices", [[0], [3], [0, 1], [1, 4, 2], list(range(300))])
def test_only_the_chosen_sockets_are_picked_and_each_is(indices: list[int], source: str) -> None:
    """Over all ports, each chosen index is picked and no other one."""
    code = program(indices)
    assert {run(code, packet(port, source)) for port in range(0, 65536, 3)} == set(indices)


@pytest.mark.parametrize(
    ("steps", "fair"),
    [
        ([2] * 15 + [4], 1.25),  # Linux before it took random steps
        (range(2, 17, 2), 1.25),  # Linux since
        ([8], 1.15),
        ([64], 1.2),
        ([512], 1.3),
    ],
)
@pytest.mark.parametrize("source", ["127.0.0.1", "::1"])
def test_ports_in_steps_spread_evenly(steps: Sequence[int], fair: float, source: str) -> None:
    """One client's connections spread over 4 sockets better than by lot (1.26 on average)."""
    random = Random(7)
    shares = [share_of_the_busiest(4, ports(random, steps), source) for _ in range(200)]
    assert statistics.mean(shares) < fair


def test_many_clients_do_not_begin_with_the_same_socket() -> None:
    """First connections of many clients, all from one port number, reach all sockets."""
    code = program([0, 1, 2, 3])
    counts = Counter(run(code, packet(40000, f"10.0.{n // 250}.{n % 250}")) for n in range(1000))
    assert len(counts) == 4
    assert max(counts.values()) < 2 * min(counts.values())


def test_no_socket_at_all_is_refused() -> None:
    """A program that could pick nothing is not made."""
    with pytest.raises(ValueError, match="no socket"):
        program([])
