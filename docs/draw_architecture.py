"""Draw docs/architecture.svg from the imports in the source: `python docs/draw_architecture.py [FILE]`.

Each package is a panel. A box is a folder, or the top-level modules of a package that stand on the same level. A box
stands above everything that it imports. Arrows that follow from other arrows are left out; an import that runs upward
is drawn in red.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("service", "training", "models")
_LINE, _TITLE, _PAD, _GAP, _LANE = 15, 18, 10, 44, 14  # px: line, title line, padding, between rows, between lanes
_CHAR = 6.7  # px: width of a character of the monospace font at 11 px
_WIDTHS = {"service": 620, "training": 400, "models": 1040}
_STYLE = """
  .page { fill: #ffffff; stroke: #d0d7de; } .panel { fill: #f3f5f8; stroke: #d0d7de; }
  .box { fill: #ffffff; stroke: #57606a; } text { fill: #1f2328; font: 11px ui-monospace, Menlo, Consolas, monospace; }
  .head { font: bold 15px system-ui, sans-serif; } .name { font-weight: bold; font-size: 13px; }
  .note { font: 12px system-ui, sans-serif; } .arrow { fill: none; stroke: #3268b8; stroke-width: 1.5; }
  .tip { fill: #3268b8; } .up { stroke: #c62828; } .wide { stroke-width: 3; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #30363d; } .panel { fill: #161b22; stroke: #30363d; }
    .box { fill: #21262d; stroke: #8b949e; } text { fill: #e6edf3; } .arrow { stroke: #79b0ff; }
    .tip { fill: #79b0ff; } .up { stroke: #ff7b72; }
  }
"""

Graph = Mapping[str, set[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A folder or a group of modules at its place in the picture, in px."""

    name: str
    lines: tuple[str, ...]
    x: int
    y: int
    width: int
    height: int

    @property
    def middle(self) -> int:
        """The x of its centre."""
        return self.x + self.width // 2


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file, for every module of PACKAGES. Files that only hold a docstring are left out.

    So are models that were added: those without a model card in docs/models.
    """
    found = {}
    cards = {path.stem for path in (root / "docs" / "models").glob("*.md")}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            text = path.read_text()
            if cards and path.stem not in cards and re.search(r"^(?:SPEC|RECIPE) = ", text, re.MULTILINE):
                continue
            if path.name != "__init__.py" or len(ast.parse(text).body) > 1:
                found[".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imports(files: Mapping[str, Path]) -> dict[str, set[str]]:
    """Module -> the modules among `files` that it imports."""
    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        graph[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            graph[name] |= {_module(target, files) for target in _targets(node)} - {"", name}
    return graph


def _module(target: str, files: Mapping[str, Path]) -> str:
    """The module that an import names or takes something from; "" if it is not one of `files`."""
    while target and target not in files:
        target = target.rpartition(".")[0]
    return target


def _targets(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def unit(module: str, files: Mapping[str, Path]) -> str:
    """The folder below a package that a module belongs to, or the module itself at the top level of its package."""
    folder = files[module].parent.name
    parts = module.split(".")
    return ".".join(parts[:2]) + "/" if len(parts) > 2 or folder not in PACKAGES else module


def joined(graph: Graph, group: Mapping[str, str]) -> dict[str, set[str]]:
    """The graph of the groups, without edges inside a group."""
    found: dict[str, set[str]] = {group[name]: set() for name in graph}
    for name, targets in graph.items():
        found[group[name]] |= {group[target] for target in targets} - {group[name]}
    return found


def reach(graph: Graph) -> dict[str, set[str]]:
    """Node -> all nodes that it depends on, directly or not."""
    found = {name: set(targets) for name, targets in graph.items()}
    for middle in sorted(graph):
        for name in sorted(graph):
            if middle in found[name]:
                found[name] |= found[middle]
    return found


def levels(graph: Graph) -> dict[str, int]:
    """Node -> level. A folder, named with a final slash, stands above what it imports and below what imports it.

    Imports within a circle do not count.
    """
    reached = reach(graph)
    found: dict[str, int] = {}
    for name in sorted(graph, key=lambda name: (len(reached[name] - {name}), name)):
        below = [target for target in sorted(graph[name]) if name not in reached[target]]
        steps = [found[target] + (name.endswith("/") or target.endswith("/")) for target in below]
        found[name] = max(steps, default=0)
    return found


def boxes_of(package: str, graph: Graph) -> tuple[dict[str, str], dict[str, int]]:
    """Unit -> box, and box -> level. The modules of a package that share a level share a box."""
    own = {
        name: {target for target in targets if target.startswith(f"{package}.")}
        for name, targets in graph.items()
        if name.startswith(f"{package}.")
    }
    level = levels(own)
    box = {name: name if name.endswith("/") else f"{package} {level[name]}" for name in own}
    return box, {box[name]: level[name] for name in own}


def reduced(graph: Graph) -> list[tuple[str, str]]:
    """The edges without those that follow from others. Edges of a circle are kept."""
    reached = reach(graph)
    found = []
    for name in sorted(graph):
        for target in sorted(graph[name]):
            others = (other for other in graph[name] - {target} if name not in reached[other])
            if not any(target in reached[other] for other in others):
                found.append((name, target))
    return found


def placed(package: str, content: Mapping[str, list[str]], level: Mapping[str, int], x: int, y: int) -> list[Box]:
    """The boxes of a panel, the highest level first; `content` has the modules of each box."""
    width = _WIDTHS[package]
    found = []
    top = y + 34
    for row in sorted(set(level.values()), reverse=True):
        names = sorted(name for name in level if level[name] == row)
        each = (width - 120 - 16 * (len(names) - 1)) // len(names)
        texts = [tuple(wrap("  ".join(content[name]), int((each - 2 * _PAD) / _CHAR))) for name in names]
        height = _TITLE + _LINE * max(map(len, texts)) + 2 * _PAD
        for at, (name, lines) in enumerate(zip(names, texts, strict=True)):
            left = x + 60 + at * (each + 16)
            found.append(Box(name=name, lines=lines, x=left, y=top, width=each, height=height))
        top += height + _GAP
    return found


def arrows(
    edges: Iterable[tuple[str, str]], boxes: Mapping[str, Box], level: Mapping[str, int], x: int, width: int
) -> str:
    """Arrows between the boxes of a panel. Those that skip a row run in a lane at the side of the panel."""
    drawn = []
    lanes = {"left": 0, "right": 0}
    for start, end in edges:
        a, b = boxes[start], boxes[end]
        kind = "arrow" if level[start] > level[end] else "arrow up"
        if level[start] - level[end] == 1:
            points = [(_within(b.middle, a), a.y + a.height), (b.middle, b.y)]
        else:
            right = b.middle > x + width // 2
            lanes["right" if right else "left"] += 1
            at = lanes["right" if right else "left"]
            lane = x + width - _LANE * at if right else x + _LANE * at
            begin = a.x + a.width - _LANE * at if right else a.x + _LANE * at
            into = b.x + b.width - _LANE * at if right else b.x + _LANE * at
            out, turn = a.y + a.height + 5 * at, b.y - 8 - 5 * at
            points = [(begin, a.y + a.height), (begin, out), (lane, out), (lane, turn), (into, turn), (into, b.y)]
        path = " L ".join(f"{px} {py}" for px, py in points)
        drawn.append(f'<path class="{kind}" d="M {path}" marker-end="url(#tip)"/>')
    return "\n".join(drawn)


def _within(x: int, box: Box) -> int:
    """The x nearest to `x` at which an arrow may leave a box."""
    return min(max(x, box.x + 20), box.x + box.width - 20)


def panel(package: str, boxes: list[Box], x: int, y: int, height: int) -> str:
    """A package's background, title and boxes."""
    drawn = [f'<rect class="panel" x="{x}" y="{y}" width="{_WIDTHS[package]}" height="{height}" rx="8"/>']
    drawn.append(f'<text class="head" x="{x + 14}" y="{y + 22}">{package}/</text>')
    for box in boxes:
        drawn.append(f'<rect class="box" x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="5"/>')
        title = box.name.partition(".")[2] if box.name.endswith("/") else "modules"
        drawn.append(f'<text class="name" x="{box.x + _PAD}" y="{box.y + _PAD + 12}">{escape(title)}</text>')
        for at, line in enumerate(box.lines):
            y_line = box.y + _PAD + 12 + _TITLE + _LINE * at
            drawn.append(f'<text x="{box.x + _PAD}" y="{y_line}" xml:space="preserve">{escape(line)}</text>')
    return "\n".join(drawn)


def contents(files: Mapping[str, Path], box: Mapping[str, str]) -> dict[str, list[str]]:
    """Box -> names of its modules, and of the folders in it."""
    found: dict[str, list[str]] = {}
    for module in sorted(files):
        parts = module.split(".")
        folder = unit(module, files).endswith("/")
        name = parts[-1] if len(parts) <= 2 + folder else f"{parts[2]}/"
        names = found.setdefault(box[unit(module, files)], [])
        if name not in names and not (folder and len(parts) == 2):
            names.append(name)
    return found


def draw(root: Path = ROOT) -> str:
    """The picture as SVG. The same source always gives the same text."""
    files = modules(root)
    graph = joined(imports(files), {name: unit(name, files) for name in files})
    parts: dict[str, tuple[list[Box], int, int, str]] = {}
    bottoms: dict[str, int] = {}
    x, y = 30, 56
    for package in PACKAGES:
        if package == "models":
            x, y = 30, max(bottoms.values()) + 60
        box, level = boxes_of(package, graph)
        inside = {name: {target for target in graph[name] if target in box} for name in box}
        chosen = reduced(joined(inside, box))
        inner = {name: module for name, module in files.items() if name.startswith(f"{package}.")}
        boxes = placed(package, contents(inner, box), level, x, y)
        bottoms[package] = max(item.y + item.height for item in boxes) + 16
        named = {item.name: item for item in boxes}
        parts[package] = (boxes, x, y, arrows(chosen, named, level, x, _WIDTHS[package]))
        x += _WIDTHS[package] + 20
    upper = max(bottoms["service"], bottoms["training"])
    drawn = []
    for package, (boxes, left, top, lines) in parts.items():
        bottom = bottoms["models"] if package == "models" else upper
        drawn += [panel(package, boxes, left, top, bottom - top), lines]
        if package != "models":
            middle = left + _WIDTHS[package] // 2
            way = f"M {middle} {bottom} L {middle} {parts['models'][2] - 4}"
            drawn.append(f'<path class="arrow wide" d="{way}" marker-end="url(#wide)"/>')
    return _page("\n".join(drawn), 1100, bottoms["models"] + 30)


def _page(drawn: str, width: int, height: int) -> str:
    tips = "".join(
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="{size}" markerHeight="{size}" '
        'orient="auto"><path class="tip" d="M 0 0 L 8 4 L 0 8 z"/></marker>'
        for name, size in (("tip", 7), ("wide", 4))
    )
    note = "An arrow means imports. Arrows that follow from others are left out."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">\n'
        f"<title>Imports between the folders of service/, training/ and models/</title>\n<style>{_STYLE}</style>\n"
        f'<defs>{tips}</defs>\n<rect class="page" x="1" y="1" width="{width - 2}" height="{height - 2}" rx="10"/>\n'
        f'<text class="note" x="30" y="34">{note}</text>\n{drawn}\n</svg>\n'
    )


def main() -> None:
    """Write the picture to the file named on the command line, or to docs/architecture.svg."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "architecture.svg"
    file.write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
