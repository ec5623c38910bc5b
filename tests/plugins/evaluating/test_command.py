"""`modelgraft eval`: a suite over a graph, whatever the records hold; stopped and resumed; a report without a run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import modelgraft_plugins.evaluating as evaluating
from modelgraft import hookimpl
from modelgraft.installed.discovery import assemble
from support import capitals, toys
from support.command import commands

WORDS = "id,group,word,wanted\n1,a,oak,OAK\n2,a,elm,ELM\n3,b,bad,BAD\n4,c,ash,ASH\n"
EVAL = ("eval", "capitals", "capitals.yaml", "--data", "words.csv")
SIGHT = ("eval", "capitals", "sight.yaml", "--data", "words.csv")


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run a command in an empty folder with the toys and two suites; gives its exit code, stdout and stderr."""
    found = commands(monkeypatch, tmp_path, capsys)
    use(monkeypatch, capitals=capitals)
    Path("words.csv").write_text(WORDS)
    return found


def use(monkeypatch, **modules):
    """Install these plugins beside the toys."""
    registry = assemble({"toys": toys, "evaluating": evaluating, **modules})
    monkeypatch.setattr("modelgraft.installed.discovery.discover", lambda only=None: registry)


def rows(name):
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def test_a_suite_of_another_plugin_is_a_command_with_its_own_options(run):
    """Its sentence in the list, its settings as options."""
    code, out, _ = run("eval", "--help")
    assert code == 0
    assert "capitals" in out
    assert "Does the graph write in capitals?" in out
    code, out, _ = run("eval", "capitals", "--help")
    assert code == 0
    assert "--style" in out
    assert "plain, polite" in out
    assert "A table of words" in out


def test_the_scores_are_those_of_the_answers(run):
    """As a table and as a document, and everything is kept in the folder."""
    code, out, err = run(*EVAL, "--out", "found")
    assert (code, "100.0 %" in out) == (0, True)
    assert "4 records; 0 failed" in err
    assert {path.name for path in Path("found").iterdir()} >= {"predictions.jsonl", "report.json", "run.json", "rows.jsonl"}
    code, out, _ = run(*EVAL, "--json")
    found = json.loads(out)
    assert (code, found["ok"], found["records"], found["out"]) == (0, True, 4, None)
    assert found["scores"][0]["value"] == 1.0
    assert (found["inputs"], found["outputs"], found["settings"]) == ({"word": "text"}, {"loud": "text"}, {"style": "plain"})


def test_names_that_differ_are_told(run):
    """What goes where, and what the graph has no input for."""
    _, _, err = run(*EVAL)
    assert "word goes to the input 'text'; loud is read from 'text'; the graph has no input for hint" in err


def test_a_failed_record_is_counted_and_listed(run):
    """It has no answer, and the code says so."""
    code, out, err = run("eval", "capitals", "failing.yaml", "--data", "words.csv", "--out", "found", "--json")
    found = json.loads(out)
    assert code == 1
    assert [one["id"] for one in found["failed"]] == ["3"]
    assert "words.csv:4" in found["failed"][0]["error"]
    assert "bad was given" in err
    assert found["scores"][0]["value"] == 0.0  # toy/fail writes nothing in capitals
    _, _, err = run("eval", "capitals", "failing.yaml", "--data", "words.csv", "--out", "found", "--report-only")
    assert "4 records; 1 failed" in err
    assert "failed: words.csv:4" in err


def test_a_limit_counts_groups(run):
    """The two words of the first group and that of the second."""
    _, out, _ = run(*EVAL, "--limit", "2", "--json")
    assert json.loads(out)["records"] == 3


def test_a_stopped_run_goes_on_where_it_stopped(run):
    """Two of four rows are there: two are made, and the rest is as in a whole run."""
    run(*EVAL, "--out", "found")
    whole = Path("found/predictions.jsonl").read_bytes()
    part, job = Path("found/predictions.jsonl.part"), Path("found/predictions.jsonl.job")
    part.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]) + b'{"id": "3", "fac')
    Path("found/predictions.jsonl.part.job").write_text(json.dumps({**json.loads(job.read_text()), "finished": None}))
    Path("found/predictions.jsonl").unlink()
    job.unlink()
    code, _, err = run(*EVAL, "--out", "found", "--report-only")
    assert (code, "are not finished: the same with --resume" in err) == (1, True)
    code, _, err = run(*EVAL, "--out", "found", "--resume")
    assert code == 0
    assert "predictions: 2 records were done before" in err
    assert Path("found/predictions.jsonl").read_bytes() == whole


def test_predictions_under_other_settings_are_not_resumed(run):
    """Another style asks other questions; a limit asks fewer. Other data are told apart from that."""
    run(*EVAL, "--out", "found")
    code, _, err = run(*EVAL, "--out", "found", "--resume", "--style", "polite")
    assert code == 1
    assert "made of something else: what is asked of the data is other, by a setting, a name or a limit; name" in err
    assert "made of something else: what is asked of the data is other" in run(*EVAL, "--out", "found", "--resume", "--limit", "2")[2]
    Path("words.csv").write_text(WORDS.replace("oak", "yew"))
    assert "made of something else: the data are others; name" in run(*EVAL, "--out", "found", "--resume")[2]


