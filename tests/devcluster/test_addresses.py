"""Addresses of the pods and services of several dev clusters on one machine."""

from __future__ import annotations

import itertools

import pytest

from cortex_devcluster import addresses
from cortex_devcluster.addresses import PODS, SERVICES, AddressBlock
from tests.ports import free_port


def test_dev_clusters_have_different_addresses() -> None:
    found = [AddressBlock(*each) for each in itertools.product((PODS, SERVICES), (0, 1, 15, 16, 17, 127))]
    used = {block.allocate(str(owner)) for block in found for owner in range(block.size)}
    assert len(used) == len(found) * 4000
    assert all(address.startswith("127.") for address in used)


def test_each_dev_cluster_gets_another_block_until_all_are_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    # Other blocks than those of the dev clusters that run now.
    monkeypatch.setattr(addresses, "LOCK_PORT", free_port())
    reserved = [addresses.reserve_block() for _ in range(128)]
    try:
        assert len({block for block, _ in reserved}) == 128
        with pytest.raises(addresses.AddressesExhausted, match="128 dev clusters are running"):
            addresses.reserve_block()
    finally:
        for _, lock in reserved:
            lock.close()
