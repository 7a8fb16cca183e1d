"""The benchmarks work: what they compute of samples, and a run of each kind with few messages. How fast we are is not tested here."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import page, results, rows
from benchmarks.curves import Curve
from benchmarks.environment import Missing
from benchmarks.load import Load, Sink
from benchmarks.results import Aim, Row, Sample
from benchmarks.rows import Measure
from benchmarks.server import Failed, Server, free_port

needs_postfix = pytest.mark.program("smtp-source", "smtp-sink")


def row(*rates: tuple[float, float]) -> Row:
    """A row with these rates of Lamson and Salmon in each round."""
    aims = [Aim("first", "Lamson", "Salmon", 3), Aim("then", "Lamson", "Salmon", 5)]
    rounds = [{"Lamson": Sample(int(ours), 1.0, 0.5), "Salmon": Sample(int(theirs), 1.0, 0.5)} for ours, theirs in rates]
    return Row("talk", "Talk", aims, "The same work.", rounds=rounds)


# -- what is computed


def test_ratios_are_taken_within_each_round() -> None:
    """The machine was twice as slow in the second round, for both."""
    (_, spread), _ = row((400, 100), (200, 50), (450, 100)).verdicts()
    assert (spread.median, spread.low, spread.high) == (4, 4, 4.5)


def test_the_table_says_which_aims_are_missed() -> None:
    assert "| met |" in results.aims_table([row((400, 100))])
    assert "| not yet |" in results.aims_table([row((400, 100))])
    assert "| **missed** |" in results.aims_table([row((200, 100))])


def test_memory_is_to_be_small() -> None:
    aim = Aim("first", "Lamson", None, 100)
    assert aim.met(99)
    assert not aim.met(101)


def test_the_check_fails_under_three_quarters_of_what_is_recorded() -> None:
    recorded = results.to_json([row((400, 100))])
    assert results.fallen([row((310, 100))], recorded) == []
    assert results.fallen([row((290, 100))], recorded) == ["talk: Lamson / Salmon is 2.90, recorded is 4.00"]


def test_the_check_fails_for_what_could_not_be_measured() -> None:
    recorded = results.to_json([row((400, 100))])
    unmeasured = replace(row(), missing={"Salmon": "not installed"})
    assert results.fallen([unmeasured], recorded) == ["talk: Lamson / Salmon could not be measured; recorded is 4.00"]


def test_the_check_knows_that_memory_grows_worse_upwards() -> None:
    aim = Aim("first", "Lamson", None, 100)
    small, large = (Row("idle", "Idle", [aim], "", rounds=[{"Lamson": Sample(1, 1, 1, megabytes)}]) for megabytes in (30.0, 50.0))
    assert results.fallen([small], results.to_json([large])) == []
    assert len(results.fallen([large], results.to_json([small]))) == 1


def test_a_peer_that_is_missing_is_named_and_the_others_are_measured(tmp_path: Path) -> None:
    def absent(messages: int, folder: Path) -> Sample:
        raise Missing("Salmon needs python3.11, which is not installed")

    measure = Measure(row(), {"Lamson": lambda messages, folder: Sample(messages, 1.0, 0.1), "Salmon": absent}, 10)
    measure.round(0, tmp_path, quick=True)
    assert list(measure.row.rounds[0]) == ["Lamson"]
    assert "python3.11" in results.notes([measure.row])
    assert results.aims_table([measure.row]).count("\n") == 1, "no verdict without a peer"


def test_the_page_has_what_is_recorded_between_its_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the page stays, and a row that was not measured now keeps what was recorded of it."""
    monkeypatch.setattr(page, "RECORDED", tmp_path / "recorded.json")
    monkeypatch.setattr(page, "PAGE", tmp_path / "speed.md")
    monkeypatch.setattr(page, "about", lambda: {"day": "1 May", "machine": "2 cores", "versions": "Lamson 2"})
    page.PAGE.write_text(f"before\n{page.BEGIN}old figures\n{page.END}behind\n")
    other = replace(row((30, 10)), name="other", title="Other")
    page.write([row(), replace(other, rounds=[])], page.merged(page.load(), [other], []))
    page.write([row(), replace(other, rounds=[])], page.merged(page.load(), [row((400, 100))], []))
    text = page.PAGE.read_text()
    assert text.startswith("before\n")
    assert text.endswith("behind\n")
    assert "old figures" not in text
    assert "in 1 rounds: 2 cores" in text
    assert "| Talk | Lamson / Salmon | 4.00 x" in text
    assert "| Other | Lamson / Salmon | 3.00 x" in text
    page.write([row(), replace(other, rounds=[])], page.merged(page.load(), [row((400, 100), (300, 100))], []))
    assert "in 1 rounds (Talk: 2): 2 cores" in page.PAGE.read_text()


