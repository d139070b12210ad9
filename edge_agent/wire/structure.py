"""Annotations as schema: JSON values to frozen dataclasses and back.

A type annotation (scalar, `X | None`, `StrEnum`, tuple, mapping, dataclass) is turned into a checking function once
and kept. A value that does not fit raises `MisfitError`, whose text names the field; callers turn that into their own
outcome, so that no exception leaves the codec.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Union, cast, get_args, get_origin, get_type_hints

from edge_agent.wire.event import Json


class MisfitError(ValueError):
    """A value does not fit its annotation; the text says where and why."""


def structure(hint: object, value: object, where: str = "value") -> object:
    """`value` (parsed JSON) checked against and converted to the annotation `hint`. Raises `MisfitError`."""
    return _converter(hint)(value, where)


def plain(value: object) -> Json:
    """A field as JSON: enums by value, tuples as lists, dataclasses as objects.

    Raises `ValueError` for a type that does not travel (a float, say).
    """
    if type(value) in _AS_THEY_ARE:
        return cast("Json", value)
    match value:
        case StrEnum():
            return value.value
        case bool() | int() | str():
            return value
        case tuple() | list():
            return [plain(item) for item in value]
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case _ if is_dataclass(value):
            return {name: plain(getattr(value, name)) for name in field_names(value.__class__)}
        case _:
            raise ValueError(f"{type(value).__name__} does not travel in an event")


_AS_THEY_ARE = frozenset((str, int, bool, type(None)))


@cache
def field_names(kind: type) -> tuple[str, ...]:
    """The names of a dataclass's fields, in order."""
    return tuple(item.name for item in fields(kind))


_Converter = Callable[[object, str], object]
_converters: dict[object, _Converter] = {}


def _converter(hint: object) -> _Converter:
    known = _converters.get(hint)
    if known is None:
        known = _converters[hint] = _make_converter(hint)
    return known


def _make_converter(hint: object) -> _Converter:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        rest = [item for item in arguments if item is not type(None)]
        if len(rest) == 1 and len(arguments) == 2:
            return _optional(_converter(rest[0]))
        return _any_json
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return _sequence(_converter(arguments[0]))
        return _fixed([_converter(item) for item in arguments])
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(_converter(arguments[1]))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _enum(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return _dataclass(hint)
    if hint in (str, int, bool):
        return _scalar(hint)
    return _any_json


def _any_json(value: object, where: str) -> object:  # noqa: ARG001 - one shape for all converters
    return value


def _optional(inner: _Converter) -> _Converter:
    def convert(value: object, where: str) -> object:
        return None if value is None else inner(value, where)

    return convert


def _sequence(inner: _Converter) -> _Converter:
    def convert(value: object, where: str) -> object:
        if not isinstance(value, list):
            raise MisfitError(f"{where} is no list")
        return tuple(inner(item, f"{where}[{index}]") for index, item in enumerate(value))

    return convert


def _fixed(inners: list[_Converter]) -> _Converter:
    def convert(value: object, where: str) -> object:
        if not isinstance(value, list) or len(value) != len(inners):
            raise MisfitError(f"{where} is no list of {len(inners)}")
        return tuple(inner(item, where) for inner, item in zip(inners, value, strict=True))

    return convert


def _mapping(inner: _Converter) -> _Converter:
    def convert(value: object, where: str) -> object:
        if not isinstance(value, dict):
            raise MisfitError(f"{where} is no object")
        return {key: inner(item, f"{where}.{key}") for key, item in value.items()}

    return convert


def _enum(kind: type[StrEnum]) -> _Converter:
    members = {item.value: item for item in kind}

    def convert(value: object, where: str) -> object:
        found = members.get(value) if isinstance(value, str) else None
        if found is None:
            raise MisfitError(f"{where} is none of {', '.join(kind)}")
        return found

    return convert


def _scalar(kind: type[str | int | bool]) -> _Converter:
    def convert(value: object, where: str) -> object:
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise MisfitError(f"{where} is no {kind.__name__}")
        return value

    return convert


def _dataclass(kind: type) -> _Converter:
    hints = get_type_hints(kind)
    items = [
        (item.name, _converter(hints[item.name]), item.default is MISSING and item.default_factory is MISSING)
        for item in fields(kind)
    ]

    def convert(value: object, where: str) -> object:
        if not isinstance(value, dict):
            raise MisfitError(f"{where} is no object")
        try:
            return kind(*[inner(value[name], name) for name, inner, _ in items])
        except (KeyError, MisfitError):
            pass  # something is left out, or does not fit: now field by field
        arguments: dict[str, object] = {}
        for name, inner, required in items:
            if name in value:
                try:
                    arguments[name] = inner(value[name], name)
                except MisfitError as misfit:
                    raise MisfitError(f"{where}.{misfit}") from None
            elif required:
                raise MisfitError(f"{where}: missing {name}")
        return kind(**arguments)

    return convert
