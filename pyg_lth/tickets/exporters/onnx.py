"""The whole recommender as an ONNX model: users in, the best unseen items out."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from pyg_lth.errors import InputError
from pyg_lth.tickets.ticket import Ticket
from pyg_lth.whole_files import replacing

# Of 2022: what reads ONNX at all reads these.
OPSET, IR = 17, 8

# What a file of protocol buffers can hold, less something for what is not a table.
BYTES_AT_MOST = (1 << 31) - (1 << 20)

Array = npt.NDArray[Any]


def export(ticket: Ticket, path: Path) -> None:
    """Write the model of :func:`build_model`.

    Raises:
        InputError: If it is too large for ONNX.
    """
    model = build_model(ticket)
    checker.check_model(model, full_check=True)
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def build_model(ticket: Ticket) -> ModelProto:
    """Build the model.

    Its inputs are ``user``, indices of shape ``[n]``, and ``k``, shape ``[1]``, both int64. Its
    outputs ``item`` (ids, integers or text) and ``score`` (float32) have the shape
    ``[n, min(k, items)]``, best first and of equal scores the lower index, without what users had
    in training and validation. Where a user has fewer items left, the score is ``-inf``.
    """
    num_users, num_items = ticket.num_users, ticket.num_items
    rowptr, seen = ticket.seen(slice(0, num_users))
    table, nodes = _table(ticket)
    constants: dict[str, Array] = {
        **table,
        "rowptr": rowptr,
        # One more, so that there is something to take where nobody has seen anything.
        "seen": np.append(seen, num_items).astype(np.int32),
        "no_item": np.array(num_items, np.int32),
        "items": np.array([num_items]),
        "item_ids": np.array(ticket.item_ids.at(np.arange(num_items))),
        "minus_infinity": np.array(-np.inf, np.float32),
        "one_column": np.array([0, 0, 0, 1]),
        "users": np.array([num_users]),
        "rows": np.array([num_users + num_items]),
        **{name: np.array(value) for name, value in (("zero", 0), ("one", 1))},
        **{name: np.array([value]) for name, value in (("axis_0", 0), ("axis_1", 1))},
    }
    if ticket.bias is not None:
        constants["bias"] = ticket.bias.astype(np.float32)
    size = sum(array.nbytes for array in constants.values())
    if size > BYTES_AT_MOST:
        raise InputError(
            f"the model takes {size:,} bytes and a file of ONNX ends at 2 GB: take another format"
        )
    products = "scores" if ticket.bias is None else "products"
    nodes += [
        _node("Slice", "table users rows axis_0", "item_rows"),
        _node("Transpose", "item_rows", "item_columns", perm=[1, 0]),
        _node("Gather", "table user", "user_rows"),
        _node("MatMul", "user_rows item_columns", products),
        *([] if ticket.bias is None else [_node("Add", "products bias", "scores")]),
        # The seen items of each user, filled up to the longest list with an item behind the last.
        _node("Add", "user one", "next"),
        _node("Gather", "rowptr user", "begin"),
        _node("Gather", "rowptr next", "end"),
        _node("Sub", "end begin", "length"),
        _node("Concat", "length axis_0", "length_or_none", axis=0),
        _node("ReduceMax", "length_or_none", "longest", keepdims=0),
        _node("Range", "zero longest one", "place"),
        _node("Unsqueeze", "length axis_1", "length_of_row"),
        _node("Less", "place length_of_row", "there"),
        _node("Unsqueeze", "begin axis_1", "begin_of_row"),
        _node("Add", "begin_of_row place", "anywhere"),
        _node("Where", "there anywhere zero", "at"),
        _node("Gather", "seen at", "candidate"),
        _node("Where", "there candidate no_item", "out"),
        _node("Shape", "out", "shape"),
        _node("Expand", "minus_infinity shape", "update"),
        _node("Pad", "scores one_column", "padded"),
        _node("ScatterElements", "padded out update", "masked", axis=1),
        _node("Slice", "masked axis_0 items axis_1", "unseen"),
        _node("Min", "k items", "length_of_lists"),
        _node("TopK", "unseen length_of_lists", "score index", axis=1),
        _node("Gather", "item_ids index", "item"),
    ]
    id_type = TensorProto.STRING if ticket.item_ids.is_text else TensorProto.INT64
    graph = helper.make_graph(
        nodes,
        "recommend",
        [
            helper.make_tensor_value_info("user", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
        ],
        [
            helper.make_tensor_value_info("item", id_type, ["n", "length"]),
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", "length"]),
        ],
        [_constant(name, array) for name, array in constants.items()],
    )
    return helper.make_model(
        graph,
        producer_name="pyg-lth",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
    )


def _table(ticket: Ticket) -> tuple[dict[str, Array], list[Any]]:
    """What becomes the table of users then items: its entries, or all of it if that is smaller."""
    size = ticket.table.num_rows * ticket.dim
    if ticket.layer_weights is not None or 2 * ticket.table.stored >= size or size >= 1 << 31:
        return {"table": ticket.embedding()[:, : ticket.dim]}, []
    indptr, columns, values = ticket.table.to_csr()
    row = np.repeat(np.arange(ticket.table.num_rows), np.diff(indptr))
    constants = {
        "values": values,
        "places": (row * ticket.dim + columns).astype(np.int32),
        "size": np.array([size]),
        "table_shape": np.array([ticket.table.num_rows, ticket.dim]),
    }
    return constants, [
        _node("ConstantOfShape", "size", "zeros"),
        _node("ScatterElements", "zeros places values", "entries", axis=0),
        _node("Reshape", "entries table_shape", "table"),
    ]


def _node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def _constant(name: str, array: Array) -> TensorProto:
    if array.dtype.kind == "U":
        array = array.astype(object)
    return numpy_helper.from_array(array, name)
