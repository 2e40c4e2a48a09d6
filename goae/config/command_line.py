"""Command lines as the shell gives them, written so that Hydra's parser reads the same values.

What the schema declares as a path (`goae.paths.path`) or as text may hold any character. A path is left to Hydra where
it is empty, `null`, or within quotes of its own, as in `input="'a.png'"`; several quoted ones are a sweep. References
such as `${paths.runs}` keep their meaning, `~` is the home folder. Text is left to Hydra wherever that reads a text, so
that `method=psp,e4e` sweeps. A list or dictionary that Hydra cannot read is read as YAML.
"""

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf

from goae.paths import PACKAGE, is_path

ARGUMENT = re.compile(r"(\+{0,2}([A-Za-z_][\w.]*)=)(.*)", re.DOTALL)
REFERENCE = re.compile(r"(\\*)\$\{([\w.]*)(:?)")
GROUPS = PACKAGE.parent / "configs"  # a folder for each group, such as experiment=NAME
# lines of Hydra's and OmegaConf's messages that help no user
NOISE = ("object_type=", "reference_type=", "See https://", "Config search path", "provider=")


def as_given(arguments: Sequence[str], schema: type) -> list[str]:
    """Quote the values of paths and texts for Hydra; all other arguments stay as they are."""
    return [_quoted_argument(argument, schema) for argument in arguments]


def escape(text: str, *, known: Sequence[str] = ()) -> str:
    """Mark each `${` as a plain sign for OmegaConf, except where it opens a reference to one of the `known` keys."""

    def marked(match: re.Match[str]) -> str:
        slashes, name, colon = match.groups()
        reference = OmegaConf.has_resolver(name) if colon else name.startswith(".") or name.split(".")[0] in known
        whole = "}" in text[match.end() :]
        return match[0] if reference and whole and not slashes else f"{slashes}\\{match[0]}"

    return REFERENCE.sub(marked, text)


def explain(error: Exception, schema: type) -> str:
    """Return what Hydra or OmegaConf found wrong, as one paragraph with a remedy."""
    lines = f"{error}\n{error.__cause__ or ''}".replace("\\'", "'").splitlines()
    told = " ".join(line.strip() for line in lines if line.strip() and not line.strip().startswith(NOISE))
    told = re.sub(r"full_key: (\S+)", r"(key \1)", told)
    argument = getattr(error, "override", None)
    if argument is not None:
        if "=" not in argument:
            return f"{argument!r} is no KEY=VALUE; for example input=photo.png"
        given = ARGUMENT.fullmatch(argument)
        if given and _declared(schema, given[2])[0] is None and not (GROUPS / given[2]).is_dir():
            return _no_key(given[2], schema)
        return f"{argument!r} cannot be read ({told}); put the value into quotes of its own: KEY=\"'VALUE'\""
    if missing := re.search(r"Could not override '([^']+)'.*(?:not in|No match in the defaults)", told):
        return _no_key(missing[1], schema)
    return re.sub(r"^Error merging override (.*?) (Value|field)", r"\1 does not fit: \2", told)


def _no_key(key: str, schema: type) -> str:
    near = difflib.get_close_matches(key, list(_keys(schema)), 1)
    return f"there is no key {key}; {f'did you mean {near[0]}? ' if near else ''}--cfg job prints all keys"


def _quoted_argument(argument: str, schema: type) -> str:
    match = ARGUMENT.fullmatch(argument)
    kind, marked = _declared(schema, match[2]) if match else (None, False)
    if match is None or kind is None:
        return argument
    value, parsed = match[3], _parsed(match[3])
    by_hydra = parsed is not None and (value in ("", "null") or value[:1] in ("'", '"'))
    if marked and not by_hydra and not (kind is Any and parsed and isinstance(parsed.value(), list)):
        names = [field.name for field in fields(schema)]
        value = _quoted(escape(os.path.expanduser(value), known=[*names, "hydra"]))
    elif kind is str and not marked and (parsed is None or isinstance(parsed.value(), int | float)):
        value = _quoted(value)
    elif get_origin(kind) in (list, dict) and parsed is None:
        value = _from_yaml(value)
    return match[1] + value


def _declared(schema: type, key: str) -> tuple[Any, bool]:
    """Return the type of a dotted key, None if it is not declared, and whether it was declared as a path."""
    kind: Any = schema
    marked = False
    for name in key.split("."):
        if is_dataclass(kind):
            found = next((field for field in fields(kind) if field.name == name), None)
            marked = found is not None and is_path(found)
            kind = get_type_hints(kind)[name] if found else HydraConf if (kind, name) == (schema, "hydra") else None
        else:
            kind = get_args(kind)[1] if get_origin(kind) is dict else None
    return kind, marked


def _parsed(value: str) -> Override | None:
    """Return what Hydra reads, or None if it cannot."""
    try:
        return OverridesParser.create().parse_override(f"key={value}")
    except HydraException:
        return None


def _quoted(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


def _from_yaml(value: str) -> str:
    """Return a list or dictionary of YAML in Hydra's notation; what is neither stays as it is."""
    try:
        read = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    return _written(read) if isinstance(read, list | dict) else value


def _written(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}: {_written(inner)}' for key, inner in value.items())}}}"
    if value is None or isinstance(value, bool | int | float):
        return yaml.safe_dump(value).split("\n")[0]
    return _quoted(str(value))


def _keys(schema: type, prefix: str = "") -> Iterator[str]:
    """List all dotted keys of a schema."""
    for name, kind in get_type_hints(schema).items():
        yield prefix + name
        if is_dataclass(kind):
            yield from _keys(kind, f"{prefix}{name}.")  # type: ignore[arg-type]  # a class
