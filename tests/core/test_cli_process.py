"""The command line as a process: streams, signals and encodings are those of the operating system."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelgraft.cli import main
from support import toys

TESTS = Path(__file__).parents[1]
TOYS = "import sys; import modelgraft.installed.discovery as registry; from support import toys; registry.discover = toys.registry;"
MAIN = "from modelgraft.cli import main; sys.exit(main())"
WAITING = """modelgraft: 1
inputs: {text: text}
nodes:
  slow: {use: toy/wait, in: {text: inputs.text}}
outputs: {text: slow}
"""


def command(*words: str, code: str = TOYS + MAIN) -> list[str]:
    """The words of a process that runs the command line with the toys alone."""
    return [sys.executable, "-c", code, *words]


def environment(**more: str) -> dict[str, str]:
    """That of this process, with the tests on the path."""
    return {**os.environ, "PYTHONPATH": str(TESTS), **more}


def test_python_m_is_the_command(tmp_path):
    """`python -m modelgraft` and `modelgraft` print the same."""
    by_module = subprocess.run([sys.executable, "-m", "modelgraft", "--version"], capture_output=True, text=True, check=True, cwd=tmp_path)
    script = Path(sys.executable).with_name("modelgraft")
    by_script = subprocess.run([script, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert by_module.stdout == by_script.stdout
    assert by_module.stdout.startswith("modelgraft ")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to whole consoles")
def test_ctrl_c_stops_a_run_with_one_line_and_130(tmp_path):
    """At any time; nothing is half-written."""
    (tmp_path / "waiting.yaml").write_text(WAITING.replace("toy/wait,", "toy/wait, with: {seconds: 3600},"), encoding="utf-8")
    words = ("run", "waiting.yaml", "--input", "text=a", "--output", "text=out.txt")
    # How long a node that cannot be stopped is waited for.
    patience = (
        "from modelgraft.engine import pipeline, streaming, scheduler; streaming.LEAVE_S = pipeline.CLOSE_S = scheduler.DRAIN_S = 1.0;"
    )
    ready = TOYS + patience + "import modelgraft.cli.live as live; live._words = lambda event: event.kind;" + MAIN
    process = subprocess.Popen(
        command(*words, code=ready), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    said = ""
    while "node-started" not in said:
        line = process.stderr.readline()
        assert line, f"the run ended before its node started: {said}"
        said += line
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)  # the node waits for an hour, and is left behind
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == "stopped"
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["waiting.yaml"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to whole consoles")
def test_ctrl_c_while_modules_are_imported_is_quiet_too(tmp_path):
    """The interrupt may come before the command has begun."""
    early = "import sys, modelgraft.cli as cli; sys.modules['modelgraft.cli.entry'] = None\n"
    code = early + "import builtins; real = builtins.__import__\n"
    code += "def hit(name, *rest):\n    if name.startswith('modelgraft.cli.entry'): raise KeyboardInterrupt\n    return real(name, *rest)\n"
    code += "builtins.__import__ = hit; sys.exit(cli.main(['graphs']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "stopped")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes close differently")
def test_a_reader_that_leaves_early_is_no_error_to_talk_about(tmp_path):
    """As with `modelgraft schema | head -1`."""
    process = subprocess.Popen(
        command("schema"), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait(timeout=60)
    process.stderr.close()


def test_letters_that_the_locale_lacks_do_not_stop_a_command(tmp_path):
    """A pipe gets UTF-8 also where the locale says ASCII."""
    (tmp_path / "graph.yaml").write_text(WAITING.replace("toy/wait", "toy/upper"), encoding="utf-8")
    env = environment(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="")
    done = subprocess.run(
        command("run", "graph.yaml", "--input", "text=grüße ❄", "--quiet"), cwd=tmp_path, env=env, capture_output=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.decode("utf-8") == "GRÜSSE ❄\n"


LOUD = """
import atexit, os, subprocess, builtins
def make_noise():
    print('noise-a')
    os.write(1, b'noise-b ')
    subprocess.run([sys.executable, '-c', 'print("noise-c")'])
builtins.make_noise = make_noise
atexit.register(print, 'noise at the end')
quiet = registry.discover
def discover(**options):
    make_noise()
    return quiet(**options)
