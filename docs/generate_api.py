"""Write docs/api.md from the docstrings of the public names: python docs/generate_api.py"""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path

import edge_restore

PAGE = Path(__file__).with_name("api.md")

HEAD = """\
# Python API

`import edge_restore as er` is light: what a name needs is imported when the name is first used.
This page is made from the docstrings by `python docs/generate_api.py`. Working scripts are in
`examples/`.
"""


def page() -> str:
    """The page's Markdown."""
    parts = [HEAD]
    order = ["open", "ImageRestorer", "frames", "run", "evaluate", "models", "Model"]
    rest = [name for name in edge_restore.__all__ if name not in order and name[0] != "_"]
    for name in [*order, *rest]:
        value = getattr(edge_restore, name)
        parts.append(f"## {name}\n\n```python\n{_signature(name, value)}\n```\n\n{_text(value)}")
        if inspect.isclass(value):
            parts += _members(value)
    return "\n".join(parts)


def _members(value: type) -> list[str]:
    found = []
    for name, member in vars(value).items():
        if name.startswith("_") and name != "__call__":
            continue
        if isinstance(member, property):
            found.append(f"**`{name}`**: {_text(member)}")
        elif inspect.isfunction(member) and member.__doc__:
            title = "restorer" if name == "__call__" else name
            found.append(f"**`{_signature(title, member, of_object=True)}`**\n\n{_text(member)}")
    return found


def _signature(name: str, value: object, *, of_object: bool = False) -> str:
    if inspect.isclass(value) and issubclass(value, Exception):
        return f"class {name}({value.__base__.__name__})"
    signature = inspect.signature(value)  # type: ignore[arg-type]
    if of_object:
        signature = signature.replace(parameters=list(signature.parameters.values())[1:])
    # Annotations are not evaluated, and so in quotes.
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", f"{name}{signature}")
    if len(text) > 90:
        inside = re.sub(r", (?=\*|\w+:|\w+=)", ",\n    ", text[len(name) + 1 :])
        head, _, tail = inside.rpartition(")")
        text = f"{name}(\n    {head},\n){tail}"
    return text


def _text(value: object) -> str:
    """A docstring as Markdown: its sections in bold, their entries as lists."""
    lines = []
    section = ""
    for line in inspect.getdoc(value).splitlines():  # type: ignore[union-attr]
        if match := re.fullmatch(r"(Args|Returns|Raises|Attributes|Yields):", line):
            section = match[1]
            lines += [f"**{section}**", ""]
        elif section and re.match(r" {4}\w", line) and section in ("Args", "Raises", "Attributes"):
            name, _, text = line.strip().partition(": ")
            lines.append(f"- `{name}`: {text}")
        elif section and line.startswith("    "):
            lines.append(textwrap.dedent(line) if line.strip() else line)
        elif line.startswith((">>>", "...")):
            lines.append(f"    {line[4:]}")
        else:
            section = ""
            lines.append(line)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
