"""Reads an Arrow file into small batches that are right: `python arrow_batches.py JSON`, for `main`.

The batches go to standard output as an Arrow stream, and what became of them, at last, to the file `report`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

MOST_ROWS = 65_536
SIZE = 8 * 1024**2
"""Rows and bytes of a batch that is written."""
HELD = 1024**3
RATIO = 200
"""Bytes that any file may hold, and a larger one times its own size: batches of nothing have no end."""


DIGITS = 38
"""Of the longest DECIMAL."""


def main(source: str, is_stream: bool, max_columns: int, memory: int, is_counting: bool) -> dict[str, Any]:
    """Write the batches of the file `source`, or only count their rows; returns how many those are."""
    # The file is mapped, and may be larger than that.
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    import pyarrow  # noqa: PLC0415  under the limit

    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # the others reserve more than they need
    try:
        with pyarrow.memory_map(source) as file:
            options = pyarrow.ipc.IpcReadOptions(use_threads=False)
            if is_stream:
                reader = pyarrow.ipc.open_stream(file, options=options)
                batches = iter(reader)
            else:
                reader = pyarrow.ipc.open_file(file, options=options)
                batches = map(reader.get_batch, range(reader.num_record_batches))
            if len(reader.schema) > max_columns:
                return {"error": f"has {len(reader.schema):,} columns, but the limit is {max_columns:,}"}
            # Without metadata: what that says a type means, not every reader knows.
            schema = pyarrow.schema([(each.name, _readable(each.type)) for each in reader.schema])
            pieces = _pieces(batches, schema, max(HELD, RATIO * os.stat(source).st_size))  # noqa: PTH116
            rows = sum(piece.num_rows for piece in pieces) if is_counting else _written(pieces, schema)
            return {"rows": rows}
    except MemoryError:
        return {"error": f"has a batch that needs more than {memory // 1024**2:,} MB: write smaller ones"}
    except BrokenPipeError:
        return {"rows": -1}  # nobody listens any more, and knows why
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, KeyError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        return {"error": f"can't be read as Arrow: {reason or type(error).__name__}"}
    except RuntimeError as error:
        return {"error": str(error)}


def _written(pieces: Iterator[pyarrow.RecordBatch], schema: pyarrow.Schema) -> int:
    import pyarrow  # noqa: PLC0415

    rows = 0
    with pyarrow.ipc.new_stream(sys.stdout.buffer, schema) as writer:
        for piece in pieces:
            writer.write_batch(piece)
            rows += piece.num_rows
    sys.stdout.buffer.flush()
    return rows


def _pieces(
    batches: Iterator[pyarrow.RecordBatch], schema: pyarrow.Schema, most: int
) -> Iterator[pyarrow.RecordBatch]:
    """Yield the rows of batches, checked, in few at a time. Raises `RuntimeError` past so many bytes."""
    import pyarrow  # noqa: PLC0415

    held = 0
    for batch in batches:
        batch.validate(full=True)  # who reads these bytes next trusts every offset in them
        size = max(1, batch.get_total_buffer_size())
        rows = max(1, min(MOST_ROWS, batch.num_rows * SIZE // size))
        for start in range(0, batch.num_rows, rows):
            columns = map(_cast, batch.slice(start, rows).columns, schema.types)
            piece = pyarrow.RecordBatch.from_arrays([*columns], schema=schema)
            held += max(piece.nbytes, piece.num_rows)
            if held > most:
                raise RuntimeError(f"holds more than 1 GiB, and more than {RATIO} times its own size")
            yield piece


def _cast(column: pyarrow.Array, kind: pyarrow.DataType) -> pyarrow.Array:
    import pyarrow.compute  # noqa: PLC0415

    if pyarrow.types.is_run_end_encoded(column.type):
        column = pyarrow.compute.run_end_decode(column)
    if isinstance(column, pyarrow.ExtensionArray) and column.type != kind:
        column = column.storage
    return column if column.type == kind else column.cast(kind)


def _readable(kind: pyarrow.DataType) -> pyarrow.DataType:  # noqa: PLR0911, PLR0912  one for each kind of type
    """A type that DuckDB reads and that holds the same values, those of a few rows apart from all others."""
    import pyarrow  # noqa: PLC0415

    types = pyarrow.types
    if types.is_null(kind):
        return pyarrow.string()
    if types.is_float16(kind):
        return pyarrow.float32()
    if types.is_decimal(kind):
        is_plain = 0 <= kind.scale <= kind.precision <= DIGITS
        return pyarrow.decimal128(kind.precision, kind.scale) if is_plain else pyarrow.string()
    if types.is_string_view(kind):
        return pyarrow.large_string()
    if types.is_binary_view(kind):
        return pyarrow.large_binary()
    if types.is_run_end_encoded(kind):
        return _readable(kind.value_type)
    if types.is_dictionary(kind):
        return kind if (value := _readable(kind.value_type)) == kind.value_type else value
    if isinstance(kind, pyarrow.BaseExtensionType):
        is_known = isinstance(kind, (pyarrow.UuidType, pyarrow.JsonType, pyarrow.Bool8Type))
        return kind if is_known else _readable(kind.storage_type)
    if types.is_struct(kind):
        return pyarrow.struct([(each.name, _readable(each.type)) for each in kind])
    if types.is_map(kind):
        return pyarrow.map_(_readable(kind.key_type), _readable(kind.item_type))
    if types.is_fixed_size_list(kind):
        return pyarrow.list_(_readable(kind.value_type), kind.list_size)
    if types.is_union(kind) and kind.mode == "dense":
        raise RuntimeError("has a dense union, which can't be read: write it as a sparse one")
    for is_list, made in (
        (types.is_list, pyarrow.list_),
        (types.is_large_list, pyarrow.large_list),
        (types.is_list_view, pyarrow.list_view),
        (types.is_large_list_view, pyarrow.large_list_view),
    ):
        if is_list(kind):
            return made(_readable(kind.value_type))
    return kind


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    report = arguments.pop("report")
    found = main(**arguments)
    with open(report, "w", encoding="utf-8") as file:  # noqa: PTH123  loads nothing more
        json.dump(found, file)