def test_a_curve_has_a_point_for_each_size_within_its_ends(tmp_path: Path) -> None:
    curve = Curve("x", "X", "x", "y", [1, 10, 100], {"all": lambda size, _: size, "some": lambda size, _: size}, within={"some": (1, 10)})
    curve.measure(tmp_path, False, lambda text: None)
    assert curve.plain()["lines"] == {"all": [(1, 1), (10, 10), (100, 100)], "some": [(1, 1), (10, 10)]}


def test_the_picture_can_be_read_in_the_dark(tmp_path: Path) -> None:
    drawing = pytest.importorskip("benchmarks.drawing", reason="needs matplotlib: pip install '.[benchmarks]'", exc_type=ImportError)
    curve = Curve("x", "A title", "sizes", "costs", [1, 10], {"Lamson": lambda size, _: size})
    curve.measure(tmp_path, False, lambda text: None)
    text = drawing.svg({"x": curve.plain()})
    assert "A title" in text
    assert "prefers-color-scheme: dark" in text
    assert text == drawing.svg({"x": curve.plain()}), "the same figures make the same picture"


# -- what is run


def measured(name: str, tmp_path: Path, *subjects: str) -> dict[str, Sample]:
    """One quick round of a row, of these subjects alone."""
    (found,) = rows.only(rows.measures([]), [name])
    found = replace(found, subjects={subject: found.subjects[subject] for subject in subjects})
    found.round(0, tmp_path, quick=True)
    return found.row.rounds[0]


@needs_postfix
@pytest.mark.parametrize("name", ["kept", "new"])
def test_the_session_beside_smtp_sink(name: str, tmp_path: Path) -> None:
    samples = measured(name, tmp_path, "Lamson", "smtp-sink")
    assert all(sample.messages == 100 and sample.rate > 10 for sample in samples.values())


@needs_postfix
def test_a_conversation_in_a_generated_project(tmp_path: Path) -> None:
    sample = measured("conversation", tmp_path, "Lamson")["Lamson"]
    assert sample.messages == 100
    assert sample.cpu > 0


def test_idle_connections(tmp_path: Path) -> None:
    assert 10 < measured("idle", tmp_path, "Lamson")["Lamson"].megabytes < 200


@pytest.mark.parametrize("what", ["states", "later", "due"])
def test_growth(what: str, tmp_path: Path) -> None:
    assert rows.work("growth", "lamson", what, 20, tmp_path).messages in (20, 500)


@pytest.mark.parametrize(("name", "subject"), [("match", "Lamson, 10 routes"), ("queue", "Lamson, 1,000")])
def test_work_without_a_server(name: str, subject: str, tmp_path: Path) -> None:
    assert measured(name, tmp_path, subject)[subject].rate > 100


@needs_postfix
def test_a_refused_message_stops_the_run(tmp_path: Path) -> None:
    with rows.program("stateless", "lamson", tmp_path) as server, pytest.raises(Failed, match="550"):
        Load(recipient="stranger@elsewhere.example").send(server.port, 20)


def test_a_server_that_does_not_start_is_told_with_its_last_words() -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such luck')"]
    with pytest.raises(Failed, match="no such luck"), Server(command, free_port()):
        pass


@needs_postfix
def test_the_sink_counts() -> None:
    with Sink() as sink:
        Load().send(sink.port, 100)
        sink.wait_for(100)
        assert sink.count == 100


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """`benchmarks/run` in the environment that is there already."""
    return subprocess.run([sys.executable, "-m", "benchmarks", *words], cwd=Path(__file__).parent.parent, capture_output=True, text=True)


def test_the_command_explains_itself() -> None:
    ran = command("--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "--row" in ran.stdout


def test_figures_of_a_quick_run_are_not_kept() -> None:
    ran = command("--quick", "--record")
    assert ran.returncode == 2
    assert "--quick gives no figures" in ran.stderr
