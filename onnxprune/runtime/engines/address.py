"""Whether a cluster answers at its address: its own library tries for minutes, and says what it does as it goes."""

from __future__ import annotations

import socket

from onnxprune.errors import OptionError

__all__ = ["demand_answer"]

_PATIENCE = 10.0
"""Seconds in which a machine has to take a connection."""
_KNOWN = frozenset({"", "tcp", "tls", "ray"})
"""How addresses may begin of which host and port are read here; the others are left to the library."""


def demand_answer(address: str, start: str) -> None:
    """Nothing happens if somebody listens at the address of a cluster.

    Args:
        address: as a user writes it behind ``--scheduler``: ``tcp://host:8786``, ``ray://host:10001``, ``host:6379``.
        start: how to start a cluster, for the message.

    Raises:
        OptionError: nobody does, or it is no address.
    """
    scheme, _, place = address.rpartition("://")
    if scheme not in _KNOWN:
        return
    host, _, port = place.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and int(port) < 2**16):
        raise OptionError(f"--scheduler {address}: write a host and a port, as tcp://host:8786, ray://host:10001 or host:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise OptionError(f"--scheduler {address}: nobody answers there ({reason}): start a cluster with: {start}") from error
