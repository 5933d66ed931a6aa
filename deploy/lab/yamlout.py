"""Writes plain Python data as YAML, enough for configuration files."""

import re

_PLAIN = re.compile(r"^[A-Za-z/_][A-Za-z0-9_./+-]*$")
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "~"}


def scalar(value):
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if _PLAIN.match(value) and value.lower() not in _WORDS:
        return value
    return "'" + value.replace("'", "''") + "'"


def dump(data, indent=0):
    pad = "  " * indent
    out = []
    for key, value in data.items():
        if isinstance(value, dict) and value:
            out.append(f"{pad}{key}:\n{dump(value, indent + 1)}")
        elif isinstance(value, list) and value:
            out.append(f"{pad}{key}:\n" + "".join(_item(v, indent) for v in value))
        else:
            out.append(f"{pad}{key}: {_empty(value) or scalar(value)}\n")
    return "".join(out)


def _item(value, indent):
    pad = "  " * indent
    if isinstance(value, dict):
        inner = ", ".join(f"{k}: {scalar(v)}" for k, v in value.items())
        return f"{pad}- {{{inner}}}\n" if len(value) > 1 else f"{pad}- {inner}\n"
    return f"{pad}- {scalar(value)}\n"


def _empty(value):
    return "{}" if value == {} else "[]" if value == [] else ""