def test_a_report_needs_no_run(run, monkeypatch):
    """It is made of the predictions, under the settings that were recorded with them."""
    run(*EVAL, "--out", "found", "--style", "polite")
    before = json.loads(Path("found/report.json").read_text())
    Path("found/report.json").unlink()
    monkeypatch.setattr("modelgraft_plugins.evaluating.running.Runs.over", lambda *_, **__: pytest.fail("a graph runs"))
    code, out, _ = run(*EVAL, "--out", "found", "--report-only", "--json")
    assert code == 0
    assert json.loads(Path("found/report.json").read_text()) == before
    assert json.loads(out)["settings"] == {"style": "polite"}


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("eval", "capital", "capitals.yaml", "--data", "words.csv"), 2, "Did you mean 'capitals'"),
        (("eval", "capitals", "capitals.yaml"), 2, "--data"),
        ((*EVAL, "--style", "rude"), 2, "--style: found 'rude'; Input should be 'plain' or 'polite'"),
        ((*EVAL, "--report-only"), 2, "from --out DIR"),
        ((*EVAL, "--limit", "0"), 2, "wanted: a whole number, at least 1"),
        ((*EVAL, "--input", "word"), 2, "--input takes NAME=VALUE"),
        ((*EVAL, "--input", "wort=text"), 1, "the suite gives no 'wort'; it gives: hint, word"),
        ((*EVAL, "--input", "word=txt"), 1, "--input word=txt: the graph has no input 'txt'; it has: text"),
        ((*EVAL, "--output", "loud=small"), 1, "--output loud=small: the graph has no output or port 'small'; it has: text"),
        (SIGHT, 1, "gives word (text), and the graph has no input 'word'; it has: image"),
        (SIGHT, 1, "reads loud (text), and the graph has no output 'loud'; it has: media"),
        ((*SIGHT, "--input", "word=image", "--output", "loud=media"), 1, "modality-mismatch"),
        (("eval", "capitals", "wrong.yaml", "--data", "words.csv"), 1, "toy/uper"),
        ((*EVAL, "--out", "words.csv"), 1, "output 'words.csv' is no folder that can be made"),
        ((*EVAL, "--out", "empty", "--report-only"), 1, "does not say what was run"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_before_anything_runs(run, monkeypatch, words, code, told):
    """In a sentence, with what there is."""
    monkeypatch.setattr("modelgraft_plugins.evaluating.running.opened", lambda *_, **__: pytest.fail("a graph runs"))
    found, _, err = run(*words)
    assert (found, told in " ".join(err.split())) == (code, True), err


@pytest.mark.parametrize("name", ["run.json", "report.json", "rows.jsonl", "submission.tsv"])
def test_what_cannot_be_written_is_told_before_anything_runs(run, monkeypatch, name):
    """A report that finds no place would cost all answers."""
    monkeypatch.setattr("modelgraft_plugins.evaluating.running.opened", lambda *_, **__: pytest.fail("a graph runs"))
    Path("found", name).mkdir(parents=True)
    code, _, err = run(*EVAL, "--out", "found")
    assert (code, f"output 'found/{name}' is a folder" in err) == (1, True)


def test_no_record_is_no_report(run):
    """Neither of data nor of predictions; nothing is kept of it."""
    Path("words.csv").write_text(WORDS.splitlines()[0])
    code, _, err = run(*EVAL, "--out", "found")
    assert (code, "the data 'words.csv' hold no record" in err) == (1, True)
    Path("words.csv").write_text(WORDS)
    run(*EVAL, "--out", "found")
    Path("found/predictions.jsonl").write_text("")
    code, _, err = run(*EVAL, "--out", "found", "--report-only")
    assert (code, "the predictions in 'found' hold no record" in err) == (1, True)


@pytest.mark.parametrize("facts", [{"settings": {"style": "rude"}}, {"settings": 5}, {"outputs": 5}])
def test_what_was_run_is_told_when_it_cannot_be_read(run, facts):
    """The words are about the file, not about an option that nobody gave."""
    run(*EVAL, "--out", "found")
    Path("found/run.json").write_text(json.dumps({**json.loads(Path("found/run.json").read_text()), **facts}))
    code, _, err = run(*EVAL, "--out", "found", "--report-only")
    assert (code, "run.json" in err, "run the suite without --report-only" in err) == (1, True, True), err


def test_of_what_cannot_begin_no_folder_is_left(run):
    """Those that were there stay."""
    run(*SIGHT, "--out", "found/deep")
    assert not Path("found").exists()
    Path("found").mkdir()
    run(*SIGHT, "--out", "found/deep")
    assert list(Path("found").iterdir()) == []


def test_predictions_of_another_suite_or_graph_are_refused(run):
    """A folder holds those of one."""
    run(*EVAL, "--out", "found")
    facts = json.loads(Path("found/run.json").read_text())
    code, _, err = run("eval", "capitals", "diamond.yaml", "--data", "words.csv", "--out", "found", "--report-only")
    assert (code, "holds predictions of the graph 'capitals.yaml', not of 'diamond.yaml'" in err) == (1, True)
    Path("found/run.json").write_text(json.dumps({**facts, "suite": "rhymes"}))
    code, _, err = run(*EVAL, "--out", "found", "--report-only")
    assert (code, "holds predictions of the suite 'rhymes', not of 'capitals'" in err) == (1, True)


def offering(*suites, error=None):
    """A plugin that offers suites, and then may fail."""

    def register_suites(register):
        for name, target in suites:
            register(name, target)
        if error is not None:
            raise error

    module = types.ModuleType("others")
    module.register_suites = hookimpl(optionalhook=True)(register_suites)
    return module


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (offering(("capitals", "support.capitals:Capitals")), "plugin zz does not have the suite capitals (it belongs to capitals)"),
        (offering(("Loud one", "x:y")), "plugin zz offers the suite 'Loud one'"),
        (offering(("odd", "support.capitals:WORDS")), "the suite 'odd' of the plugin zz cannot be loaded"),
        (offering(("odd", "support.toys:Eye")), "support.toys:Eye is no subclass of Suite"),
        (offering(error=SystemExit(3)), "plugin zz offers no more suites"),
    ],
)
def test_a_suite_that_breaks_is_left_out_and_named(run, monkeypatch, module, told):
    """The others stand."""
    use(monkeypatch, capitals=capitals, zz=module)
    code, out, err = run(*EVAL, "--json")
    assert (code, json.loads(out)["ok"]) == (0, True)
    assert told in err


