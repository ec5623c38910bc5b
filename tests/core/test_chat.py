"""`modelgraft chat`: messages and answers with their media, in one process; what is wrong with one ends nothing."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
from PIL import Image

import modelgraft as mg
from modelgraft.cli.chat_answers import Writing
from modelgraft.cli.chat_doors import doors_of, with_history
from modelgraft.cli.chat_pictures import WAYS, show
from modelgraft.cli.screen import Screen
from modelgraft.records.record_type import types_of
from support.chatting import registry
from support.command import commands

TESTS = Path(__file__).parents[1]
# Words, a picture and a sound in; a picture and a sound come back where they were given. What was said before is counted.
ECHO = """# Say it back.
modelgraft: 1
inputs: {text: "optional[text]", image: "optional[image]", audio: "optional[audio]", history: "optional[conversation]"}
nodes:
  nothing: {use: toy/word, with: {word: nothing}}
  said: {use: router/merge, in: {options: [inputs.text, nothing]}}
  answer: {use: toy/answer, in: {text: said, history: inputs.history}}
outputs: {text: answer, picture: inputs.image, sound: inputs.audio}
"""
BARE = """modelgraft: 1
inputs: {prompt: text}
nodes: {llm: {use: toy/model, in: {prompt: inputs.prompt}}}
outputs: {text: llm}
"""
SEES = """modelgraft: 1
inputs: {image: image, text: {type: text, default: "?"}}
nodes:
  size: {use: toy/size, in: {image: inputs.image}}
  all: {use: toy/join, in: {one: inputs.text, other: size}}
