"""The RFDN-like super-resolution space of Shvetsov et al., "QuantNAS for Super Resolution", IEEE Access 12 (2024).

It follows RFDN (Liu et al., "Residual Feature Distillation Network for Lightweight Image Super-Resolution", ECCV
Workshops 2020).
"""

from __future__ import annotations

from collections.abc import Sequence

from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from quantnas_ext.errors import InputError
from quantnas_ext.nn import ESA, Add, Concatenate, RepeatedChannels, SharedInput, operation_block, residual
from quantnas_ext.nn.esa import SMALLEST_SIDE
from quantnas_ext.quantization import (
    FULL_PRECISION_BITS,
    Precision,
    QuantConv2d,
    set_activation_quantizer,
    set_weight_quantizer,
)
from quantnas_ext.spaces.arguments import SR_COST_INPUTS, check_common, check_multiple
from quantnas_ext.spaces.diagram import Stage

STEPS = 3
"""Distilling steps of a cell; one more body block follows them."""

FIXED_BITS = 8
"""Precision of the layers that are not searched (the paper's)."""


CANDIDATES = ("conv_1x1", "conv_3x3", "conv_5x5", "growth1_1x1", "growth1_3x3", "growth1_5x5")
GROUPED_CANDIDATES = ("conv_1x1_g2", "conv_3x3_g2", "conv_5x5_g2")
"""The paper's candidates; the grouped ones are for every block but the tail."""


