import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_lth.errors import InputError
from pyg_lth.tickets import CompactTable
from pyg_lth.tickets.places import FORMS, form_bytes
from pyg_lth.tickets.quantization import VALUES

HEADER = 4096


def random_table(rows, dim, density, seed=0):
    generator = np.random.default_rng(seed)
    table = generator.standard_normal((rows, dim)).astype(np.float32)
    table[generator.random(table.shape) >= density] = 0
    return table


def naive_bytes(table, form, values):
    """The arithmetic of the format's page, entry by entry."""
    rows, dim = table.shape
    bits = {"float32": 32, "float16": 16, "bfloat16": 16, "int8": 8, "int4": 4}[values]
    counts = [int(np.count_nonzero(row)) for row in table]
    used = [column for column in range(dim) if table[:, column].any()]
    width = {"dense": dim, "first-columns": used[-1] + 1 if used else 1}
    number = rows * width[form] if form in width else sum(counts)
    scaled = rows if form in width else sum(count > 0 for count in counts)
    scales = 2 * scaled if values.startswith("int") else 0
    places = {
        "bitmap": -(-rows * dim // 8),
        "columns": rows * (1 if dim < 256 else 2) + number * (1 if dim <= 256 else 2),
    }
    return places.get(form, 0) + -(-number * bits // 8) + scales


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize(
    ("rows", "dim", "density"), [(1, 1, 1), (7, 5, 0.4), (9, 8, 0), (5, 300, 0.1), (3, 256, 1)]
)
def test_a_saved_table_is_the_table(tmp_path, form, values, rows, dim, density):
    table = random_table(rows, dim, density)
    compact = CompactTable.from_dense(table, values=values, form=form)
    assert compact.nbytes == naive_bytes(table, form, values)
    compact.save(tmp_path / "table")
    found = CompactTable.load(tmp_path / "table")
    assert (tmp_path / "table").stat().st_size <= naive_bytes(table, form, values) + HEADER
    dense = found.to_dense()
    np.testing.assert_array_equal(dense, compact.to_dense())
    # Half a step of rounding, and the step itself is up to 1/128 larger than it need be.
    step = {
        "float32": 0,
        "float16": 2**-11,
        "bfloat16": 2**-8,
        "int8": 0.51 / 127,
        "int4": 0.51 / 7,
    }
    allowed = step[values] * np.abs(table).max(axis=1, keepdims=True, initial=0)
    assert (np.abs(dense - table) <= allowed).all()
    index = [rows - 1, 0, -1, 0]
    np.testing.assert_array_equal(found.rows(index), dense[index])
    np.testing.assert_array_equal(found.rows(slice(1, 3)), dense[1:3])
    rowptr, columns, entries = found.to_csr()
    again = np.zeros_like(dense)
    again[np.repeat(np.arange(rows), np.diff(rowptr)), columns] = entries
    np.testing.assert_array_equal(again, dense)


@given(
    rows=st.integers(1, 20),
    dim=st.integers(1, 20),
    density=st.floats(0, 1),
    values=st.sampled_from(VALUES),
    seed=st.integers(0, 99),
)
@settings(max_examples=50, deadline=None)
def test_the_form_is_the_smallest(rows, dim, density, values, seed):
    table = random_table(rows, dim, density, seed)
    sizes = {form: naive_bytes(table, form, values) for form in FORMS}
    compact = CompactTable.from_dense(table, values=values)
    assert sizes[compact.form] == min(sizes.values()) == compact.nbytes


def test_float32_comes_back_bit_for_bit():
    table = np.array([[-0.0, 0, 1e-45, 3e38], [0, 0, 0, 0]], np.float32)
    for form in FORMS:
        found = CompactTable.from_dense(table, form=form).to_dense()
        assert found.tobytes() == table.tobytes()


def test_entries_of_the_mask_are_stored_even_if_they_are_zero():
    mask = np.array([[True, False], [True, True]])
    compact = CompactTable.from_dense(np.diag([0.0, 2.0]), mask, form="columns")
    assert (compact.stored, compact.density) == (3, 0.75)
    assert compact.counts.tolist() == [1, 2]


@pytest.mark.parametrize("values", ["int8", "int4"])
def test_a_row_of_tiny_values_has_a_scale_of_its_own(values):
    table = np.array([[1e-44, -1e-44], [0, 0], [1e30, 1], [1e-10, -1e-10]], np.float32)
    found = CompactTable.from_dense(table, values=values, form="dense").to_dense()
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[3], table[3], rtol=0.01)
    np.testing.assert_allclose(found[2], [1e30, 0], rtol=0.01)


# Of the 70,839 rows of Gowalla with 64 columns, in bytes.
@pytest.mark.parametrize(
    ("density", "limits"),
    [
        (0.10, {"float32": 2_420_000, "float16": 1_480_000, "int8": 1_160_000}),
        (0.05, {"float32": 1_250_000, "float16": 780_000, "int8": 700_000}),
        (0.01, {"float32": 320_000, "float16": 220_000, "int8": 280_000}),
    ],
)
def test_sizes_at_the_scale_of_gowalla(tmp_path, density, limits):
    rows, dim = 70_839, 64
    number = int(rows * dim * density)
    table = np.zeros(rows * dim, np.float32)
    # The least favourable places: as many rows as can be have an entry, and so a scale.
    place = np.arange(number)
    table[place % rows * dim + place // rows] = 1 + place
    for values, limit in limits.items():
        table = np.minimum(table, 60_000)
        compact = CompactTable.from_dense(table.reshape(rows, dim), values=values, form="columns")
        compact.save(tmp_path / values)
        size = (tmp_path / values).stat().st_size
        counts = compact.counts.astype(np.int64)
        least = form_bytes("columns", counts, dim, dim, values)
        assert compact.stored == number
        assert size <= limit
        assert size <= 1.03 * least + 4096


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize(("dim", "density"), [(5, 0.4), (300, 0.1), (8, 0)])
def test_rows_are_multiplied_as_if_they_were_dense(form, values, dim, density):
    compact = CompactTable.from_dense(random_table(9, dim, density), values=values, form=form)
    vector = np.random.default_rng(1).standard_normal(dim).astype(np.float32)
    for rows in (slice(0, 9), slice(3, 8), slice(4, 4)):
        naive = [sum(a * b for a, b in zip(row, vector, strict=True)) for row in compact.rows(rows)]
        np.testing.assert_allclose(compact.dot(vector, rows), naive, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("table", "given", "message"),
    [
        (np.full((2, 2), np.nan), {}, "not finite"),
        (np.full((2, 2), 1e6), {"values": "float16"}, "too large for float16"),
        (np.full((2, 2), 3.4e38), {"values": "bfloat16"}, "too large for bfloat16"),
        (np.full((2, 2), np.finfo(np.float32).max), {"values": "int8"}, "too large for int8"),
        (np.ones((2, 2)), {"values": "int2"}, "'int2' is none of float32"),
        (np.ones((2, 2)), {"form": "sparse"}, "'sparse' is none of dense"),
        (np.ones(3), {}, "two dimensions"),
        (np.ones((0, 3)), {}, "cannot be stored"),
        (np.ones((1, 65_537)), {}, "cannot be stored"),
        (np.ones((2, 2)), {"mask": np.eye(2)}, "stands outside"),
        (np.ones((2, 2)), {"mask": np.ones((2, 1))}, "the mask is not that of the table"),
    ],
)
def test_what_cannot_be_stored_is_refused(table, given, message):
    with pytest.raises(InputError, match=message):
        CompactTable.from_dense(table, **given)


def test_a_row_that_is_not_there_is_an_index_error():
    with pytest.raises(IndexError, match="outside the 2"):
        CompactTable.from_dense(np.ones((2, 2))).rows([2])
