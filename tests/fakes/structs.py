"""Values of any contract, from its types: a Hypothesis strategy and one fixed example."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect


def structs(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Values of a struct, optional fields present or left to their defaults."""
    required, optional = {}, {}
    for field in msgspec.structs.fields(kind):
        strategy = values(inspect.type_info(field.type))
        if field.name == "schema":
            optional[field.name] = st.just(1)
        elif field.required:
            required[field.name] = strategy
        else:
            optional[field.name] = strategy
    return st.fixed_dictionaries(required, optional=optional).map(lambda given: kind(**given))


def values(info: inspect.Type) -> st.SearchStrategy[Any]:
    """Values of a type that a contract uses, within its constraints."""
    match info:
        case inspect.StructType(cls=cls):
            return st.deferred(lambda: structs(cls))
        case inspect.IntType(ge=low, le=high, gt=above):
            least = low if low is not None else above + 1 if above is not None else -(2**53)
            return st.integers(least, high if high is not None else 2**53)
        case inspect.FloatType(gt=above, ge=low, le=high):
            return st.floats(
                min_value=above if above is not None else low,
                max_value=high if high is not None else (1e300 if above is not None else None),
                exclude_min=above is not None,
                allow_nan=False,
                allow_infinity=False,
            )
        case inspect.StrType():
            return st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
        case inspect.BytesType():
            return st.binary(max_size=12)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.LiteralType(values=allowed):
            return st.sampled_from(allowed)
        case inspect.EnumType(cls=cls):
            return st.sampled_from(list(cls))
        case inspect.UnionType(types=types):
            return st.one_of([values(inner) for inner in types])
        case inspect.VarTupleType(item_type=item):
            return st.lists(values(item), max_size=2).map(tuple)
        case inspect.TupleType(item_types=items):
            return st.tuples(*[values(item) for item in items])
        case inspect.ListType(item_type=item):
            return st.lists(values(item), max_size=2)
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(values(key), values(value), max_size=2)
        case inspect.Metadata(type=inner):
            return values(inner)
        case inspect.RawType():
            return st.sampled_from([msgspec.Raw(b"null"), msgspec.Raw(b'{"a":[1,2]}')])
        case inspect.AnyType():
            return st.none() | st.integers(0, 9)
    raise NotImplementedError(f"no strategy for {info}")


def example_of(kind: type[msgspec.Struct]) -> Any:
    """One value with every field set, one item in every collection."""
    return kind(
        **{field.name: _example(field.name, field.type) for field in msgspec.structs.fields(kind)}
    )


def _example(name: str, kind: Any) -> Any:
    return 1 if name == "schema" else _of(inspect.type_info(kind))


def _of(info: inspect.Type) -> Any:
    match info:
        case inspect.StructType(cls=cls):
            return example_of(cls)
        case inspect.IntType(ge=low) | inspect.FloatType(ge=low):
            return max(1, low or 1)
        case inspect.StrType():
            return "text"
        case inspect.BytesType():
            return b"bytes"
        case inspect.BoolType():
            return True
        case inspect.NoneType():
            return None
        case inspect.LiteralType(values=allowed):
            return allowed[0]
        case inspect.EnumType(cls=cls):
            return next(iter(cls))
        case inspect.UnionType(types=types):
            return _of(next(t for t in types if not isinstance(t, inspect.NoneType)))
        case inspect.VarTupleType(item_type=item):
            return (_of(item),)
        case inspect.TupleType(item_types=items):
            return tuple(_of(item) for item in items)
        case inspect.ListType(item_type=item):
            return [_of(item)]
        case inspect.DictType(key_type=key, value_type=value):
            return {_of(key): _of(value)}
        case inspect.Metadata(type=inner):
            return _of(inner)
        case inspect.RawType():
            return msgspec.Raw(b"{}")
        case inspect.AnyType():
            return None
    raise NotImplementedError(f"no example for {info}")
