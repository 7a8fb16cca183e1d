#!/usr/bin/env python3
"""Draws states.svg from the code: ./states.py >states.svg

Reads app/handlers without running it. A function with a route is a state; what it returns is where it leads: another state, what another
function of its module returns, or, below the spam filter, the filter's `next_state`. Needs Python, and nothing else.
"""

import ast
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

HANDLERS = Path(__file__).resolve().parent / "app" / "handlers"

#: The machines that have several states, a row each; and those with one function, together in the last row.
MACHINES = ("post", "comment", "delete")
OTHERS = ("postmaster", "late", "index", "forward")

WIDTH, BOX, GAP, EDGE = 1260, 260, 60, 20
ROW, TITLE, LINE, ARC = 72, 30, 15, 26

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #22211f; }
.machine { font-size: 15px; font-weight: 600; }
.about, .address { fill: #6b6760; }
.address { font: 11px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.state { font-weight: 600; }
rect { fill: #fdfcfa; stroke: #a39d92; }
.stateless { stroke-dasharray: 5 4; }
path { fill: none; stroke: #9a3412; stroke-width: 1.5; }
marker path { fill: #9a3412; stroke: none; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e2dc; }
  .about, .address { fill: #a19b92; }
  rect { fill: #24221f; stroke: #6f6a62; }
  path { stroke: #f0a070; }
  marker path { fill: #f0a070; }
}
"""


@dataclass
class State:
    """A function with a route."""

    name: str
    addresses: list[str]
    stateless: bool
    leads_to: set[str] = field(default_factory=set)


@dataclass
class Machine:
    """A module of handlers."""

    name: str
    about: str
    states: list[State]


# -- reading


def read(name):
    """The machine of a module: its states, each behind those that lead to it."""
    reader = Reader(ast.parse((HANDLERS / f"{name}.py").read_text("utf-8")))
    states = [reader.state(function) for function in reader.functions.values() if reader.addresses(function)]
    return Machine(name, reader.about, sorted(states, key=lambda state: len(before(state.name, states))))


def before(name, states, seen=frozenset()):
    """The names of all states from which there is a way to this one."""
    found = {state.name for state in states if name in state.leads_to} - seen - {name}
    return found.union(*(before(each, states, seen | found | {name}) for each in found))


class Reader:
    """What can be known of a module without running it."""

    def __init__(self, module):
        self.about = ast.get_docstring(module).partition("\n")[0]
        self.functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
        calls = [node for node in module.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)]
        self.assigned = {node.targets[0].id: node.value for node in calls}

    def state(self, function):
        stateless = any(isinstance(each, ast.Name) and each.id == "stateless" for each in function.decorator_list)
        return State(function.name, self.addresses(function), stateless, self.leads_to(function) - {function.name})

    def addresses(self, function):
        """The local parts that its routes take, also those that are like another's."""
        found = []
        for each in function.decorator_list:
            if isinstance(each, ast.Call) and each.func.id == "route":
                found.append(each.args[0].value.partition("@")[0])
            elif isinstance(each, ast.Call) and each.func.id == "route_like":
                found += self.addresses(self.functions[each.args[0].id])
        return list(dict.fromkeys(found))

    def leads_to(self, function):
        """The names of all states that it may return."""
        returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value]
        filters = [each.id for each in function.decorator_list if isinstance(each, ast.Name)]
        return set().union(*map(self.states_in, returned), *map(self.next_state, filters))

    def states_in(self, value):
        """The states that an expression may be."""
        if isinstance(value, ast.IfExp):
            return self.states_in(value.body) | self.states_in(value.orelse)
        if isinstance(value, ast.Name) and value.id in self.functions:
            return {value.id}
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
            return self.states_of_call(value.func.id)
        return set()

    def states_of_call(self, name):
        """What calling this may give: a function of the module, or one that was put below the spam filter."""
        if name in self.functions:
            return self.leads_to(self.functions[name])
        made = self.assigned.get(name)
        return self.leads_to(self.functions[made.args[0].id]) | self.next_state(made.func.id) if made else set()

    def next_state(self, name):
        """Where the filter of this name sends who writes spam."""
        made = self.assigned.get(name)
        return {each.value.id for each in made.keywords if each.arg == "next_state"} if made else set()


# -- drawing


def draw(machines, others):
    """The picture, as SVG."""
    parts, top = [], EDGE
    for machine in machines:
        drawn, top = row(machine, top)
        parts += drawn
    parts += last_row(others, top)
    height = top + TITLE + ROW + EDGE
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="title">',
        '<title id="title">The states of the One Shot Blog</title>',
        f"<style>{STYLE}</style>",
        '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">',
        '<path d="M0 0 8 4 0 8z"/></marker>',
        *parts,
        "</svg>",
    ])  # fmt: skip


def row(machine, top):
    """One machine, and where the next begins."""
    names = [state.name for state in machine.states]
    moves = [(names.index(state.name), names.index(to)) for state in machine.states for to in sorted(state.leads_to)]
    over = sorted((pair for pair in moves if pair[1] - pair[0] != 1), key=lambda pair: abs(pair[1] - pair[0]))
    box_top = top + TITLE + ARC * len(over)
    parts = title(machine.name, machine.about.rstrip("."), EDGE, top)
    parts += [part for at, state in enumerate(machine.states) for part in box(state, left_of(at), box_top)]
    for start, end in moves:
        if end - start == 1:
            y = box_top + ROW // 2
            parts.append(f'<path d="M{left_of(start) + BOX} {y}H{left_of(end) - 2}" marker-end="url(#arrow)"/>')
    for number, (start, end) in enumerate(over, 1):
        parts.append(arc(start, end, number, box_top))
    return parts, box_top + ROW + 2 * EDGE


def arc(start, end, number, box_top):
    """From the top of one box over those between to the top of another. Each has a height and a place of its own."""
    y = box_top - ARC * number
    x, to = (left_of(at) + BOX // 2 + EDGE * number for at in (start, end))
    bend = 8 if to > x else -8
    return f'<path d="M{x} {box_top}V{y + 8}q0-8 {bend}-8H{to - bend}q{bend} 0 {bend} 8V{box_top - 2}" marker-end="url(#arrow)"/>'


def last_row(machines, top):
    parts = []
    for at, machine in enumerate(machines):
        parts += title(machine.name, "stateless" if machine.states[0].stateless else "", left_of(at), top)
        parts += box(machine.states[0], left_of(at), top + TITLE)
    return parts


def title(name, about, left, top):
    return [
        f'<text class="machine" x="{left}" y="{top + 15}">{name}</text>',
        f'<text class="about" x="{left + 96}" y="{top + 15}">{escape(about, quote=False)}</text>',
    ]


def box(state, left, top):
    kind = ' class="stateless"' if state.stateless else ""
    words = [f'<rect{kind} x="{left}" y="{top}" width="{BOX}" height="{ROW}" rx="8"/>']
    words.append(f'<text class="state" x="{left + 12}" y="{top + 20}">{state.name}</text>')
    for number, address in enumerate(state.addresses):
        words.append(f'<text class="address" x="{left + 12}" y="{top + 36 + LINE * number}">{escape(address)}@</text>')
    return words


def left_of(at):
    return EDGE + at * (BOX + GAP)


if __name__ == "__main__":
    print(draw(map(read, MACHINES), map(read, OTHERS)))