@pytest.mark.parametrize("method", ["open", "items", "report", "settle", "submit"])
def test_a_suite_that_fails_is_named(run, monkeypatch, method):
    """Whatever its code raises, and wherever."""

    def fail(*_, **__):
        raise SystemExit("no more")

    monkeypatch.setattr(capitals.Capitals, method, fail)
    code, _, err = run(*EVAL, "--out", "found")
    assert (code, "the suite 'capitals' failed: " in err, "no more" in err) == (1, True, True)


def test_answers_of_a_run_that_is_stopped_are_kept_also_without_a_folder(run, monkeypatch, tmp_path):
    """Where they lie is told; of a run that had none, nothing is left."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(capitals.Capitals, "report", lambda *_: 1 / 0)
    code, _, err = run(*EVAL)
    (folder,) = tmp_path.glob("modelgraft-eval-*")
    assert (code, f"--out {folder} --resume goes on after it" in err) == (1, True)


def test_a_run_leaves_nothing_behind_that_was_not_asked_for(run, monkeypatch, tmp_path):
    """Neither where it ends well, nor where nothing was answered."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run(*EVAL)
    run(*SIGHT)
    assert list(tmp_path.glob("modelgraft-eval-*")) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to whole consoles")
def test_a_run_that_is_stopped_while_models_load_leaves_nothing_behind(run, tmp_path):
    """The process is left on the spot then; the folder of its predictions goes first."""
    code = (
        "import os, signal, sys; import modelgraft.installed.discovery as discovery; from modelgraft import api;"
        "from support import capitals, toys; import modelgraft_plugins.evaluating as evaluating;"
        "registry = discovery.assemble({'toys': toys, 'capitals': capitals, 'evaluating': evaluating});"
        "discovery.discover = lambda only=None: registry; api.open = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT);"
        "from modelgraft.cli import main; sys.exit(main())"
    )
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    (tmp_path / "passing").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, *EVAL, "--json"], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path / "passing")},
    )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)["error"]["kind"]) == (130, "stopped"), done.stderr
    assert list((tmp_path / "passing").glob("modelgraft-eval-*")) == []


def test_a_plugin_with_suites_loads_without_the_command(monkeypatch):
    """The hook is one that need not be there."""
    registry = assemble({"capitals": capitals})
    assert registry.plugins["capitals"].error == ""


def test_the_suite_of_the_notes_works(run, monkeypatch):
    """The example of the README is whole."""
    readme = Path(evaluating.__file__).with_name("README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    module = types.ModuleType("my_capitals")
    exec(compile(code, "README.md", "exec", dont_inherit=True), module.__dict__)
    monkeypatch.setitem(sys.modules, "my_capitals", module)
    use(monkeypatch, mine=module)
    code, out, _ = run("eval", "capitals", "capitals.yaml", "--data", "words.csv", "--style", "polite", "--json")
    found = json.loads(out)
    assert (code, found["scores"][0]["value"], found["settings"]) == (0, 0.0, {"style": "polite"})
    code, out, _ = run(*EVAL, "--json")
    assert json.loads(out)["scores"][0]["value"] == 1.0


@pytest.mark.slow
def test_the_help_of_the_suites_imports_nothing_heavy(tmp_path):
    """In a process of its own, with every installed plugin."""
    heavy = ("torch", "transformers", "onnxruntime", "numpy", "PIL", "scipy")
    program = f"import sys\nfrom modelgraft.cli import main\nmain(['eval', '--help'])\nprint(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
