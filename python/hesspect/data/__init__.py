"""Data for hesspect: from loaders, arrays and tables (`write_data`), and from files of text, tables and images (`python -m hesspect data`)."""

from hesspect.data.sources import DataError
from hesspect.data.writer import ArrayInfo, DataFile, sample_rows, verify_data, write_data

__all__ = ["ArrayInfo", "DataError", "DataFile", "sample_rows", "verify_data", "write_data"]
