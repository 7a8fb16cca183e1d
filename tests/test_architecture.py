"""The tables of docs/architecture.md, held against the code."""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOUSE = ROOT / "lamson"
PAGE = ROOT / "docs" / "architecture.md"

#: No function of the package is longer, its docstring not counted.
LONGEST_FUNCTION = 40

#: Half of the functions are shorter.
HALF_OF_FUNCTIONS = 10

#: What makes something that can be changed.
MAKERS_OF_MUTABLES = {
    *("bytearray", "defaultdict", "OrderedDict", "Counter", "ChainMap", "deque", "array", "count", "cycle", "iter"),
    *("Lock", "RLock", "Condition", "Event", "Semaphore", "BoundedSemaphore", "Barrier", "local", "Queue", "SimpleQueue", "ContextVar"),
    *("WeakKeyDictionary", "WeakValueDictionary", "WeakSet", "SimpleNamespace", "ThreadPoolExecutor", "Environment", "RoutingBase"),
}

#: Methods that change what they are called on.
CHANGERS = {
    *("append", "appendleft", "extend", "insert", "add", "update", "setdefault"),
    *("pop", "popleft", "popitem", "remove", "discard", "clear", "sort", "reverse"),
}



# -- the page


@dataclass(frozen=True)
class Row:
    module: str
    built: bool
    may_import: frozenset[str] | None  # None: anything above


def rows_of_table(heading: str) -> list[list[str]]:
    """The cells of the first table under this heading of the page, without its two head lines."""
    section = PAGE.read_text("utf-8").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def code_words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@cache
def table() -> dict[str, Row]:
    rows = {}
    for _, module, _, may_import in rows_of_table("The floors"):
        (name,) = code_words(module)
        allowed = None if may_import == "anything above" else frozenset(code_words(may_import))
        rows[name] = Row(name, "(not yet)" not in module, allowed)
    return rows


# -- the code


@dataclass
class Module:
    name: str  # as in the table; "" is lamson itself
    path: Path
    tree: ast.Module
    package: bool
    imports: list[tuple[str, int]] = field(default_factory=list)  # (module as in the table, line)

    @property
    def row(self) -> str:
        """The row that it belongs to: every module of the command line belongs to `commands`."""
        return "commands" if self.name.split(".")[0] in ("commands", "__main__") else self.name


@cache
def modules() -> list[Module]:
    found = []
    for path in sorted(HOUSE.rglob("*.py")):
        parts = path.relative_to(HOUSE).with_suffix("").parts
        if parts[0] == "data":
            continue
        package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if package else parts)
        found.append(Module(name, path, ast.parse(path.read_text("utf-8")), package))
    names = {module.name for module in found}
    for module in found:
        module.imports = [(to, line) for to, line in imports_of(module, names) if to != module.name]
    return found


def imports_of(module: Module, names: set[str]) -> Iterator[tuple[str, int]]:
    """Which of our modules it imports when it runs."""
    for node in outside_type_checking(module.tree):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            assert node.level == 0, f"{module.path}:{node.lineno}: imports of Lamson name the whole path, `from lamson...`"
            wanted = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for full in wanted:
            if full.split(".")[0] == "lamson":
                yield nearest(full.removeprefix("lamson").removeprefix("."), names), node.lineno


def nearest(dotted: str, names: set[str]) -> str:
    """The module that a dotted name is, or is a name of."""
    while dotted and dotted not in names:
        dotted = dotted.rpartition(".")[0]
    return dotted


