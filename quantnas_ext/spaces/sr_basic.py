"""The basic super-resolution space of Shvetsov et al., "QuantNAS for Super Resolution", IEEE Access 12 (2024)."""

from __future__ import annotations

from collections.abc import Sequence

from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from quantnas_ext.errors import InputError
from quantnas_ext.nn import SharedInput, operation_block, residual
from quantnas_ext.spaces.diagram import Stage

SCALES = (2, 3, 4)


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

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape."""
        first, parallel = self.entrance(x)
        return self.second(first) + parallel


class SRBasicSpace(ModelSpace):
    """Head (2 blocks), body cells, upsampling block with pixel shuffle, tail (2 blocks of 3 channels).

    A long skip leads around the body, another around the tail; there is no interpolated image path. Every block chooses
    an operation, and every operation a precision. As everywhere in NNI, ``simplify``, ``random``, ``freeze`` and
    ``model_context`` work on it.

    Args:
        scale: magnification, 2, 3 or 4.
        width: channels of head and body (36 in the paper).
        cells: number of body cells.
        share_cells: whether all body cells make the same choices (the paper) or each its own.
        adq: whether residual branches (each cell, the whole body, the tail) go through ADQ.
        bits: precisions that every candidate offers: integers, ``"w4a8"`` or pairs; 32 is full precision.
        head, body, skip, upsample, tail: candidate operations of each kind of block.

    Raises:
        InputError: for an impossible scale, width or number of cells, an unknown operation or precision.
    """

    def __init__(
        self,
        scale: int = 4,
        width: int = 36,
        cells: int = 3,
        share_cells: bool = True,
        adq: bool = True,
        bits: Sequence[int | str | Sequence[int]] = (8, 4),
        head: Sequence[str] = ("conv_3x3", "conv_5x5", "conv_3x3_g3", "conv_5x5_g3"),
        body: Sequence[str] = ("fac_5x5", "fac_3x3", "conv_3x3", "conv_5x5"),
        skip: Sequence[str] = ("conv_1x1", "conv_3x3", "conv_5x5"),
        upsample: Sequence[str] = ("conv_5x5_g3", "conv_3x3_g3", "conv_3x3", "conv_5x5"),
        tail: Sequence[str] = ("conv_1x1", "conv_3x3", "conv_5x5", "conv_5x5_g3", "conv_3x3_g3"),
    ) -> None:
        super().__init__()
        if scale not in SCALES:
            raise InputError(f"scale {scale!r} is not possible; use one of {', '.join(map(str, SCALES))}")
        for name, value in (("width", width), ("cells", cells)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} {value!r} of the space is not possible; use a whole number of at least 1")
        self.scale = scale
        self.cells = cells
        self.share_cells = share_cells

        def block(label: str, operations: Sequence[str], in_channels: int, out_channels: int) -> nn.Module:
            return operation_block(label, operations, in_channels, out_channels, width=width, bits=bits)

        self.head = nn.Sequential(block("head_0", head, 3, width), block("head_1", head, width, width))
        branches = []
        for cell in range(cells):
            prefix = self._cell_prefix(cell)
            branches.append(
                BodyCell(
                    block(f"{prefix}_0", body, width, width),
                    block(f"{prefix}_1", body, width, width),
                    block(f"{prefix}_skip", skip, width, width),
                )
            )
        self.body = residual(nn.Sequential(*(residual(branch, width, adq=adq) for branch in branches)), width, adq=adq)
        self.upsample = nn.Sequential(block("upsample_0", upsample, width, 3 * scale**2), nn.PixelShuffle(scale))
        self.tail = residual(nn.Sequential(block("tail_0", tail, 3, 3), block("tail_1", tail, 3, 3)), 3, adq=adq)

    def _cell_prefix(self, cell: int) -> str:
        return "body" if self.share_cells else f"body{cell}"

    def forward(self, x: Tensor) -> Tensor:
        """Image ``[N, 3, H, W]``, RGB in [0, 1], to ``[N, 3, scale H, scale W]`` (not clamped)."""
        return self.tail(self.upsample(self.body(self.head(x))))

    def diagram(self) -> list[Stage]:
        """The macro-structure, for drawings."""
        drawn = [0] if self.share_cells else range(self.cells)
        return [
            Stage("head", [["head_0", "head_1"]]),
            *(
                Stage(
                    "body cell" if self.share_cells else f"body cell {cell + 1}",
                    [
                        [f"{self._cell_prefix(cell)}_0", f"{self._cell_prefix(cell)}_1"],
                        [f"{self._cell_prefix(cell)}_skip"],
                    ],
                    identity=True,
                    repeat=self.cells if self.share_cells else 1,
                )
                for cell in drawn
            ),
            Stage("upsample", [["upsample_0"]]),
            Stage("tail", [["tail_0", "tail_1"]], identity=True),
        ]
