"""Encode the values of Python, numpy and pandas as JSON, without changing a number or omitting a value.

NaN and the infinities, which JSON cannot represent, become null.
"""

import base64
import re
import sys
from collections.abc import Mapping, Sequence, Set, ValuesView
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import orjson

from cortex_runtime.arrays import is_array, is_scalar

_DEEPEST = 250
"""Levels of lists and objects. orjson stops at 254."""
_TIME = re.compile(rb"T\d\d:\d\d:\d\d")
_LARGE = 8 * 1024
"""Bytes from which on numpy finds times faster than a regular expression."""
_NUMBERS = "?bhilqBHILQefd"
"""Type codes of numpy that orjson supports."""
_ATTOSECONDS = {"W": 604800, "D": 86400, "h": 3600, "m": 60, "s": 1}
_FRACTIONS = {"ms": 3, "us": 6, "ns": 9, "ps": 12, "fs": 15, "as": 18}


class NotSerializable(TypeError):
    """A handler returned a value that JSON cannot represent."""


class TooDeep(NotSerializable):
    """The value has too many levels, or contains itself. A client may cause this, so the response states the limit."""

    MESSAGE = f"the result is nested more than {_DEEPEST} levels deep, which is the limit of a response, or contains itself"


def dumps(value: Any) -> bytes:
    """Return a value as JSON. Raises NotSerializable with the path and the type of the value that cannot be encoded."""
    try:
        data = orjson.dumps(value, default=_default, option=orjson.OPT_SERIALIZE_NUMPY)
        if b"T" not in data or "numpy" not in sys.modules or not _has_times(data):
            return data
        # orjson drops the nanoseconds of numpy's times and encodes NaT as a date.
        del data  # Its memory is used again.
        return orjson.dumps(value, default=_default)
    except TypeError:
        # The slow path: keys that are not strings, integers above 64 bits, and the path of an error.
        plain = _plain(value, (), 0)
    try:
        return orjson.dumps(plain)
    except TypeError as error:
        raise NotSerializable(
            f"the handler returned a {type(value).__name__} that is not JSON: {error}"
        ) from error


def _has_times(data: bytes) -> bool:
    """Return whether JSON has text in the form of a date with a time."""
    if len(data) >= _LARGE:
        codes = sys.modules["numpy"].frombuffer(data, "u1")
        times = (codes[:-8] == ord("T")) & (codes[3:-5] == ord(":")) & (codes[6:-2] == ord(":"))
        if not times.any():
            return False
    return _TIME.search(data) is not None


def _default(value: Any) -> Any:
    """Convert a value that orjson does not support to one that it does. Raises TypeError."""
    if is_array(value):
        return _array(value)
    if is_scalar(value):
        return _scalar(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return {"b64": base64.b64encode(value).decode()}
    pandas = _pandas(value)
    if pandas is not None:
        return _from_pandas(value, pandas)
    if isinstance(value, timedelta):
        return _duration((value.days * 86400 + value.seconds) * 10**6 + value.microseconds, 6)
    if isinstance(value, Decimal):
        return orjson.Fragment(str(value).encode()) if value.is_finite() else None
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping) and not hasattr(value, "multi_items"):
        return dict(value)
    if isinstance(value, Sequence | Set | ValuesView):
        return list(value)
    if hasattr(value, "model_dump") and not isinstance(value, type):
        return value.model_dump()
    if hasattr(value, "__struct_fields__") and not isinstance(value, type):
        # A msgspec.Struct, whose fields may have other names in JSON.
        values = [getattr(value, name) for name in value.__struct_fields__]
        return dict(zip(value.__struct_encode_fields__, values, strict=True))
    # Arrays of other libraries. A type that has no list of its values (a sparse matrix) is refused.
    if isinstance(value, type):
        raise TypeError
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "__array__") and hasattr(value, "dtype"):
        return _array(sys.modules["numpy"].asarray(value))
    raise TypeError