registry.discover = discover
toys.upper.__component__.function.__code__ = (lambda text: make_noise() or text).__code__
"""


@pytest.mark.parametrize(
    "words",
    [("run", "graph.yaml", "--input", "text=a", "--json"), ("schema",), ("components", "--json"), ("check", "graph.yaml", "--json")],
)
def test_what_is_printed_while_a_command_runs_does_not_reach_the_document(tmp_path, words):
    """Stdout is one JSON document whatever Python, C code or other processes print, from the discovery of plugins to the end."""
    (tmp_path / "graph.yaml").write_text(WAITING.replace("toy/wait", "toy/upper"), encoding="utf-8")
    done = subprocess.run(
        command(*words, code=TOYS + LOUD + MAIN), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert json.loads(done.stdout)
    assert all(noise in done.stderr for noise in ("noise-a", "noise-b", "noise-c", "noise at the end"))


def test_a_command_of_a_plugin_prints_its_own_answer(tmp_path):
    """Its print is the answer, and what it starts is not."""
    code = TOYS + "import os, pluggy; from modelgraft import hookimpl\n"
    code += "class More:\n    @hookimpl\n    def register_commands(self, app):\n        @app.command('hello')\n"
    code += "        def hello() -> None: os.write(1, b'noise'); print('hello')\n"
    code += "registry.discover = lambda **options: registry.assemble({'more': More()})\n" + MAIN
    done = subprocess.run(command("hello", code=code), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("hello\n", "noise")


@pytest.mark.parametrize(
    ("words", "state"), [(("check", "graph.yaml"), "False True"), (("run", "graph.yaml", "--input", "text=a", "--quiet"), "True True")]
)
def test_python_looks_for_garbage_only_where_a_command_makes_some(tmp_path, words, state):
    """What is imported is never looked through; what a run makes is."""
    (tmp_path / "graph.yaml").write_text(WAITING.replace("wait", "upper"), encoding="utf-8")
    code = TOYS + "import atexit, gc; atexit.register(lambda: print(gc.isenabled(), gc.get_freeze_count() > 0, file=sys.stderr));" + MAIN
    done = subprocess.run(command(*words, code=code), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == state


def test_plugins_are_never_looked_through_for_garbage(tmp_path):
    """Of a command that may find all of them for the first time, and looks for garbage in what it makes."""
    looked_through = "any(one is vars(sys.modules['modelgraft_plugins.text']) for one in gc.get_objects())"
    code = f"import atexit, gc, sys; atexit.register(lambda: print(gc.isenabled(), {looked_through}, file=sys.stderr)); {MAIN}"
    own = environment(MODELGRAFT_CACHE=str(tmp_path))
    done = subprocess.run(command("cache", "list", code=code), cwd=tmp_path, env=own, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "True False"


def test_a_process_of_others_looks_for_garbage_as_before(capsys):
    """A command that is called from Python, whether it looks or fails."""
    before = gc.isenabled(), gc.get_freeze_count()
    assert (main(["graphs"]), main(["check", "nobody.yaml"]), main(["run", "nobody.yaml"])) == (0, 1, 1)
    assert gc.isenabled() is before[0]
    assert gc.get_freeze_count() <= before[1]  # what was frozen may go
    capsys.readouterr()


# What stands for a library that is interrupted: while plugins are discovered, and while torch is imported and swallows it.
IN_DISCOVERY = "import signal; registry.discover = lambda **options: signal.raise_signal(signal.{signal})\n"
SWALLOWED = """
import contextlib, signal, modelgraft.api as api
def swallow(*_, **__):
    with contextlib.suppress(BaseException):
        signal.raise_signal(signal.{signal})
    raise ImportError('half imported')
