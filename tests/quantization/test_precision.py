"""Precisions as users write them."""

import pytest

from quantnas_ext.errors import InputError
from quantnas_ext.quantization import Precision, precision_choices


def test_every_way_to_write_a_precision_reads_back() -> None:
    for value in (8, "8", "w8a8", [8, 8], (8, 8), Precision(8, 8)):
        assert Precision.parse(value) == Precision(8, 8)
    assert Precision.parse("w4a8") == Precision(4, 8) == Precision.parse(str(Precision(4, 8)))


@pytest.mark.parametrize(
    "value",
    [1, 0, -4, 17, 33, "w1a8", "eight", "w4", [4], [4, 8, 2], 4.0, None, True, "", "9" * 5000, "٨", "w٤a8"],
)
def test_impossible_precisions_are_refused_with_what_would_be_right(value: object) -> None:
    with pytest.raises(InputError, match=r"use 2 to 16 bits|write 8") as error:
        Precision.parse(value)  # type: ignore[arg-type]
    assert len(str(error.value)) < 300


def test_a_number_too_long_to_write_out_is_refused_too() -> None:
    with pytest.raises(InputError, match="too long to show bits"):
        Precision.parse(16**9999)


def test_choice_values_are_of_one_plain_type() -> None:
    assert precision_choices([8, "4", (2, 2), 8]) == [8, 4, 2]
    assert precision_choices([8, [4, 8]]) == ["w8a8", "w4a8"]
    with pytest.raises(InputError, match="empty"):
        precision_choices([])
