"""Processes in network namespaces of their own, and a switch between them that delays, loses and cuts.

A process makes a user and a network namespace, which needs no root where the system allows it, and in it a TUN device:
what it sends comes out of a file descriptor, packet by packet, which it gives to the switch. So a lost packet is lost:
retransmission, back-off and the end of a connection are the kernel's, as between real machines. The kernel's own way to
lose packets, `tc netem`, is a module that many kernels lack, and needs root.

Exports: `Switch`, `enter`, `find_obstacle`, `get_address`.
"""

import ctypes
import fcntl
import itertools
import multiprocessing
import os
import random
import socket
import struct
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path

import trio

DEVICE = b"tun0"
PACKET_BYTES = 1_500
"""The device's MTU, Linux's default."""
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
"""Of `sched.h`; these and the next are Linux's own numbers."""
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x1, 0x1000
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
IFF_UP, IFF_RUNNING = 0x1, 0x40


def get_address(node: int) -> str:
    """Return the IP address of a node, by its number from 0 on."""
    return f"10.77.0.{node + 1}"


def enter(node: int, port: Connection, ahead_ms: int) -> None:
    """Move this process into a namespace and hand its device to the switch; set its clock ahead, or back.

    Args:
        node: its number.
        port: takes the device's file descriptor.
        ahead_ms: what is added to its wall clock.

    Raises:
        OSError: the system does not allow it.
    """
    send_handle(port, _make_device(node), os.getppid())
    port.close()
    wall, wall_ns = time.time, time.time_ns
    time.time = lambda: wall() + ahead_ms / 1000
    time.time_ns = lambda: wall_ns() + ahead_ms * 1_000_000


def _make_device(node: int) -> int:
    """Return the other end of a TUN device in a new namespace."""
    user, group = os.getuid(), os.getgid()
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(CLONE_NEWUSER | CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare: " + os.strerror(ctypes.get_errno()))
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        Path("/proc/self", name).write_text(text, "ascii")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH14x", DEVICE, IFF_TUN | IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, address in ((SIOCSIFADDR, get_address(node)), (SIOCSIFNETMASK, "255.255.255.0")):
            packed = struct.pack("16sHH4s8x", DEVICE, socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(control, request, packed)
        for device_name in (b"lo", DEVICE):
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", device_name, IFF_UP | IFF_RUNNING))
    return device


def find_obstacle() -> str | None:
    """Return why no process here can have a network of its own; None if one can."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("forkserver").Process(target=_try, args=(sender,))
    process.start()
    sender.close()
    try:
        obstacle: str | None = receiver.recv()
    finally:
        process.join()
    return obstacle


def _try(sender: Connection) -> None:
    try:
        os.close(_make_device(0))
    except OSError as error:
        sender.send(f"no network namespace with a TUN device: {error}")
    else:
        sender.send(None)


class Switch:
    """Carries packets between devices.

    Args:
        devices: their file descriptors, by node.
        loss: probability with which a packet is lost.
        rng: which packets, and how long the others take.

    Attributes:
        carried: packets that were delivered.
        lost: packets that were lost by chance.
    """

    def __init__(self, devices: Mapping[int, int], loss: float, rng: random.Random) -> None:
        self._devices, self._loss, self._rng = devices, loss, rng
        self._delays: dict[frozenset[int], float] = {}
        self._parts: dict[int, int] = {}
        self.carried = self.lost = 0
        self.join()

    def set_delays(self, least_s: float, most_s: float) -> None:
        """Give each two nodes another delay, the same both ways."""
        for pair in itertools.combinations(self._devices, 2):
            self._delays[frozenset(pair)] = self._rng.uniform(least_s, most_s)

    def divide(self, parts: Iterable[Collection[int]]) -> None:
        """Carry nothing between parts from now on."""
        self._parts = {node: number for number, part in enumerate(parts) for node in part}

    def join(self) -> None:
        """Carry everything again."""
        self.divide([list(self._devices)])

    async def run(self) -> None:
        """Carry packets, for ever."""
        async with trio.open_nursery() as nursery:
            for node in self._devices:
                nursery.start_soon(self._listen, node, nursery)

    async def _listen(self, node: int, nursery: trio.Nursery) -> None:
        addresses = {socket.inet_aton(get_address(other)): other for other in self._devices if other != node}
        while True:
            await trio.lowlevel.wait_readable(self._devices[node])
            with suppress(BlockingIOError):
                packet = os.read(self._devices[node], PACKET_BYTES)
                receiver = addresses.get(packet[16:20])  # of IPv4; what is not for a node, as IPv6's greetings, is not
                if receiver is not None:
                    nursery.start_soon(self._carry, node, receiver, packet)

    async def _carry(self, sender: int, receiver: int, packet: bytes) -> None:
        if self._rng.random() < self._loss:
            self.lost += 1
            return
        await trio.sleep(self._delays.get(frozenset((sender, receiver)), 0.0))
        if self._parts[sender] == self._parts[receiver]:
            os.write(self._devices[receiver], packet)
            self.carried += 1
