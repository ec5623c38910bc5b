"""What cannot fit is refused before it is begun: numbers of a graph that multiply memory, beside what the machine has left."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import modelgraft as mg
from modelgraft.cli import main
from modelgraft.engine.demand import most_demanding
from modelgraft.kernel.words.errors import InputError
from modelgraft.kernel.words.ports import port
from modelgraft.loops import beams
from modelgraft.loops.settings import Settings
from modelgraft.records import room
from support import checkpoints

GIB = 1 << 30
MEMINFO = "MemTotal: 8388608 kB\nMemFree: 1048576 kB\nMemAvailable: 3145728 kB\nSwapFree: 1048576 kB\n"
TALK = """modelgraft: 1
inputs: {{prompt: text}}
nodes:
  llm: {{use: llm/causal, from: {}, with: {{beams: 100000000}}, in: {{prompt: inputs.prompt}}}}
outputs: {{text: llm.text}}
"""


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with 3 GiB of memory and 1 GiB of swap left, in no container; gives the folder where one would have its numbers."""
    (tmp_path / "meminfo").write_text(MEMINFO)
    monkeypatch.setattr(room, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(room, "GROUP", tmp_path)
    return tmp_path


def test_a_machine_has_what_it_calls_available_and_its_swap(machine):
    """As Linux tells it in /proc/meminfo; where nothing tells it nothing is known, and so nothing refused."""
    assert room.free_bytes("cpu") == 4 * GIB
    (machine / "meminfo").unlink()
    assert room.free_bytes("cpu") is None
    room.refuse_without_room("three films", 10**18, "cpu", way="take fewer")


@pytest.mark.parametrize(("most", "left"), [("max", 4 * GIB), (str(5 * GIB), 3 * GIB), (str(50 * GIB), 4 * GIB)])
def test_a_container_has_no_more_than_it_was_given(machine, most, left):
    """Its limit without what it has taken, of which the pages of files may go."""
    (machine / "memory.max").write_text(f"{most}\n")
    (machine / "memory.current").write_text(f"{3 * GIB}\n")
    (machine / "memory.stat").write_text(f"anon {2 * GIB}\ninactive_file {GIB // 2}\nactive_file {GIB // 2}\n")
    assert room.free_bytes("cpu") == left


def step_with(*ports, work=None):
    """A step as a plan has it, with these output ports, which says that it works with so much."""
    config = SimpleNamespace(working=lambda: work or {})
    node = SimpleNamespace(name="eye", config=config, out_ports={f"out{number}": port(text) for number, text in enumerate(ports)})
    return SimpleNamespace(node=node, device="cpu")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("float32[batch 3 5 7]", 4 * 3 * 5 * 7),
        ("float[batch 3 5]", 2 * 3 * 5),  # float16 at least
        ("int64[2*batch 3]", 8 * 2 * 3),
        ("bool[batch 11]", 11),
        ("float32[batch tokens 7]", 0),  # however many tokens there are
        ("list[float32[batch 7]]", 0),
        ("text", 0),
    ],
)
def test_the_values_of_a_record_take_what_their_sizes_say(text, size):
    """A lower bound: of what is not known before a run nothing is said."""
    assert most_demanding([step_with(text)]).bytes == size


def test_what_needs_most_is_told_and_refused(machine):
    """By a plan for one record, by a run for as many as it has."""
    wanted = most_demanding([step_with("float32[batch 7]", work={"500 beams": GIB}), step_with("float32[batch 1024]")])
    assert (wanted.told(), wanted.refuse(4)) == ("", None)
    with pytest.raises(
        InputError, match=r"eye: 5 records of 500 beams take at least 5 GiB, and cpu has 4 GiB left: take fewer records at once"
    ):
        wanted.refuse(5)
    large = most_demanding([step_with(f"float32[batch {2 * GIB}]")])
    assert large.told() == f"eye: the numbers of out0, float32[batch {2 * GIB}], take at least 8 GiB for a record, and cpu has 4 GiB left"


def test_a_run_whose_beams_cannot_fit_is_refused_before_anything_loads(machine, capsys):
    """And a plan tells of them: 100 million beams of the smallest model are hundreds of GB of numbers for one prompt."""
    checkpoints.llama(machine / "model")
    graph = machine / "talk.yaml"
    graph.write_text(TALK.format("./model"), encoding="utf-8")
    with mg.open(graph) as pipeline:
        with pytest.raises(
            InputError, match=r"llm: 100,000,000 beams take at least .* GiB, and cpu has 4 GiB left: choose a smaller number"
        ):
            pipeline.run(prompt="a b")
        assert {row.state for row in pipeline.memory.rows} == {"not loaded"}
    assert main(["plan", str(graph)]) == 0
    assert "llm: 100,000,000 beams take at least" in capsys.readouterr().out


def test_beams_whose_memory_cannot_fit_are_refused_before_they_start(machine):
    """Each row of a session becomes as many as there are beams."""
    session = SimpleNamespace(bytes=GIB, device=torch.device("cpu"))
    with pytest.raises(InputError, match=r"5 beams of a prompt take at least 5 GiB, and cpu has 4 GiB left: set fewer beams"):
        beams.search(session, Settings(max_new_tokens=3, beams=5), asked=[], decode=str, check=list)
