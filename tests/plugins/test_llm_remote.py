"""A language model on a server: what is sent, what comes back, and what becomes of servers that are busy, wrong or slow. Real sockets."""

from __future__ import annotations

import itertools
import json
import threading
import time

import pytest

import modelgraft as mg
from modelgraft.cli import main
from modelgraft_plugins.llm.remote import RemoteConfig
from modelgraft_plugins.llm.remote_calls import Remote
from support.llm_server import answer, break_off, drip, served

GRAPH = """# Ask a server.
modelgraft: 1
inputs: {prompt: text}
nodes:
  llm: {use: llm/remote, with: {prompt: "Say {prompt}!", model: tiny}, in: {prompt: inputs.prompt}}
outputs: {text: llm.text}
"""
TALK = """# Ask a server with a conversation.
modelgraft: 1
inputs: {talk: conversation}
nodes:
  llm: {use: llm/remote, with: {prompt: "{talk}", model: tiny, system: Be brief.}, in: {talk: inputs.talk}}
outputs: {text: llm.text}
"""


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("MODELGRAFT_LLM_URL", "MODELGRAFT_LLM_MODEL", "MODELGRAFT_LLM_KEY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def graph(tmp_path):
    (tmp_path / "ask.yaml").write_text(GRAPH, encoding="utf-8")
    (tmp_path / "talk.yaml").write_text(TALK, encoding="utf-8")
    return tmp_path / "ask.yaml"


def opened(graph, url: str, **more):
    settings = {"url": url, "pause_s": 0.01, **more}
    return mg.open(graph, params={f"nodes.llm.with.{name}": value for name, value in settings.items()}, seed=3)


def test_a_request_is_what_the_interface_wants_and_the_key_comes_from_the_environment(graph, monkeypatch):
    monkeypatch.setenv("MODELGRAFT_LLM_KEY", "secret-7")
    with served(lambda body, _: " Hello. \n") as told, opened(graph, told.url + "/", stop=["#"], max_new_tokens=9) as pipeline:
        assert pipeline.run(prompt="hello")["text"] == "Hello."
    assert told.paths == ["/v1/chat/completions"]
    assert told.headers[0]["Authorization"] == "Bearer secret-7"
    assert told.bodies == [
        {"model": "tiny", "messages": [{"role": "user", "content": "Say hello!"}], "max_tokens": 9, "temperature": 0.0, "stop": ["#"]}
    ]


def test_a_conversation_is_its_messages_behind_the_instructions(graph):
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Why?"}]
    with served(lambda *_: "So.") as told, opened(graph.with_name("talk.yaml"), told.url) as pipeline:
        assert pipeline.run(talk=talk)["text"] == "So."
        with pytest.raises(mg.InputError, match="a message is by 'ghost'; servers take system, user, assistant"):
            pipeline.run(talk=[{"role": "ghost", "content": "Boo"}])
    assert told.bodies[0]["messages"] == [{"role": "system", "content": "Be brief."}, *talk]


def test_the_records_of_a_batch_are_asked_together_and_come_back_in_their_order(graph):
    """The first is answered last; no more are under way than at_once says."""

    def say(body, number):
        time.sleep(0.2 if number == 0 else 0.02)
        return body["messages"][0]["content"]

    words = [str(index) for index in range(7)]
    with served(say) as told, opened(graph, told.url, at_once=3) as pipeline:
        found = [result["text"] for result in pipeline.map([{"prompt": word} for word in words], batch_size=7)]
    assert found == [f"Say {word}!" for word in words]
    assert told.most == 3


def test_a_seed_is_sent_where_answers_are_drawn_and_follows_from_run_and_prompt(graph):
    with served(lambda *_: "x") as told, opened(graph, told.url, temperature=0.7) as pipeline:
        pipeline.run(prompt=["a", "b", "a"])
        pipeline.run(prompt="a", seed=4)
    seeds = {json.dumps(body["messages"]): set() for body in told.bodies}
    for body in told.bodies:
        seeds[json.dumps(body["messages"])].add(body["seed"])
    assert sorted(map(len, seeds.values())) == [1, 2]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(graph, status):
    with (
        served(lambda _, number: (status, {"Retry-After": "0"}, b"") if number < 2 else "Now.") as told,
        opened(graph, told.url) as pipeline,
    ):
        assert pipeline.run(prompt="hello")["text"] == "Now."
    assert len(told.bodies) == 3


def test_it_waits_longer_each_time_and_as_long_as_the_server_asks(graph):
    came = []

    def say(_body, number):
        came.append(time.monotonic())
        return "Now." if number == 3 else (503, {"Retry-After": "1"} if number == 2 else {}, b"")

    with served(say) as told, opened(graph, told.url, pause_s=0.1) as pipeline:
        pipeline.run(prompt="hello")
    first, second, third = (after - before for before, after in itertools.pairwise(came))
    assert first >= 0.1
    assert second >= 0.2
    assert third >= 1.0


@pytest.mark.parametrize(
    ("given", "wanted", "asked"),
    [
        ((401, {}, b'{"error": {"message": "wrong key secret-7"}}'), r"answered 401 Unauthorized: wrong key \*\*\*; the key comes from", 1),
        ((404, {}, b"nothing here"), "answered 404 Not Found: 'nothing here'; url is where the interface begins", 1),
        ((302, {"Location": "http://127.0.0.1:9/"}, b""), "answered 302 Found; redirects are not followed", 1),
        ((400, {}, b'{"detail": [{"loc": ["seed"]}]}'), r"answered 400 Bad Request: \[\{.loc.: \[.seed.\]\}\]", 1),
        ((200, {}, b"<html>\nLog in</html>"), "wanted an answer as JSON, found '<html> Log in</html>'", 1),
        ((200, {}, b"\xff\xfe"), "wanted an answer as JSON", 1),
        ((200, {}, b'{"choices": []}'), r"wanted an answer with choices\[0\].message", 1),
        ((200, {}, b"[1]"), r"wanted an answer with choices\[0\].message", 1),
        ((200, {}, answer(None, reason="tool_calls")), "holds no text: finish_reason is 'tool_calls'", 1),
        ((503, {}, b'{"message": "loading"}'), r"answered 503 Service Unavailable: loading \(asked 3 times\)", 3),
        (break_off, r"the answer broke off 999 bytes before its end \(asked 3 times\)", 3),
        (drip, r"no answer within 0.3 s \(timeout_s\) \(asked 3 times\)", 3),
        (lambda _handler: time.sleep(1), r"no answer within 0.3 s \(timeout_s\) \(asked 3 times\)", 3),
    ],
)
def test_an_answer_that_is_none_is_one_line_that_says_what_came(graph, monkeypatch, given, wanted, asked):
    monkeypatch.setenv("MODELGRAFT_LLM_KEY", "secret-7")
    with served(lambda *_: given) as told, opened(graph, told.url, retries=2, timeout_s=0.3) as pipeline:
        with pytest.raises(mg.InputError, match=wanted) as caught:
            pipeline.run(prompt="hello")
        assert "\n" not in str(caught.value)
        assert "secret-7" not in str(caught.value)
        assert len(told.bodies) == asked


def test_what_was_cut_is_told(graph):
    with served(lambda *_: (200, {}, answer("Once upon", reason="length"))) as told, opened(graph, told.url) as pipeline:
        result = pipeline.run(prompt="hello")
    assert result["text"] == "Once upon"
    assert any("the answer reached max_new_tokens and is cut" in warning for warning in result.warnings)


def test_a_record_that_is_refused_fails_alone_and_the_others_are_paid_once(graph):
    """A map goes through the batch again record by record: what was answered is not asked again."""

    def say(body, _):
        said = body["messages"][0]["content"]
        return (400, {}, b'{"error": "no"}') if "bad" in said else said

    with served(say) as told, opened(graph, told.url) as pipeline:
        results = list(pipeline.map([{"prompt": word} for word in ("a", "bad", "b", "a")], batch_size=4))
    assert [None if result.error else result["text"] for result in results] == ["Say a!", None, "Say b!", "Say a!"]
    asked = [body["messages"][0]["content"] for body in told.bodies]
    assert (asked.count("Say a!"), asked.count("Say b!"), asked.count("Say bad!")) == (2, 1, 2)


def test_a_run_that_is_stopped_does_not_wait_for_its_answer(graph):
    with served(lambda *_: lambda _handler: time.sleep(3)) as told, opened(graph, told.url) as pipeline:
        threading.Timer(0.3, pipeline.cancel).start()
        begun = time.monotonic()
        with pytest.raises(mg.Cancelled):
            pipeline.run(prompt="hello")
        assert time.monotonic() - begun < 2


def test_nothing_is_asked_of_what_is_no_server(graph, monkeypatch):
    """Files, names and keys in addresses, and no address at all."""
    wrong = {"file:///etc/passwd": "is none of a server", "ftp://host/v1": "is none of a server", "http://host:a/": "cannot be read"}
    for url, wanted in {**wrong, "http://me:word@host/v1": "a key belongs into the environment"}.items():
        with pytest.raises(mg.GraphError, match=wanted):
            opened(graph, url)
    with pytest.raises(mg.ModelgraftError, match=r"set llm\.url, or MODELGRAFT_LLM_URL in the environment"):
        mg.open(graph).run(prompt="hello")
    monkeypatch.setenv("MODELGRAFT_LLM_URL", "file:///etc/passwd")
    with pytest.raises(mg.ModelgraftError, match="MODELGRAFT_LLM_URL: the address 'file:///etc/passwd' is none of a server"):
        mg.open(graph).run(prompt="hello")


def test_the_environment_names_server_and_model(graph, monkeypatch):
    with served(lambda *_: "Yes.") as told:
        monkeypatch.setenv("MODELGRAFT_LLM_URL", told.url)
        monkeypatch.setenv("MODELGRAFT_LLM_MODEL", "other")
        with mg.open(graph, params={"nodes.llm.with.model": None}) as pipeline:
            assert pipeline.run(prompt="hello")["text"] == "Yes."
    assert told.bodies[0]["model"] == "other"


def test_a_plan_says_that_words_leave_the_machine_and_offline_they_do_not(graph, capsys):
    assert main(["plan", str(graph), "--set", "nodes.llm.with.url=https://far.example/v1"]) == 0
    assert "server https://far.example" in capsys.readouterr().out
    assert main(["--offline", "run", str(graph), "--input", "prompt=x", "--set", "nodes.llm.with.url=https://far.example/v1"]) == 1
    assert "asks https://far.example, and this run is offline" in capsys.readouterr().err
    for key, wanted in (("", 1), ("secret-7", 2)):  # nothing is connected by opening it
        asks = Remote(RemoteConfig(), node="llm", url="http://far.example/v1", model="tiny", key=key)
        assert len(asks.warnings) == wanted
        assert asks.warnings[0] == "llm: all that its prompts are made of is sent to http://far.example"