def _array(array: Any) -> Any:
    """Return a numpy array in a form that orjson writes."""
    import numpy as np

    masked = sys.modules.get("numpy.ma")
    if masked is not None and isinstance(array, masked.MaskedArray):
        if array.dtype.names:
            raise TypeError("records with masks")
        mask = masked.getmaskarray(array).ravel()
        items = [
            None if hidden else item for hidden, item in zip(mask, np.asarray(array).ravel(), strict=True)
        ]
        return _nested(items, array.shape)
    kind = array.dtype.kind
    if array.dtype.char in _NUMBERS:
        if array.ndim == 0:
            return _scalar(array[()])
        native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
        return orjson.Fragment(orjson.dumps(native, option=orjson.OPT_SERIALIZE_NUMPY))
    if kind in "MmgcV":
        return _nested(list(array.ravel()), array.shape)
    return array.tolist()


def _nested(items: list[Any], shape: tuple[int, ...]) -> Any:
    """Return items as nested lists."""
    import numpy as np

    array = np.empty(len(items), object)
    for place, item in enumerate(items):
        array[place] = item
    return array.reshape(shape).tolist()


def _scalar(value: Any) -> Any:
    """Return a numpy scalar as a value that orjson supports."""
    import numpy as np

    dtype = value.dtype
    if dtype.char in _NUMBERS:
        return orjson.Fragment(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))
    if dtype.kind == "M":
        return _moment(value, np)
    if dtype.kind == "m":
        if np.isnat(value):
            return None
        unit, count = np.datetime_data(dtype)
        ticks = int(value.astype(np.int64)) * count
        if unit in _FRACTIONS:
            return _duration(ticks, _FRACTIONS[unit])
        if unit in _ATTOSECONDS:
            return _duration(ticks * _ATTOSECONDS[unit], 0)
        if unit in "YM":
            return f"{'-' if ticks < 0 else ''}P{abs(ticks)}{unit}"
        raise TypeError("a duration without a unit")
    if dtype.names:
        return {name: value[name] for name in dtype.names}
    if dtype.kind == "f" and dtype.char == "g":
        return orjson.Fragment(str(value).encode()) if np.isfinite(value) else None
    item = value.item()
    if is_scalar(item):
        raise TypeError
    return item


def _moment(value: Any, np: Any) -> str | None:
    """Return a datetime64 as text, at least to the second, with a fraction only if it has one."""
    if np.isnat(value):
        return None
    if np.datetime_data(value.dtype)[0] == "generic":
        raise TypeError("a time without a unit")
    text = str(value)
    if "T" not in text or text.count(":") < 2:
        text = str(value.astype("datetime64[s]"))
    head, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    # As Python does: groups of three digits, from microseconds on.
    return f"{head}.{fraction.ljust(max(6, -(-len(fraction) // 3) * 3), '0')}" if fraction else head


def _duration(ticks: int, digits: int) -> str:
    """Return a duration in the format of ISO 8601. ticks: of 10**-digits seconds."""
    sign, ticks = ("-", -ticks) if ticks < 0 else ("", ticks)
    seconds, fraction = divmod(ticks, 10**digits)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    decimals = f".{fraction:0{digits}d}".rstrip("0") if fraction else ""
    parts = [
        f"{hours}H" if hours else "",
        f"{minutes}M" if minutes else "",
        f"{seconds}{decimals}S" if seconds or decimals else "",
    ]
    clock = "".join(parts)
    if not days and not clock:
        return "PT0S"
    return f"{sign}P{f'{days}D' if days else ''}{f'T{clock}' if clock else ''}"


def _pandas(value: Any) -> Any:
    """Return pandas if the value has one of its types. It has been imported then."""
    pandas = sys.modules.get("pandas")
    if pandas is None or not hasattr(pandas, "DataFrame"):
        return None
    module = type(value).__module__
    return (
        pandas
        if module == "pandas"
        or module.startswith("pandas.")
        or isinstance(value, pandas.DataFrame | pandas.Series | pandas.Index)
        else None
    )