outputs: {text: all}
"""
EYE = """modelgraft: 1
inputs: {image: image}
nodes: {size: {use: toy/size, in: {image: inputs.image}}}
outputs: {text: size}
"""
TALKS = """modelgraft: 1
inputs: {talk: conversation}
nodes: {back: {use: toy/back, in: {talk: inputs.talk}}}
outputs: {talk: back}
"""


@pytest.fixture
def chat(monkeypatch, tmp_path, capsys):
    """Pipe lines into a chat in an empty folder; gives exit code, stdout and stderr."""
    run = commands(monkeypatch, tmp_path, capsys)
    monkeypatch.setattr("modelgraft.installed.discovery.discover", registry)
    for name, text in {"echo": ECHO, "bare": BARE, "sees": SEES, "eye": EYE, "talks": TALKS}.items():
        Path(f"{name}.yaml").write_text(text if text.startswith("#") else f"# {name}.\n{text}")
    Image.new("RGB", (40, 30), "red").save("cat.png")
    Image.new("RGB", (20, 10), "blue").save("a dog.png")
    from modelgraft.records.writing import write_value

    write_value(mg.Audio(numpy.zeros((1, 800), numpy.float32), 8_000), Path("hum.wav"))

    def pipe(graph, *lines, words=("--quiet",)):
        content = b"".join(line if isinstance(line, bytes) else line.encode() + b"\n" for line in lines)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        return run("chat", f"{graph}.yaml", *words)

    return pipe


def size_of(file: str) -> tuple[int, int]:
    with Image.open(file) as picture:
        return picture.size


def test_each_line_is_a_message_and_what_was_said_goes_along(chat):
    """The toy says how many messages it has read before."""
    assert chat("echo", "a", "b", "", "c") == (0, "a after 0\nb after 2\nc after 4\n", "")


def test_files_go_with_the_next_message_and_come_back_in_files_that_are_named(chat):
    """Once; an empty line, or the end of the input, sends them alone."""
    code, out, _ = chat("echo", "/attach cat.png", "look", "again", "/attach hum.wav", "", "/attach a dog.png")
    assert code == 0
    assert out.splitlines() == [
        "look after 0",
        "[image: echo-chat/echo-1-image.png]",
        "again after 2",
        "nothing after 4",
        "[audio: echo-chat/echo-3-audio.wav]",
        "nothing after 6",
        "[image: echo-chat/echo-4-image.png]",
    ]
    assert [size_of(f"echo-chat/echo-{turn}-image.png") for turn in (1, 4)] == [(40, 30), (20, 10)]
    _, out, _ = chat("echo", "/attach cat.png", "look", words=("--quiet", "--media", "echo-chat"))
    assert "[image: echo-chat/echo-1-image-2.png]" in out, "no file is replaced"


def test_a_file_that_takes_the_place_of_another_is_told(chat):
    """Of an input that takes one, only the last goes along: so it is said of each but the first."""
    _, out, err = chat("echo", "/attach cat.png 'a dog.png'", "look", words=())
    told = [line for line in err.splitlines() if line.startswith("attached as image")]
    assert [" in place of the one before, because it takes one; " in line for line in told] == [False, True]
    assert size_of("echo-chat/echo-1-image.png") == (20, 10), out


def test_undo_takes_the_picture_of_a_question_back(chat):
    """What is asked then is about the picture before, or about none."""
    code, out, err = chat(
        "sees", "/attach cat.png", "how large?", "/attach a dog.png", "and this?", "/retry", "/undo", "sure?", "/undo", "/undo", "hm"
    )
    assert out == "how large? 40 x 30\nand this? 20 x 10\nand this? 20 x 10\nsure? 40 x 30\n"
    assert (code, "input 'image' is missing" in err) == (1, True)


def test_undo_retry_and_new_change_what_was_said(chat):
    """A retried question takes the place of the one before, with its files."""
    _, out, _ = chat("echo", "a", "b", "/undo", "c", "/attach cat.png", "d", "/retry", "/new", "e", "/undo", "f")
    assert [line for line in out.splitlines() if not line.startswith("[")] == [
        "a after 0", "b after 2", "c after 2", "d after 4", "d after 4", "e after 0", "f after 0",
    ]  # fmt: skip
    assert out.count("[image: ") == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("bad", "bad was given"),
        ("/attach nowhere.png", "there is no file 'nowhere.png'"),
        ("/attach echo.yaml", "echo takes no file like 'echo.yaml': it takes files such as"),
        ("/atach cat.png", "there is no '/atach'; there is: /help"),
        ("/save talk.txt", "nothing was said yet"),
        ("/load nowhere.json", "'nowhere.json' cannot be read as a conversation: No such file"),
        ("/load echo.yaml", "'echo.yaml' cannot be read as a conversation"),
        ("/undo", "there is nothing to take back"),
        ("/retry", "there is no question to ask again: none was asked since the start, or since /undo, /new or /load"),
        ("/seed x", "/seed takes a whole number, found 'x'"),
        ("/set nothing", "/set takes NAME=VALUE"),
        (b"\xff\n", "line 1 is no UTF-8 text: byte 0 is 0xff"),
    ],
)
def test_what_is_wrong_with_a_line_is_told_and_the_conversation_stays(chat, line, message):
    """Through a pipe the code says so at the end."""
    code, out, err = chat("echo", line, "fine")
    assert (code, out, err.count("error: ")) == (1, "fine after 0\n", 1)
    assert message in err


def test_a_question_that_failed_is_no_part_of_the_conversation_and_keeps_its_files(chat):
    _, out, _ = chat("echo", "a", "/attach cat.png", "bad", "b")
    assert out == "a after 0\nb after 2\n[image: echo-chat/echo-2-image.png]\n"


def test_a_conversation_is_saved_as_a_page_and_goes_on_from_json(chat):
    code, _, err = chat("echo", "/attach cat.png", "look <b>", "/save talk.html", "/save talk.json", "/save talk.txt")
    assert (code, "wrote 2 messages to talk.html" in err, "ends in .html or .json, not 'talk.txt'" in err) == (1, True, True)
    page = Path("talk.html").read_text()
    assert ("look &lt;b&gt;" in page, page.count('<img src="data:image/png;base64,')) == (True, 2)
    assert "<time " in page
    found = json.loads(Path("talk.json").read_text())
    assert [message["role"] for message in found] == ["user", "assistant"]
    assert found[1]["nodes"]
    _, out, err = chat("echo", "more", "/save again.json", words=("--quiet", "--load", "talk.json"))
    assert (out, "the conversation has 2 messages" in err) == ("more after 2\n", True)
    assert len(json.loads(Path("again.json").read_text())) == 4


def test_a_file_that_holds_no_conversation_leaves_the_one_that_is_there(chat):
    Path("odd.json").write_text('[{"role": "user"}]')
    code, out, err = chat("echo", "a", "/load odd.json", "b")
    assert (code, out) == (1, "a after 0\nb after 2\n")
    assert "exactly `role` (text) and `content`" in err


def test_it_is_kept_at_the_end_by_an_option(chat):
    assert chat("echo", "a", words=("--quiet", "--save", "end.html"))[0] == 0
    assert "a after 0" in Path("end.html").read_text()
    code, _, err = chat("echo", "a", words=("--save", "end.doc"))
    assert (code, "ends in .html or .json" in err) == (1, True)
    code, _, err = chat("echo", "a", "/save echo.json", "/save end.html", words=("--save", "no/where.html"))
    assert (code, "there is no folder 'no'" in err) == (1, True)


def test_with_json_every_answer_is_one_line(chat):
    _, out, _ = chat("echo", "/attach cat.png", "a", "bad", words=("--json",))
    first, second = (json.loads(line) for line in out.splitlines())
    assert (first["ok"], first["answer"], first["files"]) == (True, "a after 0", {"image": "echo-chat/echo-1-image.png"})
    assert (second["ok"], second["error"]["node"]) == (False, "answer")


def test_a_picture_that_is_needed_stays_until_there_is_another(chat):
    """A graph that answers about a picture is asked on about the same one."""
    code, out, err = chat("sees", "hm", "/attach cat.png", "how large?", "sure?", "/attach a dog.png", "and this?")
    assert (code, out) == (1, "how large? 40 x 30\nsure? 40 x 30\nand this? 20 x 10\n")
    assert "image" in err


def test_a_model_that_reads_a_conversation_gets_it_in_place_of_the_words(chat):
    """Its input is text in the graph; nothing else but numbers goes into the model, so that nothing of a prompt is lost."""
    assert chat("bare", "a", "b") == (0, "1: a\n3: a|1: a|b\n", "")


def test_a_picture_without_words_is_refused_where_words_are_answered(chat):
    """The conversation is of words alone, and the picture goes into an input of its own; it waits for the words."""
    nodes = "{size: {use: toy/size, in: {image: inputs.image}}, llm: {use: toy/model, in: {prompt: inputs.prompt}}}"
    Path("seen.yaml").write_text(
        f"modelgraft: 1\ninputs: {{image: image, prompt: text}}\nnodes: {nodes}\noutputs: {{text: llm, size: size}}\n"
    )
    code, out, err = chat("seen", "/attach cat.png", "", "look")
    assert (code, out) == (1, "1: look\n")
    assert "error: seen answers words: write a message beside image" in err


def test_a_graph_of_conversations_gets_it_whole_and_answers_with_its_last_message(chat):
    code, out, _ = chat("talks", "a", "b")
    assert (code, out) == (0, "1\n[image: talks-chat/talks-1-image.png]\n3\n[image: talks-chat/talks-2-image.png]\n")


def test_a_graph_without_words_takes_files_alone(chat):
    code, out, err = chat("eye", "hello", "/attach cat.png", "")
    assert (code, out) == (1, "40 x 30\n")
    assert "eye takes no words, but files (image): /attach FILE, then an empty line" in err


@pytest.mark.parametrize(
    ("node", "outputs", "message"),
    [
        ("{use: toy/keep, in: {x: inputs.x}}", "{text: m}", "takes neither words nor files to talk about; it takes: x"),
        ("{use: router/match, with: {text: a}, in: {text: inputs.x}}", "{mask: m.matches}", "answers with neither words nor files"),
    ],
)
def test_a_graph_that_cannot_talk_is_told(chat, node, outputs, message):
    kind = "object" if "keep" in node else "text"
    Path("odd.yaml").write_text(f"# Odd.\nmodelgraft: 1\ninputs: {{x: {kind}}}\nnodes: {{m: {node}}}\noutputs: {outputs}\n")
    code, _, err = chat("odd", "a")
    assert (code, message in err) == (1, True), err


def test_help_says_what_may_be_attached(chat):
    _, _, err = chat("echo", "/help", "/attach")
    assert "/attach FILE" in err
    assert "image takes .png" in err
    assert "attached: nothing" in err


def test_the_doors_of_a_graph_are_found():
    """Of llava the words become a conversation; of read they do not, because its prompt holds the text of a page as well."""
    for name, taking in {"llava": "whole", "read": "alone", "companion": "beside", "describe": "alone"}.items():
        solved = mg.check(mg.load(name))
        types = types_of(solved.graph.registry)
        _, doors = with_history(solved, doors_of(solved, types), types)
        assert doors.taking == taking, name
    assert doors_of(mg.check(mg.load("companion")), types).writers == {"scene", "answer"}, "the ear writes for others"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_that_shows_pictures_is_sent_them(monkeypatch, tmp_path):
    """As kitty and iTerm take them, as sixels, or as coloured blocks of letters; one without colours gets the name alone."""
    path = tmp_path / "a.png"
    Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (60, 60, 3), numpy.uint8)).save(path)
    for name, value, begins, ends in (
        ("TERM", "xterm-kitty", "\033_Ga=T,f=100,m=1;", "\033\\\n"),
        ("TERM_PROGRAM", "iTerm.app", "\033]1337;File=inline=1", "\a\n"),
        ("TERM", "foot", '\033Pq"1;1;60;60', "-\033\\\n"),
        ("TERM", "xterm", "\033[38;2;", "\033[0m\n"),
        ("TERM", "tmux-256color", "\033[38;2;", "\033[0m\n"),
        ("TERM", "dumb", "", ""),
        ("MODELGRAFT_PICTURES", "none", "", ""),
        ("MODELGRAFT_PICTURES", "kitty", "\033_Ga=T,f=100,m=1;", "\033\\\n"),
    ):
        monkeypatch.delenv("MODELGRAFT_PICTURES", raising=False)
        monkeypatch.delenv("KITTY_WINDOW_ID", raising=False)
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.delenv("TERM_PROGRAM", raising=False)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv(name, value)
        out = Terminal()
        show(path, Screen(out, io.StringIO(), is_json=False))
        assert (out.getvalue()[: len(begins)], out.getvalue()[len(out.getvalue()) - len(ends) :]) == (begins, ends)
        assert bool(out.getvalue()) == bool(begins)


def test_sixels_are_the_picture(tmp_path):
    """Read back letter by letter: each column and row of pixels in its colour."""
    colours = numpy.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], numpy.uint8)
    wanted = numpy.random.default_rng(1).integers(0, 3, (13, 17))
    told = WAYS["sixel"](Image.fromarray(colours[wanted]))
    palette = {int(number): tuple(map(int, parts.split(";"))) for number, parts in re.findall(r"#(\d+);2;(\d+;\d+;\d+)", told)}
    found = numpy.zeros((13, 17, 3), int)
    for band, rows in enumerate(re.sub(r"#\d+;2;[\d;]+", "", told.partition("17;13")[2]).split("-")[:-1]):
        for number, letters in re.findall(r"#(\d+)([^$]*)\$", rows):
            spread = re.sub(r"!(\d+)(.)", lambda match: match[2] * int(match[1]), letters)
            for x, letter in enumerate(spread):
                for bit in range(6):
                    if (ord(letter) - 63) >> bit & 1:
                        found[6 * band + bit, x] = palette[int(number)]
    assert (found == colours[wanted].astype(int) * 100 // 255).all()


def test_words_come_as_they_are_written_and_a_changed_text_is_told():
    from modelgraft.engine.events import Token

    out, err = io.StringIO(), io.StringIO()
    writing = Writing(Screen(out, err, is_json=False), frozenset({"a"}), is_on=True)
    for node, text in (("a", " Hel"), ("b", "no"), ("a", "lo")):
        writing.take(Token(node=node, text=text))
    assert out.getvalue() == "Hello"
    writing.finish("Hello there")
    assert out.getvalue() == "Hello there\n"
    writing = Writing(Screen(out, err, is_json=False), frozenset({"a"}), is_on=True)
    writing.take(Token(node="a", text="x"))
    writing.finish("Y")
    assert out.getvalue().endswith("x" + "Y\n")
    assert "the text was changed after it was written" in err.getvalue()


def test_a_warning_names_its_node_once_and_a_step_tells_of_how_many_it_is():
    from modelgraft.engine.events import Progress, Warned

    err = Terminal()
    writing = Writing(Screen(io.StringIO(), err, is_json=False), frozenset({"a"}), is_on=True)
    for node, text in (("a", "found while it ran"), ("a", "a: found as it was loaded"), ("", "of the run")):
        writing.take(Warned(node=node, text=text))
    assert re.findall("warning: .*", err.getvalue()) == [
        "warning: a: found while it ran",
        "warning: a: found as it was loaded",
        "warning: of the run",
    ]
    writing.take(Progress(node="a", done=2, total=3, label="writing for onnx, layer"))
    assert "a: writing for onnx, layer 2 of 3" in err.getvalue()


@pytest.mark.skipif(os.name != "posix", reason="a terminal of POSIX")
def test_ctrl_c_stops_an_answer_and_keeps_the_chat(tmp_path):
    """On a terminal: the next message is answered, and what was said before is still there."""
    import pty

    (tmp_path / "echo.yaml").write_text(ECHO)
    lead, follow = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "TERM": "dumb"}
    code = (
        "import modelgraft.installed.discovery as d; from support.chatting import registry; d.discover = registry; "
        "from modelgraft.cli import main; raise SystemExit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "chat", "echo.yaml", "--quiet"],
        stdin=follow, stdout=follow, stderr=follow, cwd=tmp_path, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(follow)
    seen = b""

    def until(text: bytes) -> None:
        nonlocal seen
        end = time.monotonic() + 120
        while text not in seen:
            assert time.monotonic() < end, seen.decode(errors="replace")
            seen += os.read(lead, 4096)

    try:
        until(b"> ")
        os.write(lead, b"first\n")
        until(b"first after 0")
        os.write(lead, b"slow\n")
        until(b"slowly")
        process.send_signal(signal.SIGINT)
        until(b"the conversation stays as it was")
        os.write(lead, b"second\n")
        until(b"second after 2")
        os.write(lead, b"/quit\n")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(lead)
