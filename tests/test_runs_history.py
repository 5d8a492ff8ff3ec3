"""Tables of a run: read back as written, and cut to what a checkpoint knows of."""

import pytest

from unet3d_tutorial.labels import STRUCTURES
from unet3d_tutorial.runs.history import (
    HISTORY,
    append_row,
    history_columns,
    read_columns,
    rewind,
    validation_columns,
)

COLUMNS = ("step", "loss")


@pytest.fixture
def table(tmp_path):
    for step in range(4):
        append_row(tmp_path / "table.csv", COLUMNS, (step, 1 / (step + 3)))
    return tmp_path / "table.csv"


def test_numbers_come_back_to_the_last_bit(table):
    assert read_columns(table) == {"step": [0, 1, 2, 3], "loss": [1 / 3, 1 / 4, 1 / 5, 1 / 6]}


@pytest.mark.parametrize("torn", ["", "4,0.1", "4,0.1428571\r\n5"])
def test_a_rewound_table_goes_on_as_if_nothing_had_happened(table, torn):
    whole = table.read_bytes()
    with table.open("a", encoding="utf-8") as file:
        file.write(torn)
    rewind(table, COLUMNS, 2)
    for step in (2, 3):
        append_row(table, COLUMNS, (step, 1 / (step + 3)))
    assert table.read_bytes() == whole
    assert [path.name for path in table.parent.iterdir()] == ["table.csv"]


def test_rewound_to_the_start_it_is_gone(table):
    rewind(table, COLUMNS, 0)
    rewind(table, COLUMNS, 0)
    assert not table.exists()


def test_a_table_that_lacks_lines_is_named(table):
    with pytest.raises(ValueError, match="table.csv: expected 9 lines below the head, found 4"):
        rewind(table, COLUMNS, 9)


def test_a_table_of_another_version_is_named(table):
    with pytest.raises(
        ValueError, match="table.csv: expected the columns step,loss,norm, found step,loss; it is"
    ):
        rewind(table, (*COLUMNS, "norm"), 2)


def test_a_column_for_each_structure():
    assert history_columns(STRUCTURES) == (*HISTORY, "left lung", "right lung", "trachea")
    assert validation_columns(("trachea", "label 6")) == ("step", "trachea", "label 6")
