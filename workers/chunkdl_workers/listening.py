"""Sockets that other processes connect to: bound here and nowhere else.

On this machine the kernel says which user connects. Only our own and root get in, and of anybody
else not one byte is read.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import socket
import struct
import tempfile

import zmq

from chunkdl.errors import ConfigError

SOCKET_NAME = "s"
MEMORY = "/dev/shm"  # noqa: S108 - a folder of our own is made in it
"""Where a folder is made when those for temporary files are full or cannot be written to."""
QUESTIONS = "inproc://zeromq.zap.01"
"""Where libzmq asks whether a client may come in."""
WAITING_CONNECTIONS = 4096
"""That are not accepted yet; the kernel's own limit may be lower."""
WAITING_BY_TCP = 128
"""The same by tcp, where they are taken whatever the gate says (`chunkdl_workers.tcp_gate`); of few
descriptors fewer."""
TURN_STRANGERS = 64
"""That are sent away before it is the turn of anything else."""
CREDENTIALS = struct.Struct("3i")
"""Of a connection: process, user, group."""


def bind_router(router: zmq.Socket[bytes], address: str) -> None:
    """Bind a ZeroMQ socket; to an ipc address only our own user and root can connect.

    libzmq asks the kernel right behind `accept` and closes the connection of anybody else.

    Raises:
        ConfigError: this libzmq cannot ask.
        zmq.ZMQError: the address cannot be bound.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    by_tcp = max(1, min(WAITING_BY_TCP, most // 32))
    local = address.startswith("ipc://")
    router.setsockopt(zmq.BACKLOG, WAITING_CONNECTIONS if local else by_tcp)
    if local:
        for user in _admitted():
            try:
                # pyzmq takes numbers with a sign, the kernel's have none.
                router.setsockopt(zmq.IPC_FILTER_UID, ctypes.c_int(user).value)
            except zmq.ZMQError as error:
                raise ConfigError(
                    f"libzmq {zmq.zmq_version()} was built without a look at who connects "
                    f"({error}), so every user of the machine could; install pyzmq from its wheels"
                ) from error
    router.bind(address)


def bind_private(router: zmq.Socket[bytes]) -> int:
    """Bind a ZeroMQ socket where only those can connect who are given the descriptor.

    The socket is made in a folder of our own, and its name is taken away again at once: nothing is
    left behind, whoever is killed, and nobody can find it, fill its queue, or take its name when it
    is gone.

    Returns:
        A descriptor of the place (O_PATH), for `chunkdl.transport.channel.private_address`.

    Raises:
        ConfigError: no folder takes a socket.
    """
    folder = _own_folder()
    try:
        # It stays open with the socket: libzmq goes by this path once more when it closes that.
        place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # By descriptor, since the path of a socket may have 107 bytes and that of a folder more.
        bind_router(router, f"ipc:///proc/self/fd/{place}/{SOCKET_NAME}")
        return os.open(SOCKET_NAME, os.O_PATH | os.O_CLOEXEC, dir_fd=place)
    except (OSError, zmq.ZMQError) as error:
        raise ConfigError(
            f"no socket can be made in {folder}: {error}; set TMPDIR to a folder on a disk of this "
            "machine"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def bind_questions(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """Bind where the sockets of a context ask whether a client may come in; only they reach it."""
    questions = context.socket(zmq.REP)
    questions.setsockopt(zmq.LINGER, 0)
    questions.bind(QUESTIONS)
    return questions


def bind_packets(path: str) -> socket.socket:
    """A listening Unix socket (SOCK_SEQPACKET) that does not block; for `accept_own`.

    Raises:
        OSError: it cannot be bound.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        listener.setblocking(False)
        listener.bind(path)
        listener.listen(WAITING_CONNECTIONS)
    except BaseException:
        listener.close()
        raise
    return listener


def accept_own(listener: socket.socket) -> tuple[socket.socket, int] | None:
    """The next connection of our own user or of root, and its process; None: there is none now.

    Those of others are closed, unread.
    """
    for _ in range(TURN_STRANGERS):
        try:
            end, _ = listener.accept()
        except OSError:
            return None
        pid, user = peer_of(end)
        if user in _admitted():
            return end, pid
        end.close()
    return None


def process_at(end: socket.socket) -> str:
    """The process at the other end of a Unix socket, for people."""
    pid, user = peer_of(end)
    # One of another namespace of processes has no number here.
    return f"process {pid} of user {user}" if pid else f"a process of user {user} in a container"


def peer_of(end: socket.socket) -> tuple[int, int]:
    """Process and user at the other end of a Unix socket, by the kernel's word."""
    credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, user, _ = CREDENTIALS.unpack(credentials)
    return pid, user


def _own_folder() -> str:
    """A new folder that only our user and root may enter."""
    try:
        return tempfile.mkdtemp(prefix=".chunkdl-")
    except OSError:
        try:
            return tempfile.mkdtemp(prefix=".chunkdl-", dir=MEMORY)
        except OSError as error:
            raise ConfigError(
                f"no folder for a socket can be made: {error}; set TMPDIR to one that can be "
                "written to"
            ) from error


def _admitted() -> set[int]:
    """Users that may connect."""
    return {os.geteuid(), 0}