def _from_pandas(value: Any, pd: Any) -> Any:
    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, pd.DataFrame):
        if not value.columns.is_unique:
            name = value.columns[value.columns.duplicated()][0]
            raise TypeError(f"two columns are named {name!r}")
        return value.to_dict(orient="records")
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if isinstance(value, pd.Timedelta):
        return _scalar(value.to_timedelta64())
    if isinstance(value, pd.Period | pd.Interval):
        return str(value)
    dtype = getattr(value, "dtype", None)
    if isinstance(value, pd.Series | pd.Index) and is_numpy_number(dtype):
        return value.to_numpy()
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError


def is_numpy_number(dtype: Any) -> bool:
    """Return whether a pandas type is one of numpy's numbers."""
    return getattr(dtype, "char", "") in _NUMBERS and type(dtype).__module__.startswith("numpy")


Path = tuple[Any, ...]
"""The path to a value: the path of its parent, and its key or index. Formatted only for a message."""


def _plain(value: Any, path: Path, depth: int) -> Any:
    """Return a value as Python's basic types and fragments of orjson. Raises NotSerializable with the path."""
    if value is None or isinstance(value, bool | orjson.Fragment) or type(value) is float:
        return value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise NotSerializable(
                f"{_text(path)} is a str that UTF-8 can't encode: {error.reason}"
            ) from error
        return str(value)
    if isinstance(value, Enum):
        return _plain(value.value, path, depth)
    if isinstance(value, int):
        return _integer(int(value), path)
    if depth > _DEEPEST:
        raise TooDeep(f"{_text(path)[:80]}... is nested more than {_DEEPEST} levels deep, or contains itself")
    if isinstance(value, dict):
        return _object(value, path, depth)
    if isinstance(value, list | tuple):
        return [_plain(item, (path, place), depth + 1) for place, item in enumerate(value)]
    if is_dataclass(value) and not isinstance(value, type):
        names = vars(value) if hasattr(value, "__dict__") else [field.name for field in fields(value)]
        return _object({name: getattr(value, name) for name in names if name[0] != "_"}, path, depth)
    if isinstance(value, UUID):
        return str(value)
    try:
        converted = _default(value)
    except Exception as error:
        why = f": {error}" if str(error) else ""
        raise NotSerializable(
            f"{_text(path)} is a {_kind(value)}, which can't be written as JSON{why}"
        ) from error
    return _plain(converted, path, depth + 1)


def _object(value: dict[Any, Any], path: Path, depth: int) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, item in value.items():
        name = _plain(key if isinstance(key, str) else _key(key, path), (path, key), depth)
        if name in plain:
            raise NotSerializable(f"{_text(path)} has two keys that are {_quoted(name)} in JSON")
        plain[name] = _plain(item, (path, name), depth + 1)
    return plain


def _key(key: Any, path: Path) -> str:
    """Return a key that is not a string as text: the JSON of the key, without quotes."""
    try:
        text = orjson.dumps(_plain(key, path, 0)).decode()
    except NotSerializable:
        text = "{"
    if text[0] in "[{" or (text == "null" and key is not None):
        raise NotSerializable(f"{_text(path)} has the key {key!r}, and a {_kind(key)} can't be a key in JSON")
    return str(orjson.loads(text)) if text[0] == '"' else text


def _integer(value: int, path: Path) -> Any:
    if -(2**63) <= value < 2**64:
        return value
    try:
        return orjson.Fragment(str(value).encode())
    except ValueError as error:
        raise NotSerializable(f"{_text(path)} is an integer with too many digits: {error}") from error


def _text(path: Path) -> str:
    keys = []
    while path:
        path, key = path
        keys.append(f"[{key if isinstance(key, int) else _quoted(str(key))}]")
    return "result" + "".join(reversed(keys))


def _quoted(text: str) -> str:
    return '"' + text.encode(errors="backslashreplace").decode() + '"'


def _kind(value: Any) -> str:
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"{name} of {value.dtype}" if is_array(value) else name
