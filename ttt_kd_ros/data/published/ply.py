"""Vertices and triangles of PLY files, as the indoor data sets have them: text or binary, little endian.

Format: Greg Turk, "The PLY Polygon File Format", 1994. A list is that of the three corners of a triangle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "<i2", "int16": "<i2", "ushort": "<u2",
    "uint16": "<u2", "int": "<i4", "int32": "<i4", "uint": "<u4", "uint32": "<u4", "float": "<f4", "float32": "<f4",
    "double": "<f8", "float64": "<f8",
}  # fmt: skip
FORMATS = ("ascii", "binary_little_endian")
COUNT = "count"


@dataclass(frozen=True)
class Element:
    """An element of the header: its name, how many there are and the layout of one."""

    name: str
    count: int
    dtype: np.dtype[Any]


def read_ply(path: Path) -> Mapping[str, NDArray[Any]]:
    """Structured array of each element; a list is a field of three numbers.

    Raises
    ------
    ValueError
        If it is no PLY file, is cut short, or has faces other than triangles.
    OSError
        If it cannot be read.
    """
    data = path.read_bytes()
    head, mark, body = data.partition(b"end_header\n")
    lines = head.decode("ascii", errors="replace").splitlines()
    if not mark or not lines or lines[0].strip() != "ply":
        raise ValueError("no PLY header")
    words = [line.split() for line in lines[1:] if line.strip() and not line.startswith(("comment", "obj_info"))]
    if words[0][0] != "format" or words[0][1] not in FORMATS:
        raise ValueError(f"format is none of {', '.join(FORMATS)}")
    elements = _elements(words[1:])
    arrays = _from_text(elements, body) if words[0][1] == "ascii" else _from_binary(elements, body)
    for array in arrays.values():
        if COUNT in (array.dtype.names or ()) and len(array) and (array[COUNT] != 3).any():
            raise ValueError("has faces that are no triangles")
    return arrays


def _elements(words: list[list[str]]) -> list[Element]:
    elements: list[tuple[str, int, list[tuple[Any, ...]]]] = []
    for line in words:
        if line[0] == "element":
            elements.append((line[1], int(line[2]), []))
        elif line[1] == "list":
            elements[-1][2].extend([(COUNT, TYPES[line[2]]), (line[4], TYPES[line[3]], (3,))])
        else:
            elements[-1][2].append((line[2], TYPES[line[1]]))
    return [Element(name, count, np.dtype(fields)) for name, count, fields in elements]


def _from_binary(elements: list[Element], body: bytes) -> dict[str, NDArray[Any]]:
    arrays, start = {}, 0
    for element in elements:
        arrays[element.name] = np.frombuffer(body, element.dtype, element.count, start)
        start += element.count * element.dtype.itemsize
    return arrays


def _from_text(elements: list[Element], body: bytes) -> dict[str, NDArray[Any]]:
    numbers, arrays, start = np.array(body.split(), dtype=np.float64), {}, 0
    for element in elements:
        fields = [element.dtype.fields[name] for name in element.dtype.names or ()] if element.dtype.fields else []
        widths = [int(np.prod(field[0].shape)) for field in fields]
        stop = start + element.count * sum(widths)
        table, column = numbers[start:stop].reshape(element.count, sum(widths)), 0
        array = np.empty(element.count, element.dtype)
        for name, width in zip(element.dtype.names or (), widths, strict=True):
            array[name] = table[:, column : column + width].reshape(array[name].shape)
            column += width
        arrays[element.name], start = array, stop
    return arrays
