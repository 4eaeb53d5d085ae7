"""A sheet of an Excel workbook (.xlsx, .xlsm) as a table.

A workbook is a zip file of XML, and its reader unpacks it without a limit and lays the sheet out as a rectangle from the first cell to
the last. So what it gets is a copy that was unpacked here within limits, of sheets whose rectangle is of a sane size.
"""

from __future__ import annotations

import io
import re
import zipfile
from typing import IO, Any

import python_calamine as calamine

from finsight.adapters.compressed import BROKEN, FREE, MAX_RATIO, one_line
from finsight.adapters.corpus_files import SourceFile
from finsight.adapters.parquet_tables import unpack
from finsight.adapters.table_formats import Layout, Malformed, Rows, shorten
from finsight.errors import DataError

LARGEST = 256 << 20
"""Bytes of a workbook, packed and unpacked."""
CELLS = 64_000_000
"""Cells of a sheet's rectangle, as an upper bound that is up to four times the truth; a cell takes 32 bytes."""
_ADDRESS = re.compile(rb"""\br\s*=\s*["']([A-Za-z]{0,3})([0-9]{1,9})["']""")
_ROW, _CELL = re.compile(rb"<(?:\w+:)?row[\s/>]"), re.compile(rb"<(?:\w+:)?c[\s/>]")


def rows(source: SourceFile, layout: Layout) -> Rows:
    """See :func:`finsight.adapters.table_formats.rows`."""
    with source.open() as file:
        start, cells = _read(source.place, _checked(source.place, unpack(source, file, LARGEST)), layout)
    names: list[Any] = []
    for number, row in enumerate(cells, start=start):
        if all(value == "" for value in row):
            continue
        if not names:
            names = [str(value) if layout.header else str(i) for i, value in enumerate(row)]
            layout.check(source.place, [name or f"column {i}" for i, name in enumerate(names)], " or .sheet")
            if layout.header:
                continue
            names = list(range(len(row)))
        values: dict[Any, Any] = {name: None if value == "" else value for name, value in zip(names, row, strict=True) if name != ""}
        if stray := [value for name, value in zip(names, row, strict=True) if name == "" and value != ""]:
            yield number, Malformed(f"{len(stray)} cells in columns without a name", shorten(repr(row)))
            continue
        for column in layout.numbers():
            values[column] = None if row[column] == "" else row[column]
        yield number, values
    if not names:
        layout.check(source.place, [], " or .sheet")


def _read(place: str, content: IO[bytes], layout: Layout) -> tuple[int, list[list[Any]]]:
    """The number of the first row in use, and the rows from it on."""
    wanted, sheets = layout.sheet, list[str]()
    try:
        book = calamine.CalamineWorkbook.from_filelike(content)
        sheets = book.sheet_names
        if sheets and (wanted is None or wanted in sheets):
            sheet = book.get_sheet_by_name(wanted or sheets[0])
            return (sheet.start or (0, 0))[0] + 1, sheet.to_python(skip_empty_area=True)
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001  # a panic of the Rust library is a BaseException
        raise DataError(
            f"{place}: not a workbook that can be read ({one_line(error)}); save it again as .xlsx, or as .csv in UTF-8"
        ) from None
    raise DataError(f"{place}: no sheet {wanted!r} among {shorten(str(sheets), 300)}; set corpora.{layout.corpus}.sheet in params.yaml")


def _checked(place: str, packed: io.BytesIO) -> io.BytesIO:
    """A copy with every member unpacked."""
    allowed = min(LARGEST, max(FREE, MAX_RATIO * packed.getbuffer().nbytes))
    copy, total = io.BytesIO(), 0
    try:
        with zipfile.ZipFile(packed) as archive, zipfile.ZipFile(copy, "w") as unpacked:
            names = archive.namelist()
            if len(set(names)) < len(names):
                raise DataError(f"{place}: not a workbook that can be read (a part stands in it twice); save it again as .xlsx")
            for info in archive.infolist():
                if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise DataError(f"{place}: encrypted or oddly packed; save it again without a password, or as .csv in UTF-8")
                with archive.open(info) as member:
                    content = member.read(allowed - total + 1)
                total += len(content)
                if total > allowed:
                    raise DataError(f"{place}: unpacks to more than {allowed >> 20} MiB, which is too large for a sheet; save it as .csv")
                if b"<" in content[:200] and _bound(content) > CELLS:
                    raise DataError(
                        f"{place}: has a sheet with cells so far apart that its rectangle would fill the memory; save it as .csv"
                    )
                unpacked.writestr(zipfile.ZipInfo(info.filename), content)
    except BROKEN as error:
        raise DataError(f"{place}: not a whole .xlsx workbook ({one_line(error)}); save it again as .xlsx, or as .csv in UTF-8") from None
    copy.seek(0)
    return copy


def _bound(xml: bytes) -> int:
    """No fewer cells than the rectangle of a sheet has, whether its rows and cells state their places or follow each other."""
    last_row = last_column = 0
    for letters, digits in _ADDRESS.findall(xml):
        last_row = max(last_row, int(digits))
        column = 0
        for letter in letters.upper():
            column = column * 26 + letter - 64
        last_column = max(last_column, column)
    pieces = _ROW.split(xml)
    return (last_row + len(pieces)) * (last_column + max(len(_CELL.findall(piece)) for piece in pieces))
