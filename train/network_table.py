"""The networks' costs beside what their papers say: `python -m train networks`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edge_restore.bench import costs
from edge_restore.storage.files import write_text
from edge_restore.storage.json_file import encode
from train.networks import NETWORKS, create
from train.profiler import Cost, profile
from train.published import PUBLISHED, Published

Row = tuple[str, Cost, Published | None]

_HEAD = ("network", "parameters", "published", "GMAC", "activations", "time", "PSNR", "SSIM")
_UNITS = ("", "M", "M", "", "MiB", "ms, publ.", "dB, publ.", "publ.")


def rows(size: tuple[int, int]) -> list[Row]:
    """Each network's name, its cost for a picture of `size` (height, width), published figures."""
    return [(name, profile(create(name), size), PUBLISHED.get(name)) for name in NETWORKS]


def document(size: tuple[int, int], table: list[Row]) -> dict[str, Any]:
    """The table for JSON; sizes in bytes, times in seconds."""
    return {
        "height": size[0],
        "width": size[1],
        "networks": [
            {
                "network": name,
                **dataclasses.asdict(cost),
                "published": dataclasses.asdict(published) if published else None,
            }
            for name, cost, published in table
        ],
    }


def write_costs(path: Path) -> None:
    """Write what every network costs at `costs.SIZES`, for machines without torch."""
    counted = {
        name: {
            f"{height}x{width}": {
                "macs": cost.macs,
                "moved_numbers": cost.moved_numbers,
                "parameters": cost.parameters,
            }
            for height, width in costs.SIZES
            for cost in [profile(create(name), (height, width))]
        }
        for name in NETWORKS
    }
    write_text(path, encode({"schema": costs.SCHEMA, "networks": counted}, indent=1) + "\n")


def text(size: tuple[int, int], table: list[Row]) -> str:
    """The table to read, with the places of the published figures under it."""
    lines = [_HEAD, _UNITS, *(_cells(*row) for row in table)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEAD))]
    shown = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    ]
    notes = [
        f"{name}: parameters from {p.parameters_where}; time from {p.seconds_where}; "
        f"scores on GoPro from {p.scores_where}"
        for name, _, p in table
        if p
    ]
    about = (
        f"One picture of {size[1]}x{size[0]}. GMAC: 10^9 multiply-accumulates of convolutions and\n"
        "matrix products. Activations: the most held at once, run operator by operator in float32."
    )
    return "\n".join([*shown, "", about, "", "Published:", *notes])


def _cells(name: str, cost: Cost, published: Published | None) -> tuple[str, ...]:
    ours = (
        f"{cost.parameters / 1e6:.3f}",
        f"{cost.macs / 1e9:.1f}",
        f"{cost.activation_bytes / 2**20:.0f}",
    )
    if published is None:
        return (name, ours[0], "-", *ours[1:], "-", "-", "-")
    seconds = published.seconds
    return (
        name,
        ours[0],
        f"{published.parameters:g}",
        *ours[1:],
        "-" if seconds is None else f"{1000 * seconds:g}",
        f"{published.psnr:.2f}",
        f"{published.ssim:.4g}",
    )