api.open = swallow
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
@pytest.mark.parametrize("where", [IN_DISCOVERY, SWALLOWED], ids=["discovery", "swallowed"])
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_while_a_command_starts_is_one_document_and_its_code(tmp_path, where, name, code):
    """Also where a library would swallow the interrupt."""
    (tmp_path / "graph.yaml").write_text(WAITING, encoding="utf-8")
    program = TOYS + where.format(signal=name) + MAIN
    done = subprocess.run(
        command("run", "graph.yaml", "--input", "text=a", "--json", code=program),
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (
        code,
        {"ok": False, "error": {"kind": "stopped", "message": "stopped"}},
        "",
    )


# A command that is run as a module, and interrupted within a text that is executed, as the making of a dataclass is.
IN_TEXT = """
import contextlib, io, sys
from modelgraft.cli import main, screen

def say(*_, **__):
    exec("import signal; signal.raise_signal(signal.SIGINT)")

screen.Screen.say = say
with contextlib.redirect_stderr(io.StringIO()):
    main(["graphs"])  # now all that tells of it is imported
sys.exit(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to whole consoles")
def test_ctrl_c_within_a_text_that_is_executed_ends_with_130(tmp_path):
    """Python remembers that it came through there, and would end a module that it runs by the signal in place of its exit code."""
    (tmp_path / "interrupted.py").write_text(IN_TEXT, encoding="utf-8")
    words = [sys.executable, "-m", "interrupted", "graphs"]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_after_the_answer_is_too_late(tmp_path, name):
    """While Python takes itself down its own handlers are gone, and it would die of the signal in place of its exit code."""
    late = f"import os, signal\nclass Late:\n    def __del__(self): os.kill(os.getpid(), signal.{name})\nlate = Late()\n"
    done = subprocess.run(
        command("graphs", code=late + "import sys; " + MAIN),
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
def test_ctrl_c_at_any_moment_of_the_start_is_one_line(tmp_path):
    """As soon as the command listens, which is before it imports anything that takes time."""
    for wait_s in (0.0, 0.1, 0.3):
        process = subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "modelgraft", "plan", "blip2"],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        said = ""
        while "modelgraft.cli.interrupts" not in said:  # it is imported: the next thing is to listen
            said = process.stderr.readline()
        time.sleep(wait_s + 0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        told = [line for line in err.splitlines() if not line.startswith("import time:")]
        assert (process.returncode, out, told) == (130, "", ["stopped"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_an_answer_that_cannot_be_written_is_an_error(tmp_path):
    """A full disk behind stdout: one sentence and 1, not 0."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("schema"), cwd=tmp_path, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, "error: the answer cannot be written to stdout: No space left on device\n")


@pytest.mark.skipif(sys.platform == "win32", reason="no shell closes streams there")
@pytest.mark.parametrize(
    "words", [("graphs",), ("--version",), ("run", "--help"), ("check", "toy.yaml", "--json"), ("run", "no.yaml", "--json")]
)
@pytest.mark.parametrize(("stdout", "why"), [(">&-", "it is not open for writing"), (">/dev/full", "No space left on device")])
def test_no_answer_is_lost_without_a_word(tmp_path, words, stdout, why):
    """Whoever writes it, typer among them: a stdout that is closed or full is told once, with 1."""
    (tmp_path / "toy.yaml").write_text("modelgraft: 1\n" + toys.DIAMOND, encoding="utf-8")
    done = subprocess.run(
        ["sh", "-c", f'"$@" {stdout}', "sh", *command(*words)], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    told = f"error: the answer cannot be written to stdout: {why}\n"
    assert (done.returncode, done.stdout, done.stderr.count(told)) == (1, "", 1), done.stderr
    assert ("no.yaml" in done.stderr) == ("no.yaml" in words)  # what the answer would have said is told beside it


@pytest.mark.skipif(sys.platform == "win32", reason="Windows deletes no folder in which a process runs")
@pytest.mark.parametrize("words", [("run", "vit", "--json"), ("cache", "list"), ("graphs",)])
def test_a_folder_that_was_deleted_is_told_by_who_works_in_it(tmp_path, words):
    """The library of Intel ends a process there that loads torch. Who only reads the project's own files answers."""
    lost = tmp_path / "lost"
    lost.mkdir()
    deleted = f"import os; os.chdir({str(lost)!r}); os.rmdir({str(lost)!r});"
    done = subprocess.run(command(*words, code=deleted + TOYS + MAIN), env=environment(), capture_output=True, text=True, check=False)
    told = "the folder that this process runs in is not there any more: go to another, with cd"
    assert (done.returncode, told in done.stderr + done.stdout) == ((1, True) if words[0] == "run" else (0, False)), done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no shell closes streams there")
def test_who_answers_nothing_needs_no_stdout(tmp_path):
    """A run whose outputs go into files."""
    (tmp_path / "toy.yaml").write_text("modelgraft: 1\n" + toys.DIAMOND, encoding="utf-8")
    words = command("run", "toy.yaml", "--input", "text=abcd", "--output", "text=out.txt")
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *words], cwd=tmp_path, env=environment(), capture_output=True, check=False)
    assert (done.returncode, (tmp_path / "out.txt").read_text(encoding="utf-8")) == (0, "AB-CD\n"), done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="pipes there are never without waiting")
