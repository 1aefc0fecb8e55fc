"""What a measured time depends on besides what was computed."""

from __future__ import annotations

import platform
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import device as Device


@dataclass(frozen=True)
class Machine:
    """A processor and how torch uses it; the fields are what tells two machines apart.

    Attributes:
        processor: name of the CPU.
        device: where the network runs: ``"cpu"``, or the kind and name of an accelerator.
        threads: CPU threads of the process.
        torch: version of PyTorch.
    """

    processor: str
    device: str
    threads: int
    torch: str

    @classmethod
    def at_hand(cls, device: Device) -> Machine:
        """This machine, as this process uses it now."""
        name = device.type
        if device.type == "cuda":
            name = f"cuda: {torch.cuda.get_device_name(device)}"
        return cls(_processor(), name, torch.get_num_threads(), str(torch.__version__))

    def differences(self, other: Machine) -> list[str]:
        """Every field that is another one in ``other``, in words."""
        return [
            f"{field.name} {getattr(self, field.name)!r} and not {getattr(other, field.name)!r}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        ]


def _processor() -> str:
    """The CPU's name, which Linux tells in a file, and its vector instructions (virtual machines have vague names)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = next(names, "") or platform.processor() or platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"
