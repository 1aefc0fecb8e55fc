"""The basic super-resolution space of Shvetsov et al., "QuantNAS for Super Resolution", IEEE Access 12 (2024)."""

from __future__ import annotations

from collections.abc import Sequence

from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from quantnas_ext.arguments import whole_number
from quantnas_ext.errors import InputError, unknown_name
from quantnas_ext.nn import Add, RepeatedChannels, SharedInput, operation_block, residual
from quantnas_ext.quantization import set_activation_quantizer, set_weight_quantizer
from quantnas_ext.spaces.arguments import MOST_BLOCKS, SR_COST_INPUTS, check_common, check_multiple
from quantnas_ext.spaces.diagram import Stage

BODY_SCALE = 0.2
"""What variant A of the body cell multiplies its residual branch with."""


class BodyCell(nn.Module):
    """Variant B of the body cell: two blocks in a row, plus one parallel block on the same input.

    Args:
        first, second: the blocks in a row.
        parallel: the block beside them.
    """

    def __init__(self, first: nn.Module, second: nn.Module, parallel: nn.Module) -> None:
        super().__init__()
        self.entrance = SharedInput([first, parallel])
        self.second = second
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape."""
        first, parallel = self.entrance(x)
        return self.add(self.second(first), parallel)


class ScaledBodyCell(nn.Module):
    """Variant A of the body cell: three blocks in a row plus a parallel block on the first's output, times 0.2.

    Args:
        first, second, third: the blocks in a row.
        parallel: the block beside the second and the third.
    """

    def __init__(self, first: nn.Module, second: nn.Module, third: nn.Module, parallel: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.fork = SharedInput([second, parallel])
        self.third = third
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape."""
        second, parallel = self.fork(self.first(x))
        return BODY_SCALE * self.add(self.third(second), parallel)


BODY_CELLS: dict[str, tuple[type[nn.Module], int]] = {"A": (ScaledBodyCell, 3), "B": (BodyCell, 2)}
"""Variants of the body cell: class and number of blocks in a row."""