class DistillationCell(nn.Module):
    """Distils features of C / 2 channels from four depths and fuses them; the branch around which a skip leads.

    For j = 1, 2, 3: ``d_j = distil_j(x)``, ``x = x + body_j(x)``; then ``d_4 = body_4(x)`` and
    ``ESA(conv1x1(concat d_1..d_4))``.

    Args:
        bodies: the four body blocks, three C to C, the last C to C / 2.
        distils: the three distilling blocks, C to C / 2.
        width: C.
        fixed_bits: precision of the 1x1 convolution and of ESA.
    """

    def __init__(
        self, bodies: Sequence[nn.Module], distils: Sequence[nn.Module], width: int, fixed_bits: Precision
    ) -> None:
        super().__init__()
        *refining, self.last = bodies
        self.steps = nn.ModuleList(SharedInput(pair) for pair in zip(distils, refining, strict=True))
        self.sums = nn.ModuleList(Add() for _ in refining)
        self.concatenate = Concatenate()
        channels = (len(distils) + 1) * (width // 2)
        self.fuse = QuantConv2d(channels, width, 1, bias=False, bits=fixed_bits)
        self.attention = ESA(width, bits=fixed_bits)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape."""
        distilled = []
        for step, add in zip(self.steps, self.sums, strict=True):
            kept, refined = step(x)
            distilled.append(kept)
            x = add(x, refined)
        distilled.append(self.last(x))
        return self.attention(self.fuse(self.concatenate(*distilled)))


class FusedCells(nn.Module):
    """Cells in a row whose outputs are all concatenated, fused by a 1x1 and refined by a 3x3 convolution.

    Args:
        cells: modules that keep the shape ``[N, C, H, W]``.
        width: C.
        fixed_bits: precision of both convolutions.
    """

    def __init__(self, cells: Sequence[nn.Module], width: int, fixed_bits: Precision) -> None:
        super().__init__()
        self.cells = nn.ModuleList(cells)
        self.concatenate = Concatenate()
        self.fuse = QuantConv2d(len(cells) * width, width, 1, bias=False, bits=fixed_bits)
        self.refine = QuantConv2d(width, width, 3, padding=1, bias=False, bits=fixed_bits)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape."""
        outputs = []
        for cell in self.cells:
            x = cell(x)
            outputs.append(x)
        return self.refine(self.fuse(self.concatenate(*outputs)))


class SRRFDNSpace(ModelSpace):
    """Colours repeated to C channels, distilling cells with a long skip, upsampling block with pixel shuffle, tail.

    The output is ``y + tail(y)`` of the enlarged image y. Every block chooses an operation, and every operation a
    precision; the 1x1, 3x3 and ESA convolutions that join the blocks are fixed (no bias, no ReLU, signed inputs) and
    count in every cost. Because of ESA both sides of an input need at least 15 pixels.

    Args:
        scale: magnification, 2, 3 or 4.
        width: C, a multiple of 12 (48 in the paper), since colours are repeated to it, distilling halves it and ESA
            quarters it.
        cells: number of cells.
        share_cells: whether all cells make the same choices or each its own.
        adq: whether the cells go through ADQ; ``"adadm"``: through AdaDM.
        bits: precisions that every candidate offers: integers, ``"w4a8"`` or pairs; 32 is full precision.
        fixed_bits: the one precision of the fixed convolutions; None: 8, or 32 where ``bits`` is full precision alone.
        first_bits: the one precision of the first cell's first distilling and body block, which see the image; None:
            as the others.
        last_bits: the one precision of the tail; None: as the others.
        body, distil, upsample, tail: candidate operations of each kind of block. ``skip_connect`` among those of the
            body is none of a cell's last body block, which halves the channels. ``upsample`` None: the paper's, at
            scale 3 without the grouped ones (two groups do not divide its 27 channels).
        activation_quantizer: ``"lsq"``, whose steps are learned, or ``"hwgq"``, whose steps are fixed. The fixed
            convolutions keep LSQ then, since their inputs are signed.
        weight_quantizer: ``"lsq"``, or one that you have registered; the same holds for activations.

    Raises:
        InputError: for an impossible scale, width or number of cells, an unknown operation or precision, or
            ``first_bits`` where the first cell shares its choices, or an activation quantizer that is unknown or has
            no step for a precision.
    """

    # See ``Counted``, ``Pinned`` and ``SizeChecked`` in ``quantnas_ext.spaces.contract``.
    COST_INPUTS = SR_COST_INPUTS
    PINNED_PRECISIONS = ("first_bits", "last_bits", "fixed_bits")
    CANDIDATE_ARGUMENTS = ("body", "distil", "upsample", "tail")
    smallest_side = SMALLEST_SIDE

    def __init__(
        self,
        scale: int = 4,
        width: int = 48,
        cells: int = 4,
        share_cells: bool = True,
        adq: bool | str = True,
        bits: Sequence[int | str | Sequence[int]] = (4, 8),
        fixed_bits: int | str | Sequence[int] | None = None,
        first_bits: int | str | Sequence[int] | None = None,
        last_bits: int | str | Sequence[int] | None = None,
        body: Sequence[str] = CANDIDATES + GROUPED_CANDIDATES,
        distil: Sequence[str] = CANDIDATES + GROUPED_CANDIDATES,
        upsample: Sequence[str] | None = None,
        tail: Sequence[str] = CANDIDATES,
        activation_quantizer: str = "lsq",
        weight_quantizer: str = "lsq",
    ) -> None:
        super().__init__()
        candidates = {"body": body, "distil": distil, "upsample": () if upsample is None else upsample, "tail": tail}
        common = check_common(scale, width, cells, share_cells, adq, bits, candidates)
        scale, width, cells, share_cells, adq = common
        check_multiple(width, 12, "colours are repeated to it, distilling halves it and ESA quarters it")
        if first_bits is not None and share_cells and cells > 1:
            raise InputError("first_bits needs a first cell with choices of its own; use it with share_cells: false")
        self.scale = scale
        self.cells = cells
        self.share_cells = share_cells
        if fixed_bits is None:
            full = all(Precision.parse(value) == Precision.parse(FULL_PRECISION_BITS) for value in bits)
            fixed_bits = FULL_PRECISION_BITS if full else FIXED_BITS
        fixed = Precision.parse(fixed_bits)
        if upsample is None:
            upsample = CANDIDATES if scale == 3 else CANDIDATES + GROUPED_CANDIDATES
        first_body, first_distil = (labels[0] for labels in self._cell_labels(0))
        pinned = {first_body: first_bits, first_distil: first_bits, "tail_0": last_bits}

        def block(label: str, operations: Sequence[str], in_channels: int, out_channels: int) -> nn.Module:
            only = pinned.get(label)
            precisions = bits if only is None else [only]
            return operation_block(label, operations, in_channels, out_channels, width=width, bits=precisions)

        branches = []
        for cell in range(cells):
            bodies, distils = self._cell_labels(cell)
            *refining, last = bodies
            body_blocks = [block(label, body, width, width) for label in refining]
            body_blocks.append(block(last, [name for name in body if name != "skip_connect"], width, width // 2))
            distil_blocks = [block(label, distil, width, width // 2) for label in distils]
            branches.append(DistillationCell(body_blocks, distil_blocks, width, fixed))
        self.widen = RepeatedChannels(width // 3)
        fused = FusedCells([residual(branch, width, adq=adq) for branch in branches], width, fixed)
        self.body = residual(fused, width, adq=False)
        self.upsample = nn.Sequential(block("upsample_0", upsample, width, 3 * scale**2), nn.PixelShuffle(scale))
        self.tail = residual(block("tail_0", tail, 3, 3), 3, adq=False)
        set_activation_quantizer(self, activation_quantizer)
        set_weight_quantizer(self, weight_quantizer)

    def _cell_labels(self, cell: int) -> tuple[list[str], list[str]]:
        """Labels of a cell's body blocks and of its distilling blocks."""
        own = "" if self.share_cells else str(cell)
        return [f"body{own}_{step}" for step in range(STEPS + 1)], [f"distil{own}_{step}" for step in range(STEPS)]

    def forward(self, x: Tensor) -> Tensor:
        """Image ``[N, 3, H, W]``, RGB in [0, 1], to ``[N, 3, scale H, scale W]`` (not clamped).

        Raises:
            InputError: when H or W is below 15 pixels.
        """
        return self.tail(self.upsample(self.body(self.widen(x))))

    def diagram(self) -> list[Stage]:
        """The macro-structure, for drawings: the blocks, without the fixed layers and the sums around body blocks."""
        stages = []
        for cell in [0] if self.share_cells else range(self.cells):
            bodies, distils = self._cell_labels(cell)
            title = "cell" if self.share_cells else f"cell {cell + 1}"
            repeat = self.cells if self.share_cells else 1
            stages.append(Stage(title, [bodies], identity=True, repeat=repeat, taps=distils))
        return [*stages, Stage("upsample", [["upsample_0"]]), Stage("tail", [["tail_0"]], identity=True)]
