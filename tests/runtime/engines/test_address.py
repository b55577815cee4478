"""Addresses of clusters."""

from __future__ import annotations

import socket

import pytest

from onnxprune.errors import OptionError
from onnxprune.runtime.engines.address import demand_answer


@pytest.mark.parametrize("form", ["tcp://127.0.0.1:{}", "127.0.0.1:{}", "ray://127.0.0.1:{}", "tls://localhost:{}"])
def test_somebody_answers_or_a_line_says_how_to_start(form: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = form.format(server.getsockname()[1])
        demand_answer(address, "dask scheduler")
    with pytest.raises(OptionError, match=rf"--scheduler {address}: nobody answers there \(.+\): start a cluster with: dask"):
        demand_answer(address, "dask scheduler")


@pytest.mark.parametrize("address", ["nowhere", "tcp://nowhere", "tcp://:8786", "host:port", "host:70000", "host:"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(OptionError, match="write a host and a port"):
        demand_answer(address, "dask scheduler")


def test_other_kinds_are_left_to_the_library() -> None:
    demand_answer("ucx://host:1", "dask scheduler")
