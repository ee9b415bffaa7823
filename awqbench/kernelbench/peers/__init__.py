"""Kernels of others: a file each, imported and asked for only when it is wanted, with a reason where it is missing."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from awqbench.errors import unknown_choice
from awqbench.kernelbench.peers.cublas import Cublas
from awqbench.kernelbench.peers.gemlite import Gemlite
from awqbench.kernelbench.peers.humming import Humming
from awqbench.kernelbench.peers.machete import Machete
from awqbench.kernelbench.peers.marlin import Marlin, MarlinHalfReduce
from awqbench.kernelbench.peers.peer import Peer
from awqbench.kernelbench.peers.tinygemm import Tinygemm
from awqbench.kernelbench.peers.vllm_awq import VllmAwq

PEERS: tuple[type[Peer], ...] = (Cublas, Marlin, Humming, Machete, Tinygemm, Gemlite, MarlinHalfReduce, VllmAwq)
NAMES = tuple(peer.name for peer in PEERS)


def choose(names: str) -> list[type[Peer]]:
    """`all`, `none` or names, comma-separated; UserError for others."""
    if names in {"all", "none"}:
        return list(PEERS) if names == "all" else []
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in NAMES:
            raise unknown_choice("peer", name, [*NAMES, "all", "none"])
    return [peer for peer in PEERS if peer.name in wanted]


def installed(peers: Sequence[type[Peer]], device: torch.device) -> tuple[list[Peer], dict[str, str]]:
    """Those that can run here, and of every one how it is asked or why it is missing."""
    present, told = [], {}
    for peer in peers:
        reason = peer.missing(device)
        told[peer.name] = f"missing: {reason}" if reason else peer.note
        if reason is None:
            present.append(peer())
    return present, told
