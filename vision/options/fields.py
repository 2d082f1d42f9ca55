"""An option as a field of a dataclass: its names, default, kind and help; parser, values and docs/options.md follow."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

from vision.console import default_text


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


Values = TypeVar("Values", bound=_Dataclass)

_METADATA = "option"


class Option(NamedTuple):
    """What a field says of its option, besides its default.

    Attributes:
        names: on the command line, the documented one first.
        help: one sentence; it may end with "(default: ...)" where the default is more than a value.
        kind: turns the text into a value, as argparse's `type`; None for a switch.
        off: name and help of a switch that sets the option to False; None for no such switch.
        settings: other arguments of `ArgumentParser.add_argument`.
    """

    names: tuple[str, ...]
    help: str
    kind: Callable[[str], Any] | None
    off: tuple[str, str] | None
    settings: Mapping[str, Any]


def option(
    *names: str,
    default: Any,
    help: str,
    kind: Callable[[str], Any] | None = None,
    off: tuple[str, str] | None = None,
    **settings: Any,
) -> Any:
    """Declare a field of a dataclass that is an option. Without a kind it is a switch, which reverses its default.

    Args:
        names: see `Option`.
        default: value where the option is not typed.
        help: see `Option`.
        kind: see `Option`.
        off: see `Option`.
        settings: see `Option`.
    """
    return dataclasses.field(default=default, metadata={_METADATA: Option(names, help, kind, off, settings)})


def options_of(values: type) -> Iterator[tuple[dataclasses.Field, Option]]:
    """Give the fields of a dataclass that are options, with what they say, in the order of the class."""
    for field in dataclasses.fields(values):
        if _METADATA in field.metadata:
            yield field, field.metadata[_METADATA]


def add_option(parser: argparse._ActionsContainer, values: type, name: str, **changes: Any) -> None:
    """Add one option to a parser or group.

    Args:
        parser: takes the option.
        values: dataclass that has it.
        name: of the field.
        changes: arguments of `add_argument` that are to be others than the field says, as a default or help.
    """
    field, declared = next(found for found in options_of(values) if found[0].name == name)
    settings: dict[str, Any] = {"dest": name, "default": field.default, "help": declared.help, **declared.settings}
    if declared.kind is not None:
        settings["type"] = declared.kind
    elif "action" not in settings:
        settings["action"] = "store_false" if field.default else "store_true"
    parser.add_argument(*declared.names, **{**settings, **changes})
    if declared.off is not None:
        off, help_of_off = declared.off
        parser.add_argument(off, dest=name, action="store_false", help=help_of_off)


def read_values(values: type[Values], args: argparse.Namespace) -> Values:
    """Make a value of a dataclass from parsed arguments, which have an attribute for each of its fields."""
    found = {field.name: getattr(args, field.name) for field in dataclasses.fields(values)}
    return values(**{name: tuple(value) if isinstance(value, list) else value for name, value in found.items()})


def is_switch(declared: Option) -> bool:
    """Whether an option takes no value and has no form that says the opposite."""
    return declared.kind is None and "action" not in declared.settings


def table_rows(values: type) -> Iterator[tuple[str, str, str]]:
    """Give name, default and help of each option for people to read, in Markdown."""
    for field, declared in options_of(values):
        first, *others = (f"`{name}`" for name in (*declared.names, *(declared.off or ())[:1]))
        help, _, said = declared.help.partition(" (default: ")
        if said:
            default = said.removesuffix(")")
        elif declared.kind is None:
            default = "off" if is_switch(declared) or not field.default else "on"
        else:
            default = "" if field.default in (None, ()) else f"`{default_text(field.default)}`"
            default = {"`True`": "on", "`False`": "off"}.get(default, default)
        yield f"{first} ({', '.join(others)})" if others else first, quote_options(default), quote_options(help)


def quote_options(text: str) -> str:
    """Put names of options into the quotes that Markdown has for code."""
    return re.sub(r"(?<![\w`-])--[a-z][a-z0-9-]*(=[\w.]+)?", lambda match: f"`{match[0]}`", text)
