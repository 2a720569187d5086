"""Tables of numbers: what is read, and one clear line for each fault."""

import csv

import numpy as np
import pytest
import torch

from scoresde.data import DataSource, has_test_split, load_dataset
from scoresde.data.arrays import is_array_file
from scoresde.data.tables import read_table


@pytest.fixture
def table(tmp_path):
    """table(content, name): the path of a file with this content."""

    def write(content, name="t.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(("delimiter", "name"), [(",", "t.csv"), (";", "t.CSV"), ("\t", "t.tsv")])
def test_numbers_written_by_pythons_csv_module_come_back_exactly(delimiter, name, tmp_path):
    """The writer is not ours; `repr` of a float gives the same float when it is read."""
    x = np.random.default_rng(0).standard_normal((50, 3)) * np.array([1e-30, 1, 1e20])
    names = ["a", "the, b; and a tab\t", 'says "c"']
    path = tmp_path / name
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(names)
        writer.writerows(x.tolist())
    found = read_table(path)
    assert found.names == tuple(name.strip() for name in names)
    assert np.array_equal(found.x, x)
    data = load_dataset(path)
    assert data.spec.shape == (3,)
    assert data.spec.feature_names == found.names
    assert torch.equal(data.x, torch.from_numpy(x.astype(np.float32)))


@pytest.mark.parametrize(
    ("content", "names", "x"),
    [
        ("1,2\n3,4", None, [[1, 2], [3, 4]]),
        ("\ufeffa,b\r\n1,2\r\n\r\n3,4\r\n", ("a", "b"), [[1, 2], [3, 4]]),
        ("# a,b\n1,2\n", ("a", "b"), [[1, 2]]),  # np.savetxt
        ('"a;b",c\n"1", 2 \n', ("a;b", "c"), [[1, 2]]),
        ("a\n1\n-.5e1\n", ("a",), [[1], [-5]]),
        ("id,0,1\n1,2,3\n", ("id", "0", "1"), [[1, 2, 3]]),
        ("0,1,2\n7,8,9\n", ("0", "1", "2"), [[7, 8, 9]]),  # pandas without names
        ("0,1\n7,8\n", None, [[0, 1], [7, 8]]),
    ],
)
def test_forms_of_tables(table, content, names, x):
    found = read_table(table(content))
    assert found.names == names
    assert found.x.tolist() == x
    assert found.labels is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n\n3,x\n", r"row 2 \(line 4\), 'b': 'x' is not a finite number"),
        ("a,b\n1,\n", r"row 1 \(line 2\), 'b': the cell is empty"),
        ("a,b\n,\n", r"row 1 \(line 2\), 'a': the cell is empty"),
        ("a,b\n1,2\n3,NaN\n", r"row 2 \(line 3\), 'b': 'NaN' is not a finite number"),
        ("1,2\n-inf,2\n", r"row 2 \(line 2\), column 1: '-inf' is not a finite number"),
        ("1,2\n1,1e999\n", r"row 2 \(line 2\), column 2: '1e999' is too large"),
        ("a,b\n1_0,2\n", r"'a': '1_0' is not a finite number"),
        ("a,b\n1,2\n3,4,5\n", r"row 2 \(line 3\) has 3 cells, and the first line 2"),
        ("a,b\n1,2,\n3,4,\n", r"row 1 \(line 2\) has 3 cells, and the first line 2"),
        # A first row with a missing number must not be lost as a header.
        ("1,?,3\n4,5,6\n", r"row 1 \(line 1\), column 2: '\?' is not a finite number"),
        ("1,5;2\n3;4\n", r"row 1 \(line 1\), column 1: '1,5' is not a finite number"),
        (",a\n0,1\n", "column 1 has no name in the header; pandas writes .* index=False"),
        ("a,\n0,1\n", "column 2 has no name in the header$"),
        ("a, a\n1,2\n", "two columns have the name 'a'"),
        ("a,b\n", "has no row of numbers"),
        ("\n", "is empty"),
        (b"a,b\n\xff,1\n", "is not a table in UTF-8"),
        ("a\x1b[2J,b\n1,x\x1b\n", r"'b': 'x\\\\x1b' is not a finite number"),
        ("a,b\n1," + 5000 * "y", r"'b': '" + 60 * "y" + "…' is not a finite number"),
    ],
)
def test_faults_are_named_by_row_and_column(table, content, message):
    path = table(content)
    with pytest.raises(ValueError, match=message) as error:
        read_table(path)
    assert "\n" not in str(error.value)


def test_a_column_of_text_or_integers_is_a_class_and_one_of_floats_a_vector(table):
    path = table("x,kind,y\n1,dog,2\n3,cat,4\n5,dog,6\n")
    data = load_dataset(DataSource(path, labels="kind"))
    assert data.x.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert data.spec.class_names == ("cat", "dog")
    assert data.labels.tolist() == [1, 0, 1]
    without = load_dataset(DataSource(path, labels="kind"), labels=False)
    assert without.labels is None
    assert torch.equal(without.x, data.x)
    path = table("k,x\n1,2\n0,4\n")
    assert load_dataset(DataSource(path, labels="k")).class_labels.tolist() == [1, 0]
    path = table("k,x\n1.5,2\n0,4\n")
    data = load_dataset(DataSource(path, labels="k"))
    assert (data.spec.vector, data.labels.tolist()) == (1, [[1.5], [0]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x,kind\n1,\n", r"row 1 \(line 2\), 'kind': the cell is empty"),
        ("kind,x\na,?\n", r"row 1 \(line 2\), 'x': '\?' is not a finite number"),
        ("x,y\n1,2\n", "has no column 'kind' of labels; it has 'x', 'y'"),
        ("1,2\n", "labels = 'kind' needs a header with this name"),
        ("kind\n1\n", "has no column but that of the labels, 'kind'"),
    ],
)
def test_faults_of_labels(table, content, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(DataSource(table(content), labels="kind"))


def test_only_tables_have_columns_of_labels(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 2)))
    for name in (tmp_path / "x.npy", tmp_path, "digits", "moons"):
        with pytest.raises(ValueError, match="labels = 'k' names a column of a"):
            load_dataset(DataSource(name, labels="k"))


def test_a_table_is_a_train_split_and_may_hold_levels(table):
    path = table("a,b\n0,3\n1,2\n")
    assert is_array_file(path)
    assert not has_test_split(path)
    with pytest.raises(ValueError, match="has no test split"):
        load_dataset(path, "test")
    data = load_dataset(DataSource(path, levels=4))
    assert (data.spec.levels, data.x.dtype) == (4, torch.uint8)
    with pytest.raises(ValueError, match=r"levels must lie in 0\.\.2"):
        load_dataset(DataSource(path, levels=3))
