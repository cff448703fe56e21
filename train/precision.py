"""Which type a device multiplies in fastest."""

from __future__ import annotations

import torch


def multiplies_in_bfloat16(device: torch.device) -> bool:
    """True for GPUs and for CPUs with AMX or AVX512-BF16; others imitate it slowly."""
    able: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = any(able.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
    return device.type == "cuda" or fast
