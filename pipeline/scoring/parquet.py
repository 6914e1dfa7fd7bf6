"""Write columns as a Parquet file. The only module that imports pyarrow, which is optional."""

import io
from collections.abc import Mapping
from typing import Any

import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray


def parquet_bytes(columns: Mapping[str, NDArray[Any]]) -> bytes:
    """A Parquet file of columns, each (n_rows,)."""
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(dict(columns)), buffer)
    return buffer.getvalue()