class SRBasicSpace(ModelSpace):
    """Head, body cells, upsampling block with pixel shuffle, tail of 3 channels on the enlarged image.

    A long skip leads around the body, another around the tail; there is no interpolated image path. Every block chooses
    an operation, and every operation a precision. As everywhere in NNI, ``simplify``, ``random``, ``freeze`` and
    ``model_context`` work on it.

    Args:
        scale: magnification, 2, 3 or 4.
        width: channels of head and body (36 in the paper).
        cells: number of body cells.
        share_cells: whether all body cells make the same choices (the paper) or each its own.
        body_variant: ``"A"``: three blocks in a row and one beside the last two, their sum times 0.2; ``"B"``: two
            blocks in a row and one beside both. Either with an identity around it.
        head_blocks: blocks of the head, of which the first makes ``width`` channels. With 0 there is no head, and the
            colours are repeated to ``width`` channels, which has to be a multiple of 3.
        tail_blocks: blocks of the tail; with 0 there is no tail.
        adq: whether residual branches (each cell, the whole body, the tail) go through ADQ; ``"adadm"``: through AdaDM.
        bits: precisions that every candidate offers: integers, ``"w4a8"`` or pairs; 32 is full precision.
        first_bits: the one precision of the head's first block; None: as the others.
        last_bits: the one precision of the last block, which is the tail's last or, without a tail, the upsampling
            block; None: as the others.
        activation_quantizer: ``"lsq"``, whose steps are learned, or ``"hwgq"``, whose steps are fixed.
        weight_quantizer: ``"lsq"``, or one that you have registered; the same holds for activations.
        head, body, skip, upsample, tail: candidate operations of each kind of block.

    Raises:
        InputError: for an impossible scale, width or number of cells or blocks, an unknown variant, operation or
            precision, ``first_bits`` without a head, or an activation quantizer that is unknown or has no step for a
            precision.
    """

    # See ``Counted`` and ``Pinned`` in ``quantnas_ext.spaces.contract``.
    COST_INPUTS = SR_COST_INPUTS
    PINNED_PRECISIONS = ("first_bits", "last_bits")
    CANDIDATE_ARGUMENTS = ("head", "body", "skip", "upsample", "tail")

    def __init__(
        self,
        scale: int = 4,
        width: int = 36,
        cells: int = 3,
        share_cells: bool = True,
        adq: bool | str = True,
        bits: Sequence[int | str | Sequence[int]] = (8, 4),
        head: Sequence[str] = ("conv_3x3", "conv_5x5", "conv_3x3_g3", "conv_5x5_g3"),
        body: Sequence[str] = ("fac_5x5", "fac_3x3", "conv_3x3", "conv_5x5"),
        skip: Sequence[str] = ("conv_1x1", "conv_3x3", "conv_5x5"),
        upsample: Sequence[str] = ("conv_5x5_g3", "conv_3x3_g3", "conv_3x3", "conv_5x5"),
        tail: Sequence[str] = ("conv_1x1", "conv_3x3", "conv_5x5", "conv_5x5_g3", "conv_3x3_g3"),
        body_variant: str = "B",
        head_blocks: int = 2,
        tail_blocks: int = 2,
        first_bits: int | str | Sequence[int] | None = None,
        last_bits: int | str | Sequence[int] | None = None,
        activation_quantizer: str = "lsq",
        weight_quantizer: str = "lsq",
    ) -> None:
        super().__init__()
        candidates = {"head": head, "body": body, "skip": skip, "upsample": upsample, "tail": tail}
        common = check_common(scale, width, cells, share_cells, adq, bits, candidates)
        scale, width, cells, share_cells, adq = common
        head_blocks = whole_number("head_blocks", head_blocks, least=0, most=MOST_BLOCKS)
        tail_blocks = whole_number("tail_blocks", tail_blocks, least=0, most=MOST_BLOCKS)
        if not isinstance(body_variant, str) or body_variant not in BODY_CELLS:
            raise unknown_name("body variant", body_variant, BODY_CELLS)
        if first_bits is not None and not head_blocks:
            raise InputError("first_bits is the precision of the head's first block; use a head_blocks of at least 1")
        self.scale = scale
        self.cells = cells
        self.share_cells = share_cells
        self.body_row = BODY_CELLS[body_variant][1]
        self.head_labels = [f"head_{index}" for index in range(head_blocks)]
        self.tail_labels = [f"tail_{index}" for index in range(tail_blocks)]
        pinned = {["upsample_0", *self.tail_labels][-1]: last_bits, "head_0": first_bits}

        def block(label: str, operations: Sequence[str], in_channels: int, out_channels: int) -> nn.Module:
            only = pinned.get(label)
            precisions = bits if only is None else [only]
            return operation_block(label, operations, in_channels, out_channels, width=width, bits=precisions)

        if self.head_labels:
            channels = [3] + [width] * (head_blocks - 1)
            blocks = zip(self.head_labels, channels, strict=True)
            self.head = nn.Sequential(*(block(label, head, before, width) for label, before in blocks))
        else:
            check_multiple(width, 3, "without a head the three colours are repeated to that many channels")
            self.head = nn.Sequential(RepeatedChannels(width // 3))
        branches = []
        for cell in range(cells):
            *row, parallel = self._cell_labels(cell)
            blocks_in_row = [block(label, body, width, width) for label in row]
            branches.append(BODY_CELLS[body_variant][0](*blocks_in_row, block(parallel, skip, width, width)))
        self.body = residual(nn.Sequential(*(residual(branch, width, adq=adq) for branch in branches)), width, adq=adq)
        self.upsample = nn.Sequential(block("upsample_0", upsample, width, 3 * scale**2), nn.PixelShuffle(scale))
        self.tail: nn.Module = nn.Identity()
        if self.tail_labels:
            self.tail = residual(nn.Sequential(*(block(label, tail, 3, 3) for label in self.tail_labels)), 3, adq=adq)
        set_activation_quantizer(self, activation_quantizer)
        set_weight_quantizer(self, weight_quantizer)

    def _cell_labels(self, cell: int) -> list[str]:
        """Labels of the blocks in a row, then that of the parallel one."""
        prefix = "body" if self.share_cells else f"body{cell}"
        return [*(f"{prefix}_{index}" for index in range(self.body_row)), f"{prefix}_skip"]

    def forward(self, x: Tensor) -> Tensor:
        """Image ``[N, 3, H, W]``, RGB in [0, 1], to ``[N, 3, scale H, scale W]`` (not clamped)."""
        return self.tail(self.upsample(self.body(self.head(x))))

    def diagram(self) -> list[Stage]:
        """The macro-structure, for drawings."""
        stages = [Stage("head", [self.head_labels])] if self.head_labels else []
        for cell in [0] if self.share_cells else range(self.cells):
            *row, parallel = self._cell_labels(cell)
            title = "body cell" if self.share_cells else f"body cell {cell + 1}"
            # Variant A forks behind its first block, B in front of it.
            entrance, row = (row[:1], row[1:]) if len(row) == 3 else ([], row)
            repeat = self.cells if self.share_cells else 1
            stages.append(Stage(title, [row, [parallel]], identity=True, repeat=repeat, entrance=entrance))
        stages.append(Stage("upsample", [["upsample_0"]]))
        if self.tail_labels:
            stages.append(Stage("tail", [self.tail_labels], identity=True))
        return stages
