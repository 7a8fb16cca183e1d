"""That the picture of the states is drawn from this code, and says what the router knows."""

from pathlib import Path

import states
from config import testing  # first, so that everything goes to the tests' own queue and database
from lamson.routing import Router


def machines():
    return [states.read(name) for name in (*states.MACHINES, *states.OTHERS)]


def test_the_picture_is_up_to_date():
    drawn = states.draw(map(states.read, states.MACHINES), map(states.read, states.OTHERS))
    assert Path("states.svg").read_text("utf-8").strip() == drawn, "draw it anew: ./states.py >states.svg"


def test_the_picture_shows_the_states_that_the_router_has():
    shown = {(f"app.handlers.{machine.name}", state.name) for machine in machines() for state in machine.states}
    other_processes = {("app.handlers.index", "INDEXER"), ("app.handlers.forward", "FORWARD")}
    assert shown - other_processes == {(route.module, route.name) for route in Router.routes}


def test_it_finds_where_a_state_leads():
    leads_to = {(machine.name, state.name): state.leads_to for machine in machines() for state in machine.states}
    assert leads_to["post", "START"] == {"CONFIRMING"}
    assert leads_to["post", "CONFIRMING"] == {"POSTING"}
    assert leads_to["post", "POSTING"] == set()
    assert leads_to["comment", "START"] == {"CONFIRMING", "SPAMMING"}
    assert leads_to["comment", "COMMENTING"] == {"SPAMMING"}
    assert leads_to["delete", "START"] == {"DELETING"}
