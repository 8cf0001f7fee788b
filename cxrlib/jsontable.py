"""DataFrames, NumPy values and NaN in JSON, and back."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd


def to_native(value):
    """Turn NumPy and pandas values into what JSON knows; NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(key): to_native(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | np.ndarray | pd.Index):
        return [to_native(item) for item in value]
    if isinstance(value, np.generic):
        return to_native(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return None if value is pd.NA or value is pd.NaT else str(value)


def pack_all(tables: dict | None) -> dict:
    """Turn DataFrames, by name, into what :func:`unpack_all` reads back."""
    return {name: pack(table) for name, table in (tables or {}).items()}


def unpack_all(content: dict) -> dict[str, pd.DataFrame]:
    """Turn what :func:`pack_all` made into DataFrames again."""
    return {name: unpack(table) for name, table in content.items()}


def _flat(labels: pd.Index) -> list:
    """Labels as JSON can hold them: those of a MultiIndex joined."""
    if labels.nlevels == 1:
        return list(labels)
    return [" / ".join(str(part) for part in label if str(part)) for label in labels]


def pack(table: pd.DataFrame) -> dict:
    """Turn a DataFrame into a dict (pandas' orient='split', and the index's name)."""
    content = {
        "index_name": table.index.name,
        "index": _flat(table.index),
        "columns": _flat(table.columns),
        "data": [list(row) for row in table.astype(object).itertuples(index=False, name=None)],
    }
    return to_native(content)


def unpack(content: dict) -> pd.DataFrame:
    """Turn what :func:`pack` made into a DataFrame; None is NaN among numbers."""
    index = pd.Index(content["index"], name=content["index_name"])
    table = pd.DataFrame(content["data"], index=index, columns=content["columns"], dtype=object)
    for place in range(table.shape[1]):
        column = table.iloc[:, place]
        known = {type(value) for value in column if value is not None}
        if known == {bool} and not column.isna().any():
            table.isetitem(place, column.astype(bool))
        elif known <= {int, float}:
            table.isetitem(place, pd.to_numeric(column))
    return table