def test_a_reader_that_is_slow_gets_the_whole_answer(tmp_path):
    """Also where who shares the pipe has set it to refuse what does not fit at once."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with subprocess.Popen(command("schema"), cwd=tmp_path, env=environment(), stdout=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        time.sleep(1)  # the pipe is full soon: the schema is longer than the 64 KiB that Linux gives it
        with os.fdopen(ours, "rb") as answer:
            said = answer.read()
        told = process.stderr.read()
    assert (process.returncode, told) == (0, b"")
    assert len(said) > 65_536
    assert "properties" in json.loads(said)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize(
    "code",
    [
        "",
        "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8'); sys.stdout.close(); sys.stdout = None",
        "sys.stdout.detach(); sys.stderr.detach()",
        "sys.stdout.close(); sys.stderr.close(); os.close(2)",
    ],
)
def test_what_becomes_of_stderr_changes_no_answer(tmp_path, code):
    """A full disk behind it, or a plugin that wraps, detaches or closes the streams: its notes are lost, and nothing else."""
    (tmp_path / "toy.yaml").write_text("modelgraft: 1\n" + toys.DIAMOND, encoding="utf-8")
    spoil = f"import io, os\n\ndef registry_(only=None):\n    {code or 'pass'}\n    return toys.registry()\nregistry.discover = registry_\n"
    with Path("/dev/full").open("w") as full:
        words = command("run", "toy.yaml", "--input", "text=abcd", code=TOYS + spoil + MAIN)
        done = subprocess.run(words, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=full, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "AB-CD\n")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_on_a_terminal_the_nodes_at_work_are_shown_and_taken_away_again(tmp_path):
    """The view moves on stderr; the answer on stdout is the same as ever."""
    import pty

    (tmp_path / "graph.yaml").write_text(WAITING.replace("toy/wait,", "toy/wait, with: {seconds: 0.5},"), encoding="utf-8")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command("run", "graph.yaml", "--input", "text=a"),
        cwd=tmp_path,
        env=environment(TERM="xterm"),
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # Linux says so when the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert process.communicate(timeout=60)[0] == b"a\n"
    assert b"slow" in shown
    assert b"running" in shown
    assert b"\x1b[2K" in shown  # lines that were drawn are erased


@pytest.mark.slow
def test_a_node_that_is_left_behind_in_foreign_code_does_not_change_how_the_process_ends(tmp_path):
    """It comes back from C++ while Python takes itself down, which would end its thread there and the process by SIGABRT."""
    busy = (
        "import torch, types; from modelgraft.engine import scheduler; scheduler.DRAIN_S = 0.1\n"
        "def compute(seconds):\n    while True: torch.ones(300, 300) @ torch.ones(300, 300)\n"
        "toys.time = types.SimpleNamespace(sleep=compute)\n"
    )
    (tmp_path / "waiting.yaml").write_text(WAITING, encoding="utf-8")
    words = ("run", "waiting.yaml", "--input", "text=a", "--timeout", "0.1", "--json")
    done = subprocess.run(
        command(*words, code=TOYS + busy + MAIN), capture_output=True, text=True, check=False, cwd=tmp_path, env=environment(), timeout=100
    )
    assert (done.returncode, "terminate" in done.stderr) == (1, False), done.stderr
    assert "took longer than its limit of 0.1 s" in json.loads(done.stdout)["error"]["message"]


DONE = """modelgraft: 1
inputs: {text: text}
nodes:
  slow: {use: toy/wait, with: {seconds: 0}, in: {text: inputs.text}}
outputs: {text: slow}
"""
TAKEN_DOWN = """
import builtins, os
class Told:
    def __del__(self):
        os.write(2, b"taken down")
builtins.told = Told()
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not tell what is open")
@pytest.mark.parametrize(
    ("left", "is_taken_down", "said"),
    [
        ("", False, ""),
        ("builtins.left = open('left.txt', 'w'); builtins.left.write('all of it')", True, ""),
        ("builtins.left = open('other.txt', 'w'); builtins.left.write('x'); builtins.left.close()", False, ""),
        ("import sys; builtins.left = sys.stderr; sys.stderr.write('no line yet ')", False, "no line yet"),
        ("import atexit; atexit.register(lambda: os.write(2, b'heard'))", True, "heard"),
    ],
)
def test_a_command_that_has_done_its_work_ends_at_once_where_nothing_is_left_to_write(tmp_path, left, is_taken_down, said):
    """Python takes a fifth of a second to take torch down. What is open, or asked to be called, is heard as ever."""
    (tmp_path / "done.yaml").write_text(DONE, encoding="utf-8")
    words = ("run", "done.yaml", "--input", "text=a")
    found = subprocess.run(
        command(*words, code=TOYS + TAKEN_DOWN + left + "\n" + MAIN),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "a" in found.stdout
    assert ("taken down" in found.stderr) is is_taken_down
    assert said in found.stderr
    if (tmp_path / "left.txt").exists():
        assert (tmp_path / "left.txt").read_text(encoding="utf-8") == "all of it"
