"""Learning which values a column has while it is read in pieces."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


class Distinct:
    """The distinct values of a column, numbered as they first occur.

    Each value is kept once, however often it occurs; missing ones count as a value too.

    Args:
        kind: The type of the column: text, whole or floating numbers.
    """

    def __init__(self, kind: pa.DataType) -> None:
        # Texts of many rows may be more than offsets of 32 bits reach.
        self._kind = pa.large_string() if pa.types.is_string(kind) else kind
        self.values = pa.array([], self._kind)
        self._firsts: list[npt.NDArray[np.int64]] = []

    def learn(self, piece: pa.Array, row: int) -> npt.NDArray[np.int32]:
        """Takes the next piece of the column.

        Args:
            piece: Its values.
            row: The row that it begins with.

        Returns:
            The number of each value, int32 of the length of the piece.
        """
        encoded = piece.cast(self._kind).dictionary_encode(null_encoding="encode")
        codes = encoded.indices.to_numpy()
        numbers = self.find(encoded.dictionary)
        new = np.flatnonzero(numbers < 0)
        numbers[new] = np.arange(len(self.values), len(self.values) + new.size)
        # Its own numbers ascend as they first occur, too.
        latest = np.maximum.accumulate(codes)
        self._firsts.append(row + np.flatnonzero(np.diff(latest, prepend=-1))[new])
        self.values = pa.concat_arrays([self.values, encoded.dictionary.take(pa.array(new))])
        learnt: npt.NDArray[np.int32] = numbers[codes]
        return learnt

    def find(self, piece: pa.Array) -> npt.NDArray[np.int32]:
        """Returns the numbers of values, -1 for those not learnt, int32."""
        found = pc.index_in(piece.cast(self._kind), value_set=self.values).fill_null(-1)
        # Arrow's own memory is not for writing.
        return np.array(found.to_numpy())

    def first_row(self, number: int) -> int:
        """Returns the row in which a value occurs first."""
        return int(np.concatenate(self._firsts)[number])
