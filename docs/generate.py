# SPDX-License-Identifier: Apache-2.0
"""Write config/faces.yaml, docs/parameters.md and docs/api.md from the code.

Run it after a change of an option or of a public docstring: .venv/bin/python docs/generate.py. A
test compares the files with what this would write.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_type_hints

import scrfd_ros
from scrfd_ros.config import Group, InputSize, Option, OptionField, options
from scrfd_ros.node.config import NodeConfig, effect, to_parameter

ROOT = Path(__file__).resolve().parents[1]

# --- Parameters -----------------------------------------------------------------------------------

_ROS_TYPES: Final[Mapping[Any, str]] = {
    bool: "bool",
    int: "integer",
    float: "double",
    str: "string",
    InputSize: "string, integer or integer array",
    Path | None: "string",
    tuple[int, int]: "integer array",
    tuple[int, ...]: "integer array",
    tuple[str, ...]: "string array",
}


def _groups(config: type[Group]) -> Iterator[tuple[str, str, dict[str, OptionField]]]:
    """Name, what it is for, and options of each group of a configuration; first those of none."""
    known = options(config)
    yield "", "", {name: each for name, each in known.items() if "." not in name}
    for group, kind in get_type_hints(config).items():
        if isinstance(kind, type) and issubclass(kind, Group):
            yield group, _summary(kind), dict(options(kind))


def _summary(documented: Any) -> str:
    return _doc(documented).partition("\n\n")[0].replace("\n", " ")


def _yaml(value: Any) -> str:
    """The default of an option, as it is written in YAML."""
    value = to_parameter(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    return value or '""' if isinstance(value, str) else str(value)


def _values(known: Option) -> str:
    return known.constraint.removeprefix("one of: ")


def _comment(text: str, indent: str) -> Iterator[str]:
    return iter(
        textwrap.wrap(
            text,
            100,
            initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}# ",
            break_on_hyphens=False,
            break_long_words=False,
        )
    )


def faces_yaml() -> str:
    lines = [
        "# All parameters of face_node, with their defaults. Made by docs/generate.py.",
        "# A change takes effect at the next configure, unless something else is said.",
        "/**:",
        "  ros__parameters:",
    ]
    for group, summary, known in _groups(NodeConfig):
        indent = "    "
        if group:
            lines += [*_comment(summary, indent), f"{indent}{group}:"]
            indent += "  "
        for name, each in known.items():
            lines += _comment(each.option.description, indent)
            said = f"Values: {_values(each.option)}. " if each.option.constraint else ""
            if effect(each.option) != "at the next configure":
                said += f"Takes effect {effect(each.option)}."
            if said:
                lines += _comment(said.rstrip(), indent)
            lines += [f"{indent}{name}: {_yaml(each.default)}", ""]
    return "\n".join(lines[:-1]) + "\n"


_PARAMETERS = """\
# Parameters of `face_node`

Made by `docs/generate.py` from the classes in `scrfd_ros/config.py` and `scrfd_ros/node/config.py`.

All parameters with their defaults are in `config/faces.yaml`. Copy it, keep what you change, and
start the node with it:

```
ros2 launch scrfd_ros faces.launch.py params_file:=$HOME/faces.yaml
```

A change that takes effect *at once* applies from the next image on:

```
ros2 param set /face_node detector.score_threshold 0.6
```

One that takes effect *at the next configure* needs the node to load its networks again:

```
ros2 lifecycle set /face_node deactivate
ros2 lifecycle set /face_node cleanup
ros2 lifecycle set /face_node configure
ros2 lifecycle set /face_node activate
```

One that takes effect *at the next start* can only be given when the node starts.

