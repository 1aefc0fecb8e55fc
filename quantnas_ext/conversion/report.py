"""What a conversion has done, and what it has left."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ConvertedLayer:
    """A layer that has a precision now.

    Attributes:
        path: of the module.
        kind: its class before.
        bits: the precisions that it can have.
        label: of the NNI choice between them; None where the precision is fixed.
        signed: whether its inputs can be negative.
    """

    path: str
    kind: str
    bits: tuple[int | str, ...]
    label: str | None
    signed: bool


@dataclass(frozen=True)
class LeftLayer:
    """A layer that stays in full precision.

    Attributes:
        path: of the module.
        kind: its class.
        reason: why it was left.
    """

    path: str
    kind: str
    reason: str


@dataclass(frozen=True)
class ConversionReport:
    """What ``quantize`` has done; ``str`` makes a text of it.

    Attributes:
        converted: layers that have a precision now, in the order of the model's modules.
        left: layers that multiply and stay in full precision.
    """

    converted: tuple[ConvertedLayer, ...]
    left: tuple[LeftLayer, ...]

    def __str__(self) -> str:
        lines = [f"converted {_layers(len(self.converted))}"]
        wide = max((len(layer.path) for layer in self.converted), default=0)
        for layer in self.converted:
            bits = " or ".join(map(str, layer.bits)) + (" bits" if layer.label else " bits, fixed")
            lines.append(f"  {layer.path:{wide}}  {bits}, input {'signed' if layer.signed else 'unsigned'}")
        reasons = dict.fromkeys(layer.reason for layer in self.left)
        for reason in reasons:
            paths = [f"{layer.path} ({layer.kind})" for layer in self.left if layer.reason == reason]
            lines.append(f"left {_layers(len(paths))} in full precision, as {reason}:")
            lines += [f"  {path}" for path in paths]
        return "\n".join(lines)


def _layers(count: int) -> str:
    return f"{count} layer{'' if count == 1 else 's'}"