def outside_type_checking(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from outside_type_checking(node)


def place(module: Module, node: ast.AST) -> str:
    return f"{module.path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def functions(module: Module) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef))


def each(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("module", modules(), ids=lambda module: module.name or name)


# -- imports


def test_every_room_of_the_table_is_there_and_those_not_built_yet_are_empty() -> None:
    there = {module.row for module in modules() if not module.package}
    empty = {module.row for module in modules() if not module.package and len(module.tree.body) <= 1}  # a docstring
    assert set(table()) - there == set(), "in the table, but not in lamson/"
    assert there - set(table()) == set(), "not in the table of docs/architecture.md"
    assert {row.module for row in table().values() if not row.built} - empty == set(), "built: take its (not yet) from the table"
    assert {row.module for row in table().values() if row.built} & empty == set(), "empty: say (not yet) in the table"


def test_the_table_points_one_way() -> None:
    above: set[str] = set()
    for row in table().values():
        assert (row.may_import or frozenset()) <= above, f"{row.module} may import only what stands above it"
        above.add(row.module)


@each("lamson")
def test_a_module_imports_what_its_row_allows(module: Module) -> None:
    row = table().get(module.row)
    allowed = frozenset() if row is None else row.may_import
    if allowed is None:
        return
    wrong = [f"{module.path.relative_to(ROOT)}:{line} imports {to or 'lamson'}" for to, line in module.imports if to not in allowed | {""}]
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_the_command_line() -> None:
    wrong = [m.name for m in modules() if m.row != "commands" and any(to.split(".")[0] == "commands" for to, _ in m.imports)]
    assert wrong == []


def test_no_cycle() -> None:
    graph = {module.name: {to for to, _ in module.imports} for module in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as cycle:
        pytest.fail(" -> ".join(cycle.args[1]))


@each("lamson")
def test_no_import_inside_a_function(module: Module) -> None:
    inside = [node for f in functions(module) for node in ast.walk(f) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not inside, ", ".join(place(module, node) for node in inside)


def test_utils_only_re_exports() -> None:
    (utils,) = [module for module in modules() if module.name == "utils"]
    assert not [node for node in ast.walk(utils.tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda)]


# -- barriers


def catches_all(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException")) for kind in kinds)


def barriers() -> set[tuple[str, str]]:
    """(module, function) of each."""
    return {(code_words(module)[0], function) for _, module, names in rows_of_table("Barriers") for function in code_words(names)}


def handlers_with_function(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.ExceptHandler]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ExceptHandler):
            yield inside, node
        yield from handlers_with_function(node, node.name if isinstance(node, ast.FunctionDef) else inside)


def test_everything_is_caught_at_the_barriers_alone() -> None:
    found = {
        (module.name, function): place(module, handler)
        for module in modules()
        for function, handler in handlers_with_function(module.tree)
        if catches_all(handler) and not isinstance(handler.body[-1], ast.Raise)
    }
    wrong = [f"{spot} ({function})" for (name, function), spot in found.items() if (name, function) not in barriers()]
    assert not wrong, "catches every exception, and is no barrier of docs/architecture.md: " + ", ".join(wrong)
    assert barriers() <= set(found), "barriers of docs/architecture.md that are not in the code"


# -- state of modules


def named_mutables() -> set[tuple[str, str]]:
    return {(code_words(module)[0], code_words(name)[0]) for module, name, _ in rows_of_table("What a module may keep")}


def top_level_values(module: Module) -> Iterator[tuple[str, ast.expr]]:
    for node in module.tree.body:
        if isinstance(node, ast.Assign):
            yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value


def is_table(value: ast.expr) -> bool:
    """A dict, list or set: a constant as long as it is in capitals and nobody changes it."""
    made = isinstance(value, ast.Call) and ast.unparse(value.func) in ("dict", "dict.fromkeys", "list", "set")
    return made or isinstance(value, ast.Dict | ast.List | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)


def makes_a_mutable(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2] in MAKERS_OF_MUTABLES


def changed_names(module: Module) -> set[str]:
    """Names whose contents a function of this module changes: `X[...] = `, `del X[...]`, `X.append(...)`, `X += ...`."""
    changed = set()
    for node in [node for function in functions(module) for node in ast.walk(function)]:
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            changed.add(ast.unparse(node.value))
        elif isinstance(node, ast.AugAssign):
            changed.add(ast.unparse(node.target))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGERS:
            changed.add(ast.unparse(node.func.value))
    return changed


@each("lamson")
def test_a_module_keeps_no_state(module: Module) -> None:
    named = {name for where, name in named_mutables() if where == module.name}
    changed = changed_names(module)
    wrong = [f"{place(module, node)}: global" for node in ast.walk(module.tree) if isinstance(node, ast.Global)]
    for name, value in top_level_values(module):
        if name in named or name == "__all__":
            continue
        if is_table(value) and (name != name.upper() or name in changed):
            wrong.append(f"{place(module, value)}: {name} is not in capitals, or is changed")
        if makes_a_mutable(value):
            wrong.append(f"{place(module, value)}: {name} = {ast.unparse(value)}")
    assert not wrong, "\n".join(wrong) + "\n(docs/architecture.md, What a module may keep)"


def test_what_may_be_kept_is_there() -> None:
    there = {(module.name, name) for module in modules() for name, _ in top_level_values(module)}
    assert named_mutables() <= there


# -- sizes


def length(function: ast.FunctionDef) -> int:
    """Its lines, the docstring not counted."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_functions_are_short() -> None:
    lengths = sorted(((length(f), f"{place(module, f)} {f.name}") for module in modules() for f in functions(module)), reverse=True)
    too_long = [f"{lines} lines: {spot}" for lines, spot in lengths if lines > LONGEST_FUNCTION]
    assert not too_long, "\n".join(too_long)
    assert statistics.median(lines for lines, _ in lengths) < HALF_OF_FUNCTIONS


@each("lamson")
def test_a_module_says_what_it_is_for(module: Module) -> None:
    assert ast.get_docstring(module.tree), f"{module.path.relative_to(ROOT)} has no docstring"
