"""What does not belong into a section of a document, each named with what there is, and all at once."""

from __future__ import annotations

import pytest

from support.expanding import ONE, problem, problems


@pytest.mark.parametrize(
    ("text", "code", "sentence", "hint"),
    [
        (
            ONE % ", form: x",
            "unknown-key",
            "the node a has no key 'form'; the keys are: use, from, with, in, frozen, ",
            "Did you mean 'from'?",
        ),
        (
            ONE % ", frozen: yes",
            "wrong-type",
            "a.frozen is the text 'yes'; wanted true or false",
            "write true or false: of the unquoted words",
        ),
        (ONE % ", frozen: 1", "wrong-type", "a.frozen is the number 1; wanted true or false", ""),
        (ONE % ", with: [1]", "wrong-type", "a.with is a list; wanted a mapping", ""),
        (ONE % ", from: 3", "wrong-type", "a.from is the number 3; wanted a text", ""),
        (ONE % ", from: ''", "wrong-type", "a.from is the text ''; wanted a text that is not empty", ""),
        (ONE % ", when: [a]", "bad-reference", "a.when is a list; wanted a port: node.port, node, or inputs.name", ""),
        (ONE % ", adapters: {use: x}", "wrong-type", "a.adapters is a mapping; wanted a list of mappings with `use`", ""),
        (ONE % ", adapters: [{from: x}]", "missing-key", "a.adapters[0] does not say which component it uses", "add `use: adapter/lora`"),
        (
            ONE % ", runtime: {devise: cpu}",
            "unknown-key",
            "a.runtime has no key 'devise'; the keys are: backend, device, ",
            "Did you mean 'device'?",
        ),
        (ONE % ", runtime: {threads: 0}", "wrong-value", "a.runtime.threads is 0; wanted a number above 0", ""),
        (ONE % ", runtime: {threads: 1.5}", "wrong-type", "a.runtime.threads is the number 1.5; wanted a whole number", ""),
        (
            ONE % ", runtime: {dtype: float23}",
            "wrong-value",
            "a.runtime.dtype is 'float23'; wanted one of: float32, ",
            "Did you mean 'float32'?",
        ),
        (
            "nods: {}\n" + ONE % "",
            "unknown-key",
            "a graph has no key 'nods'; the keys are: modelgraft, name, params, ",
            "Did you mean 'nodes'?",
        ),
        ("losses: {a: {use: t/b}}\n" + ONE % "", "bad-name", "the loss a has the name of a node", "give it another name"),
        ("losses: [a]\n" + ONE % "", "wrong-type", "losses is a list; wanted a mapping", ""),
        ("name: [x]\n" + ONE % "", "wrong-type", "name is a list; wanted a text", ""),
        ("params: [x]\n" + ONE % "", "wrong-type", "params is a list; wanted a mapping of names to defaults", ""),
        ("runtime: fast\n" + ONE % "", "wrong-type", "runtime is the text 'fast'; wanted a mapping", ""),
        (
            "runtime: {backend: {b: onnx}}\n" + ONE % "",
            "unknown-node",
            "runtime.backend names the node 'b', but there is none; there are: a",
            "",
        ),
        (
            "nodes: {a: t/a}\noutputs: {y: a}\n",
            "wrong-type",
            "the node a is the text 't/a'; wanted a mapping with `use`",
            "write {use: t/a}",
        ),
        ("nodes: {a: {from: x}}\noutputs: {y: a}\n", "missing-key", "a does not say which component it uses", "add `use: namespace/name`"),
        ("nodes: {a-b: {use: t/a}}\noutputs: {y: q}\n", "bad-name", "the node 'a-b' is no name", "names are letters, digits and _"),
        ("nodes: {inputs: {use: t/a}}\noutputs: {y: q}\n", "bad-name", "no node may be called 'inputs'", ""),
        (
            "nodes: {a: {use: t/a, in: b}}\noutputs: {y: a}\n",
            "wrong-type",
            "a.in is the text 'b'; wanted a mapping of ports",
            "name the port",
        ),
        ("nodes: {a: {use: t/a, in: {x: []}}}\noutputs: {y: a}\n", "wrong-type", "a.in.x is a list; wanted at least one reference", ""),
        ("nodes: {a: {use: t/a, in: {x: b.c.d}}}\noutputs: {y: a}\n", "bad-reference", "a.in.x is the text 'b.c.d'; wanted a port", ""),
        (
            "nodes: {a: {use: t/a, in: {x: inputs}}}\noutputs: {y: a}\n",
            "bad-reference",
            "a.in.x is the text 'inputs'; wanted a port",
            "name the input",
        ),
        ("nodes: {a: {use: t/a}}\n", "missing-key", "the graph has no outputs", "say what a run gives"),
        ("outputs: {y: a}\n", "missing-key", "the graph has no nodes", "add at least one part"),
        (
            "inputs: {x: imge}\nnodes: {a: {use: t/a}}\noutputs: {y: a}\n",
            "unknown-type",
            "the input x is of type 'imge', which nothing",
            "Did you mean 'image'?",
        ),
        (
            "inputs: {x: 'list[imge]'}\nnodes: {a: {use: t/a}}\noutputs: {y: a}\n",
            "unknown-type",
            "the input x is of type 'imge'",
            "Did you mean",
        ),
        ("inputs: {x: float}\nnodes: {a: {use: t/a}}\noutputs: {y: a}\n", "bad-port-type", "port type 'float': 'float' needs axes", ""),
        (
            "inputs: {x: {doc: y}}\nnodes: {a: {use: t/a}}\noutputs: {y: a}\n",
            "missing-key",
            "the input x does not say its type",
            "add `type: image`",
        ),
        (
            "inputs: {x: {type: text, default: 3}}\nnodes: {a: {use: t/a}}\noutputs: {y: a}\n",
            "wrong-type",
            "the default of the input x is the number 3",
            "",
        ),
        (
            "inputs: {x: {type: image, default: a.png}}\nnodes: {a: {use: t/a}}\noutputs: {y: a}\n",
            "wrong-type",
            "the default of the input x is the text",
            "",
        ),
        ("nodes: {a: {use: t/a}}\noutputs: [a]\n", "wrong-type", "outputs is a list; wanted a mapping", ""),
        ("nodes: {a: {use: t/a}}\noutputs: {y: ~}\n", "bad-reference", "outputs.y is null; wanted a port", ""),
        ("nodes: {a: ~}\noutputs: {y: a}\n", "wrong-type", "the node a is null; wanted a mapping with `use`", ""),
    ],
)
def test_what_does_not_belong_is_named_with_what_there_is(tmp_path, text, code, sentence, hint):
    found = problem(tmp_path, text)
    assert found.code == code
    assert found.found.startswith(sentence)
    assert found.hint.startswith(hint)
    assert found.place.line


def test_all_problems_are_told_at_once_in_the_order_of_the_file(tmp_path):
    text = "nods: 1\nparams: {p: 1}\nnodes:\n  a: {use: t/a, frm: x}\n  b: {with: {}}\n  c: {use: 3}\noutputs: {y: 1}\n"
    found = problems(tmp_path, text)
    assert [(p.code, p.place.line) for p in found] == [
        ("unknown-key", 2),
        ("unknown-key", 5),
        ("missing-key", 6),
        ("wrong-type", 7),
        ("bad-reference", 8),
    ]
