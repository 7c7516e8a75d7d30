"""The Python edge of hesspect: reading and drawing results, preparing models.

    import hesspect
    result = hesspect.read("result.h5")
    result.eigenvalues, result.trace, result.density

The computation itself is the C++ program `hesspect`. `python -m hesspect.plot` draws a result,
`python -m hesspect.workloads` makes three real models to try it on.
"""

from hesspect.data import DataError, verify_data, write_data
from hesspect.result import Result, ResultError, read

__all__ = ["DataError", "Result", "ResultError", "read", "verify_data", "write_data"]
__version__ = "0.1.0"
