"""A user's own interactions in a pandas or polars frame as a data set."""

from typing import Any, Literal

import pyarrow as pa

from .base import BipartiteDataset, Interactions, Transform
from .columns import Columns, IdKind
from .errors import DatasetError, shown
from .interaction_log import Repeats, Rules
from .layouts import DEFAULT_COLUMNS


class InteractionTable(BipartiteDataset):
    r"""Interactions in a frame: pandas, polars, or another that narwhals knows.

    A row is an interaction. What happens to them, the options, checks and errors are those of
    :class:`InteractionFile`; columns of the type string, object or category count as typed text.
    Nothing is written: the graph lives in memory.

    Args:
        frame: The interactions, or those of training if `test_frame` is given.
        user_col: As in :class:`InteractionFile`, and so the rest.
        item_col: As there.
        time_col: As there.
        rating_col: As there.
        min_rating: As there.
        core: As there.
        split: As there.
        valid_frame: The validation interactions, in the form of `frame`; goes with `test_frame`.
        test_frame: The test interactions, in the form of `frame`.
        split_seed: As in :class:`InteractionFile`.
        ids: As there.
        drop_missing: As there.
        repeats: As there.
        drop_cold: As there.
        transform: As in :class:`BipartiteDataset`.
        pre_transform: As there.

    Raises:
        DatasetError: If a frame is bad, options don't go together, or too little is left.

    Example:
        >>> import pandas
        >>> from pyg_lth.datasets import InteractionTable
        >>> rows = [(user, song) for user in ("ann", "ben", "cleo") for song in range(10)]
        >>> frame = pandas.DataFrame(rows, columns=["user", "song"])
        >>> InteractionTable(frame, user_col="user", item_col="song").user_ids.tolist()
        ['ann', 'ben', 'cleo']
    """

    name = "frame"
    title = "interactions from a frame"
    licence = "as the frame's owner says"
    citation = "as the frame's owner says"
    source = "a frame in memory"

    def __init__(
        self,
        frame: Any,
        user_col: str | None = None,
        item_col: str | None = None,
        time_col: str | None = None,
        rating_col: str | None = None,
        min_rating: float | None = None,
        core: int | None = None,
        split: Literal["random", "last"] | None = None,
        valid_frame: Any = None,
        test_frame: Any = None,
        split_seed: int | None = None,
        ids: IdKind | None = None,
        drop_missing: bool | None = None,
        repeats: Repeats | None = None,
        drop_cold: bool | None = None,
        transform: Transform | None = None,
        pre_transform: Transform | None = None,
    ) -> None:
        rules = Rules.checked(
            self.name,
            DEFAULT_COLUMNS[False],
            user_col=user_col,
            item_col=item_col,
            time_col=time_col,
            rating_col=rating_col,
            ids=ids,
            drop_missing=drop_missing,
            min_rating=min_rating,
            core=core,
            split=split,
            split_seed=split_seed,
            repeats=repeats,
            drop_cold=drop_cold,
            is_given=test_frame is not None,
        )
        if valid_frame is not None and test_frame is None:
            raise DatasetError(f"{self.name}: `valid_frame` needs `test_frame`")
        frames = {"frame": frame, "valid_frame": valid_frame, "test_frame": test_frame}
        logs = {
            name: rules.read(columns_of(given, name, rules.columns))
            for name, given in frames.items()
            if given is not None
        }
        if test_frame is None:
            self._interactions = rules.divide(logs["frame"])
        else:
            self._interactions = rules.assemble(
                logs["frame"], logs.get("valid_frame"), logs["test_frame"]
            )
        super().__init__(None, transform, pre_transform)

    @property
    def raw_file_names(self) -> list[str]:
        """None: nothing lies in a file."""
        return []

    @property
    def processed_file_names(self) -> list[str]:
        """None: nothing is written."""
        return []

    def _download(self) -> None:
        """There is nothing to fetch."""

    def _process(self) -> None:
        """There is nothing to store."""

    def _open(self) -> None:
        found = self._interactions
        self._hold(found.to_graph(self.name), found.notes)

    def read(self) -> Interactions:
        """Returns the interactions, which were read when the data set was made."""
        return self._interactions

    def _ids(self, file: int, number: int) -> Any:
        return (self._interactions.user_ids, self._interactions.item_ids)[file - 1]


def columns_of(frame: Any, name: str, columns: list[str]) -> Columns:
    """Takes columns of a frame.

    Args:
        frame: The frame.
        name: What the errors call it.
        columns: The names of the columns.

    Raises:
        DatasetError: If it is no frame, lacks a column, or a column holds values of several types.
    """
    import narwhals

    try:
        table = narwhals.from_native(frame, eager_only=True)
    except TypeError as error:
        raise DatasetError(
            f"{name}: {shown(type(frame).__name__)} is no frame; give one of pandas or polars"
        ) from error
    names = [str(column) for column in table.columns]
    for column in columns:
        if names.count(column) != 1:
            what = "two columns" if column in names else "no column"
            raise DatasetError(f"{name}: {what} {column!r}; name one of {', '.join(names[:20])}")
    arrays = {column: _array(table[column], name, column) for column in columns}
    return Columns(name, arrays, lambda row: f"row {row + 1} (position {row})", columns)


def _array(series: Any, name: str, column: str) -> pa.Array:
    try:
        return series.to_arrow()
    except (pa.ArrowException, TypeError, ValueError, OverflowError, NotImplementedError) as error:
        values = series.to_list()
        first = next((value for value in values if value is not None and value == value), None)
        others = (row for row, value in enumerate(values) if type(value) is not type(first))
        row = next(others, 0)
        raise DatasetError(
            f"{name}, row {row + 1} (position {row}): {shown(values[row])} in column {column!r} "
            f"cannot be stored beside others such as {shown(first)}; use one type"
        ) from error
