"""What each backend of mlx wants to find in the environment of a rank, as mlx.launch writes it. Pure."""

from __future__ import annotations

import json
from typing import Any

from draftd.protocol import GroupPlan

RING, JACCL, MPI = "ring", "jaccl", "mpi"


def addresses(plan: GroupPlan, first_port: int) -> list[list[list[Any]]]:
    """Return for each rank where it listens for others: lists of an address and a port."""
    if plan.backend == MPI:
        return [[] for _ in plan.members]  # it finds ports by itself
    if plan.backend == JACCL:
        return [[[plan.members[0].ips[0], first_port]], *[[] for _ in plan.members[1:]]]
    port, found = first_port, []
    for member in plan.members:
        found.append([[ip, port + place] for place, ip in enumerate(member.ips)])
        port += len(member.ips)
    return found


def ports_needed(plan: GroupPlan) -> int:
    """Return how many ports, one after the other, the ranks use among themselves."""
    if plan.backend == MPI:
        return 0
    return 1 if plan.backend == JACCL else sum(len(member.ips) for member in plan.members)


def environment(plan: GroupPlan, rank: int, first_port: int) -> dict[str, dict[str, str]]:
    """Return the variables of a rank, and those that name a file, with what is to be in it."""
    own = {"MLX_RANK": str(rank), **plan.env}
    if plan.backend == MPI:
        return {"environ": own, "files": {}}  # and what mpirun gives, see `mpi`
    listening = addresses(plan, first_port)
    if plan.backend == JACCL:
        host, port = listening[0][0]
        devices = json.dumps([list(member.rdma) for member in plan.members])
        return {
            "environ": own | {"MLX_JACCL_COORDINATOR": f"{host}:{port}"},
            "files": {"MLX_IBV_DEVICES": devices},
        }
    hosts = json.dumps([[f"{ip}:{port}" for ip, port in each] for each in listening])
    return {"environ": own, "files": {"MLX_HOSTFILE": hosts}}
