"""Chat templates: found where transformers finds them, written as it writes them, and stopped where they go out of bounds."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import transformers as hf
from transformers.utils.chat_template_utils import render_jinja_template

from modelgraft.kernel.words.errors import InputError, SourceError
from modelgraft_plugins import chat_rendering, chat_templates
from modelgraft_plugins.chat_rendering import Renderer
from modelgraft_plugins.chat_templates import choose, find
from support import checkpoints

TALK = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": [{"type": "text", "text": "what is "}, {"type": "image"}]},
    {"role": "assistant", "content": "a <cat> & 漢字"},
]
NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
SOUND = {
    "roles": "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m['content'] }}{{ eos_token }}{% endfor %}",
    "generation": "{% if add_generation_prompt %}<me>{% endif %}{% generation %}{% set x = 3 %}{{ x }}{% endgeneration %}{{ x }}",
    "blocks are trimmed": "a\n  {% if true %}\n    b\n  {% endif %}\n c",
    "loop controls": "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% elif i > 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "json": "{{ messages | tojson }}{{ [1] | tojson(indent=2) }}{{ {'b': '<', 'a': 'ü'} | tojson(ensure_ascii=true, sort_keys=true) }}",
    "namespace": "{% set ns = namespace(n=0, self=1) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}{{ ns.self }}",
    "dict": "{{ dict(a=1, **{'b': 2}) }}{{ dict.fromkeys(['x', 'y'], 3) }}",
    "selecting": "{{ messages[1].content | selectattr('type', 'equalto', 'image') | list | length }}{{ messages[0].content is string }}",
    "undefined": "[{{ tools }}]{% if tools is defined %}{% endif %}{{ nothing.else if false else 'x' }}",
    "letters": "{{ messages[2].content | upper | trim }}{{ 'a' * 9 }}{{ '%03d' % 7 }}{{ '{:>5}'.format('x') }}",
    "date": "{{ strftime_now('%Y') }}",
}


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


def written(renderer: Renderer, template: str) -> str:
    return renderer.render(template, TALK, names=NAMES, place="m")


@pytest.mark.parametrize("name", SOUND)
def test_a_template_is_written_as_transformers_writes_it(renderer: Renderer, name: str):
    """Every name, filter and tag that templates of transformers have."""
    (expected,), _ = render_jinja_template([TALK], chat_template=SOUND[name], add_generation_prompt=True, **NAMES)
    assert written(renderer, SOUND[name]) == expected


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('roles must alternate') }}", "refuses the conversation: roles must alternate"),
        ("{% for m in messages %}", "cannot be written: TemplateSyntaxError: Unexpected end of template"),
        ("{{ messages[9].content }}", "cannot be written: UndefinedError"),
        ("{{ ''.__class__.__mro__ }}", "cannot be written: SecurityError"),
        ("{{ messages.append(3) }}", "cannot be written: SecurityError"),
        ("{{ namespace(__class__=3) }}", "cannot be written: ValueError: a namespace has no name such as '__class__'"),
        ("{{ range(10 ** 9) }}", "cannot be written: OverflowError: Range too big"),
        ("{% for i in range(99999) %}{{ 'a' * 999 }}{% endfor %}", "cannot be written: it gives more than 16,777,216 letters"),
        ("{{ 'a' * 10 ** 10 }}", "cannot be written: it takes more memory than a template may have"),
        ("{{ '{:>9999999999}'.format(1) }}", "cannot be written: "),
        ("{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}", "more memory than a template"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "cannot be written: RecursionError"),
    ],
)
def test_a_template_that_cannot_be_written_is_one_error(renderer: Renderer, template: str, said: str):
    """And the next conversation is written all the same."""
    with pytest.raises((InputError, SourceError), match=r"the chat template of m") as caught:
        written(renderer, template)
    assert said in str(caught.value)
    assert written(renderer, "{{ messages | length }}") == "3"


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = a %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 9 ** (9 ** 9) }}",
    ],
    ids=["loops", "loops without a word", "one call"],
)
def test_a_template_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch, template: str):
    """By the time that it computes, also within one call; what comes after it is served by another process."""
    monkeypatch.setattr(chat_rendering, "COMPUTE_S", 1)
    renderer = Renderer()
    with pytest.raises(SourceError, match="does not come to an end: it was stopped after 1 s of computing"):
        written(renderer, template)
    assert written(renderer, "{{ messages | length }}") == "3"


FILES: dict[str, Any] = {
    "tokenizer_config.json": "config",
    "chat_template.jinja": "jinja",
    "chat_template.json": "legacy",
    "processor_config.json": "processor",
    "additional_chat_templates/tool_use.jinja": "tool",
}


def folder(path: Path, *names: str, has_processor: bool) -> Path:
    """A tokenizer, and with it a processor, whose templates lie in the named files."""
    tokenizer = checkpoints.llama_tokenizer()
    tokenizer.save_pretrained(path)
    if has_processor:
        checkpoints.llava(path)
        for name in ("processor_config.json", "chat_template.jinja", "chat_template.json"):
            (path / name).unlink(missing_ok=True)
        (path / "preprocessor_config.json").write_text(json.dumps(checkpoints.clip_pictures(15).to_dict()))
    for name in names:
        file = path / name
        file.parent.mkdir(exist_ok=True)
        if name == "tokenizer_config.json":
            content = json.loads(file.read_text())
            file.write_text(json.dumps({**content, "chat_template": FILES[name]}))
        else:
            file.write_text(FILES[name] if name.endswith(".jinja") else json.dumps({"chat_template": FILES[name]}))
    return path


def by_name(template: Any) -> dict[str, str]:
    return {"default": template} if isinstance(template, str) else dict(template or {})


@pytest.mark.parametrize(
    "names",
    [pair for size in range(4) for pair in itertools.combinations(FILES, size) if "processor_config.json" not in pair],
    ids=" ".join,
)
def test_the_templates_of_a_tokenizer_are_those_of_transformers(tmp_path: Path, names: tuple[str, ...]):
    """Except that chat_template.json, which transformers leaves to processors, is read where there is nothing else."""
    path = folder(tmp_path, *names, has_processor=False)
    theirs = by_name(hf.AutoTokenizer.from_pretrained(path).chat_template)
    assert find(path) == (theirs or ({"default": "legacy"} if "chat_template.json" in names else {}))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # transformers leaves files open
@pytest.mark.parametrize("names", [pair for size in range(4) for pair in itertools.combinations(FILES, size)], ids=" ".join)
def test_the_templates_of_a_processor_are_those_of_transformers(tmp_path: Path, names: tuple[str, ...]):
    """Those of its tokenizer where the processor has none; what transformers refuses to choose between is refused."""
    path = folder(tmp_path, *names, has_processor=True)
    try:
        processor = hf.LlavaProcessor.from_pretrained(path, backend="pil")
    except ValueError as error:
        assert "conflicting files" in str(error)  # noqa: PT017 what transformers says
        if "processor_config.json" not in names:
            with pytest.raises(SourceError, match="which of them count cannot be told"):
                find(path)
        return
    assert find(path) == by_name(processor.chat_template or processor.tokenizer.chat_template)


def test_named_templates_are_chosen_by_name(tmp_path: Path):
    """As a list in tokenizer_config.json, or as files."""
    tokenizer = checkpoints.llama_tokenizer()
    tokenizer.chat_template = {"default": "one", "tool_use": "two"}
    for as_files in (True, False):
        tokenizer.save_pretrained(tmp_path / str(as_files), save_jinja_files=as_files)
        found = find(tmp_path / str(as_files))
        assert [choose(found, name, place="m") for name in (None, "default", "tool_use")] == ["one", "one", "two"]
        with pytest.raises(
            SourceError, match=r"m has no chat template 'tool_used'; it has: default, tool_use\n    Did you mean 'tool_use'"
        ):
            choose(found, "tool_used", place="m")


def test_of_named_templates_without_a_default_one_must_be_chosen():
    with pytest.raises(SourceError, match=r"m has no chat template 'default'; it has: rag, tool_use"):
        choose({"tool_use": "a", "rag": "b"}, None, place="m")
    assert choose({}, None, place="m") is None
    with pytest.raises(SourceError, match=r"m has no chat template 'rag'; it has: none"):
        choose({}, "rag", place="m")


@pytest.mark.parametrize("value", [3, True, ["a"], [{"name": "x"}], [{"name": 3, "template": "x"}], {"default": 3}, [[]]], ids=repr)
def test_what_is_no_template_is_refused_by_its_file(tmp_path: Path, value: Any):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
    with pytest.raises(SourceError, match=r"tokenizer_config\.json: has a chat_template that is neither a text"):
        find(tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 99_999, b"{"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(SourceError, match=r"tokenizer_config\.json: is (no UTF-8 text|not JSON)"):
        find(tmp_path)


def test_a_template_of_the_source_is_chosen_by_the_graph(tmp_path: Path):
    """`chat_template: NAME` of a language model, beside `chat: true`."""
    from modelgraft.installed.discovery import assemble
    from modelgraft_plugins import llm
    from support.open_part import open_part

    model = checkpoints.llama(tmp_path)
    (tmp_path / "additional_chat_templates").mkdir()
    for name in ("loud", "soft"):
        (tmp_path / "additional_chat_templates" / f"{name}.jinja").write_text(
            f"{{% for m in messages %}}{name} {{{{ m.content }}}}{{% endfor %}}"
        )
    registry = assemble({"llm": llm})
    prompts = {}
    for name in ("loud", "soft"):
        part = open_part(registry, "llm/causal", str(model.folder), chat=True, chat_template=name)
        prompts[name] = part.loop.prompts([["hello"]])[0].ids
    assert prompts == {name: model.processor(f"{name} hello", add_special_tokens=False).input_ids for name in prompts}
    with pytest.raises(SourceError, match="has no chat template 'default'; it has: loud, soft"):
        open_part(registry, "llm/causal", str(model.folder), chat=True)(["hello"])
    assert chat_templates.find(model.folder).keys() == {"loud", "soft"}


GRAPH = """
modelgraft: 1
inputs: {{prompt: text}}
nodes:
  llm: {{use: llm/causal, from: ./m, with: {{{more}}}, in: {{prompt: inputs.prompt}}}}
outputs: {{text: llm.text}}
"""


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("chat: true", "llm asks for chat: true, and .*m has no chat template"),
        ("chat_template: soft", "llm: .*m has no chat template 'soft'; it has: none"),
    ],
)
def test_a_template_that_is_not_there_is_told_by_the_check(tmp_path: Path, more: str, said: str):
    """And not when the first conversation is written."""
    import modelgraft as mg

    checkpoints.llama(tmp_path / "m")
    (tmp_path / "graph.yaml").write_text(GRAPH.format(more=more))
    with pytest.raises(mg.GraphError, match=f"no-chat-template  {said}"):
        mg.check(mg.load(tmp_path / "graph.yaml"))
    (tmp_path / "m" / "additional_chat_templates").mkdir()
    (tmp_path / "m" / "additional_chat_templates" / "soft.jinja").write_text("x")
    (tmp_path / "m" / "chat_template.jinja").write_text("x")
    mg.check(mg.load(tmp_path / "graph.yaml"))
