"""Templates behave as Go's do."""

from __future__ import annotations

import pytest

from sampan.cli import template
from sampan.cli.failures import CommandError

VALUE = {
    "Id": "abc",
    "Name": "/web",
    "Config": {"Env": ["A=b", "C=d"], "Labels": {"x": "1", "y": "2"}, "Cmd": None},
    "State": {"Pid": 7, "Running": True},
    "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}},
    "Mounts": [{"Type": "bind", "Source": "/a", "Destination": "/b", "RW": True, "Mode": ""}],
}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("plain", "plain"),
        ("{{.Id}}-{{.Name}}", "abc-/web"),
        ("{{.State.Pid}} {{.State.Running}}", "7 true"),
        ("{{json .Config.Env}}", '["A=b","C=d"]'),
        ("{{.Config.Env}} {{.Config.Labels}} {{.Config.Cmd}}", "[A=b C=d] map[x:1 y:2] <no value>"),
        ("{{range .Config.Env}}<{{.}}>{{end}}", "<A=b><C=d>"),
        ("{{range $i, $e := .Config.Env}}{{$i}}{{$e}} {{end}}", "0A=b 1C=d "),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}},{{end}}", "x=1,y=2,"),
        ("{{range .Config.Cmd}}x{{else}}none{{end}}", "none"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{range .Config.Env}}{{if eq . \"A=b\"}}{{continue}}{{end}}{{.}}{{end}}", "C=d"),
        ("{{range .Config.Env}}{{.}}{{break}}{{end}}", "A=b"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if not .State.Running}}a{{else if .Id}}b{{else}}c{{end}}", "b"),
        ("{{with .Config}}{{index .Labels \"x\"}}{{$.Id}}{{end}}", "1abc"),
        ("{{.Config.Labels.zz}}", "<no value>"),
        ("{{.NetworkSettings.Networks.none.IPAddress}}", "<no value>"),
        ("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "172.17.0.2"),
        ("{{.Mounts}}", "[{bind  /a /b   true }]"),
        ("{{upper .Id}} {{title \"ab cd\"}} {{lower \"X\"}}", "ABC Ab Cd x"),
        ("{{join .Config.Env \"/\"}} {{split \"a,b\" \",\"}}", "A=b/C=d [a b]"),
        ("{{.Id | printf \"%-5s|\" | upper}}", "ABC  |"),
        ("{{printf \"%d %05d %x %q %v %t %.2f %s\" 3 7 255 \"a\" nil true 2.5 .Id}}",
         '3 00007 ff "a" <nil> true 2.50 abc'),
        ("{{len .Name}} {{slice .Id 0 2}} {{truncate .Id 1}}", "4 ab a"),
        ("{{and 1 0}}{{or \"\" \"x\"}}{{not 1}}", "0xfalse"),
        ("{{eq 1 2 1}} {{ne 1 1}} {{lt 1 2}} {{ge \"b\" \"a\"}}", "true false true true"),
        ("{{(index .Mounts 0).Source}}", "/a"),
        ("{{$x := .Id}}{{$x}}{{$x = \"z\"}}{{$x}}", "abcz"),
        ("a {{- .Id -}} b{{/* note }} */}}", "aabcb"),
        ("{{print 1 2 \"a\" \"b\" 3}}{{println \"x\"}}", "1 2ab3x\n"),
        ("{{html \"<a&b>\"}} {{urlquery \"a b/\"}} {{js \"it's\"}}", "&lt;a&amp;b&gt; a+b%2F it\\'s"),
        ("{{`raw\\n`}}{{\"q\\t\"}}{{'a'}}", "raw\\nq\t97"),
        ("{{pad .Id 1 2}}|", " abc  |"),
    ],
)  # fmt: skip
def test_output(source: str, text: str) -> None:
    assert template.parse(source).run(VALUE) == text


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{foo}}", 'template: :1: function "foo" not defined'),
        ("{{.Id", "template: :1: unclosed action"),
        ("{{if .Id}}", "template: :1: unexpected EOF"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{$x}}", 'template: :1: undefined variable "$x"'),
        ("{{}}", "template: :1: missing value for command"),
        ("{{break}}", "template: :1: {{break}} outside {{range}}"),
        ('{{"a}}', "template: :1: unterminated quoted string"),
        ("{{(.Id}}", "template: :1: unclosed left paren"),
        ("{{if}}x{{end}}", "template: :1: missing value for if"),
    ],
)
def test_no_template(source: str, reason: str) -> None:
    with pytest.raises(template.ParseError) as caught:
        template.parse(source)
    assert caught.value.detail == reason


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{.Nope}}", 'template: :1:2: executing "" at <.Nope>: map has no entry for key "Nope"'),
        (
            "{{.State.Nope}}",
            'template: :1:8: executing "" at <.State.Nope>: map has no entry for key "Nope"',
        ),
        (
            "{{index .Config.Env 9}}",
            ('template: :1:2: executing "" at <index .Config.Env 9>: error calling index:'
            " index out of range: 9"),
        ),
        ("{{.Id.X}}", "template: :1:5: executing \"\" at <.Id.X>: can't evaluate field X in type string"),
        (
            "{{1 2}}",
            "template: :1:2: executing \"\" at <1>: can't give argument to non-function 1",
        ),
        ('{{eq 1 "a"}}', 'template: :1:2: executing "" at <eq 1 "a">: error calling eq: incompatible types for comparison'),
    ],
)  # fmt: skip
def test_does_not_fit(source: str, reason: str) -> None:
    with pytest.raises(template.ExecuteError) as caught:
        template.parse(source).run(VALUE)
    assert caught.value.detail == reason


def test_no_input_gets_out_of_hand() -> None:
    """Whatever is given as a template is refused with a message, never with a traceback."""
    pieces = ["{{", "}}", "if", "range", ".", "$x", ":=", "(", ")", "|", '"', "'", "`", " ", "-", "1", "else", "end", ".A", "index", "/*", "*/", "\n", "é"]  # fmt: skip
    state = 12345
    for _ in range(3000):
        source = ""
        for _ in range(8):
            state = (state * 1103515245 + 12345) & 0x7FFFFFFF
            source += pieces[(state >> 8) % len(pieces)]
        try:
            template.parse(source).run(VALUE)
        except CommandError:
            continue
