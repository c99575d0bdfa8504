import numpy as np
import pytest
import torch

from pyg_lth.tickets import CompactTable, native
from pyg_lth.tickets.embedding import TicketEmbedding
from pyg_lth.tickets.places import FORMS
from pyg_lth.tickets.quantization import VALUES


@pytest.fixture(params=["native", "torch"])
def way(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.library() is None:
        pytest.skip("the kernels are not compiled here")


def build(values="float32", form=None, dim=5, density=0.4):
    generator = np.random.default_rng(0)
    table = generator.standard_normal((40, dim)).astype(np.float32)
    table[generator.random(table.shape) >= density] = 0
    table[:, dim - 1] = 0
    return CompactTable.from_dense(table, values=values, form=form)


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("dim", "density"), [(5, 0.4), (300, 0.05), (256, 1), (3, 0)])
def test_rows_are_those_of_the_table(way, values, form, dim, density):
    table = build(values, form, dim, density)
    embedding = TicketEmbedding(table)
    index = torch.tensor([[3, 39], [0, 3]])
    found = embedding(index)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found, table.to_dense()[index])
    assert embedding(index[:0]).shape == (0, 2, dim)


def test_many_rows_are_those_of_the_table(way):
    table = build()
    index = torch.randint(40, (3000,))
    np.testing.assert_array_equal(TicketEmbedding(table)(index), table.to_dense()[index])


def test_it_stands_where_an_embedding_stood(way):
    table = build("int8")
    dense = torch.nn.Embedding.from_pretrained(torch.from_numpy(table.to_dense()))
    model = torch.nn.Sequential(dense, torch.nn.Linear(5, 1))
    wanted = model(torch.arange(40))
    model[0] = TicketEmbedding(table)
    assert torch.equal(model(torch.arange(40)), wanted)
    assert [name for name, _ in model.named_parameters()] == ["1.weight", "1.bias"]


def test_the_state_is_that_of_the_docs(way):
    for values, form, names in (
        ("float32", "columns", {"values", "offsets", "columns"}),
        ("int4", "bitmap", {"values", "offsets", "columns", "scales"}),
        ("int8", "dense", {"values", "scales"}),
    ):
        table = build(values, form)
        embedding = TicketEmbedding(table)
        assert set(embedding.state_dict()) == names
        other = TicketEmbedding(table)
        other.values.zero_()
        other.load_state_dict(embedding.state_dict())
        assert torch.equal(other(torch.arange(40)), embedding(torch.arange(40)))


@pytest.mark.parametrize("index", [-1, 40])
def test_a_row_that_is_not_there_is_an_index_error(way, index):
    with pytest.raises(IndexError):
        TicketEmbedding(build(form="columns"))(torch.tensor([index]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("form", FORMS)
def test_rows_on_a_gpu_are_those_of_the_table(values, form):
    table = build(values, form)
    index = torch.randint(40, (100,), device="cuda")
    found = TicketEmbedding(table).cuda()(index)
    np.testing.assert_array_equal(found.cpu(), table.to_dense()[index.cpu()])