The node refuses a value that it does not accept, and says why. It warns of a parameter that it does
not know. `qos_overrides.<topic>.<publisher or subscription>.<depth, history, reliability>` set the
QoS of topics.
"""


def parameters_md() -> str:
    lines = [_PARAMETERS]
    for group, summary, known in _groups(NodeConfig):
        lines += [f"## {group.replace('_', ' ').capitalize() or 'General'}", ""]
        if summary:
            lines += [summary, ""]
        lines += [
            "| parameter | type | default | values | takes effect | meaning |",
            "|---|---|---|---|---|---|",
        ]
        for name, each in known.items():
            default = _yaml(each.default)
            cells = (
                f"`{group}.{name}`" if group else f"`{name}`",
                _ROS_TYPES[each.type],
                "empty" if default == '""' else f"`{default}`",
                _values(each.option),
                effect(each.option),
                _linked(each.option.description),
            )
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"


def _linked(text: str) -> str:
    return re.sub(r"docs/([\w-]+\.md)", r"[\1](\1)", text)


# --- Public names ---------------------------------------------------------------------------------


def api_md() -> str:
    text, _, example = _doc(scrfd_ros).partition("Example:\n")
    lines = [
        "# `scrfd_ros` as a library",
        "",
        "Made by `docs/generate.py` from the docstrings.",
        "",
    ]
    lines += [*text.splitlines(), "```python", *textwrap.dedent(example).splitlines(), "```", ""]
    for name in sorted(scrfd_ros.__all__, key=_rank):
        lines += _public(name, getattr(scrfd_ros, name))
    return "\n".join(lines[:-1]) + "\n"


def _rank(name: str) -> tuple[bool, ...]:
    """Functions first, then classes, then configurations, then errors."""
    value = getattr(scrfd_ros, name)
    if not isinstance(value, type):
        return (False,)
    return (True, issubclass(value, Exception), issubclass(value, Group))


def _public(name: str, value: Any) -> Iterator[str]:
    yield from (f"## `{name}`", "")
    if not isinstance(value, type):
        yield from _signature(name, value)
    yield from _docstring(_doc(value))
    if isinstance(value, type) and issubclass(value, Group):
        yield from _options(value)
    for member, known in vars(value).items() if isinstance(value, type) else ():
        is_method = inspect.isfunction(known) and known.__doc__
        if (member.startswith("_") and member != "__call__") or not (
            is_method or isinstance(known, property)
        ):
            continue
        yield from (f"### `{name}.{member}`", "")
        if is_method:
            yield from _signature(member, known)
        yield from _docstring(_doc(known))


def _doc(value: Any) -> str:
    text = inspect.getdoc(value)
    assert text, f"{value} has no docstring"
    return text


def _signature(name: str, function: Callable[..., Any]) -> Iterator[str]:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(node, ast.FunctionDef) and node.returns is not None
    arguments = re.sub(r"(?<=[\w\]])=", " = ", ast.unparse(node.args))
    arguments = re.sub(r"^self(, )?", "", arguments)
    yield from ("```python", f"{name}({arguments}) -> {ast.unparse(node.returns)}", "```", "")


def _docstring(text: str) -> Iterator[str]:
    """A docstring in Google's style as Markdown."""
    for block in text.split("\n\n"):
        head, _, rest = block.partition("\n")
        if rest and re.fullmatch(r"[A-Z][a-z]+:", head):
            items = re.split(r"\n(?=\S)", textwrap.dedent(rest))
            items = [_named(" ".join(item.split())) for item in items]
            if len(items) == 1:
                yield f"{head} {items[0]}"
            else:
                yield from (head, "", *(f"- {item}" for item in items))
        else:
            yield from block.splitlines()
        yield ""


def _named(item: str) -> str:
    names, separator, text = item.partition(": ")
    if not separator or not re.fullmatch(r"[\w, ]+", names):
        return item
    return f"{', '.join(f'`{name}`' for name in names.split(', '))}: {text}"


def _options(config: type[Group]) -> Iterator[str]:
    yield from ("| field | type | default | values | meaning |", "|---|---|---|---|---|")
    known = options(config)
    for each in dataclasses.fields(config):
        if each.name in known:
            option, _, default = known[each.name]
            kind = f"`{each.type}`".replace("|", r"\|")  # else it would end the cell
            cells = (kind, f"`{default!r}`", _values(option), _linked(option.description))
        else:
            kind = f"[`{each.type}`](#{str(each.type).lower()})"
            summary = _summary(get_type_hints(config)[each.name])
            cells = (kind, f"`{each.type}()`", "", summary)
        yield f"| `{each.name}` | {' | '.join(cells)} |"
    yield ""


FILES: Final[Mapping[str, Callable[[], str]]] = {
    "config/faces.yaml": faces_yaml,
    "docs/parameters.md": parameters_md,
    "docs/api.md": api_md,
}


def main() -> None:
    for name, make in FILES.items():
        (ROOT / name).write_text(make(), encoding="utf-8")
        print(f"written: {name}")


if __name__ == "__main__":
    main()
