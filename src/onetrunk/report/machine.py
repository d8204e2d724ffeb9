"""The machine that measured, in a few words: no host, no user, no path."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def machine(device: torch.device | None = None) -> str:
    """Processor or graphics card, cores, system."""
    words = [_processor(), f"{_cores()} cores", platform.system()]
    if device is not None and device.type == "cuda":
        words.insert(0, torch.cuda.get_device_name(device))
    return ", ".join(word for word in words if word)


def _cores() -> int:
    import os

    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    named = next((name for name in names if name and name != "unknown"), "")
    return named or platform.processor() or platform.machine()
