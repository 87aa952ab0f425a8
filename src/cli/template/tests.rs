//! Templates and what Docker's own command line (28.2, and a daemon's answers that were made up) made of them.

use miniserde::json::{self, Value};

use super::{Context, Missing, Template};
use crate::strings::Strings;

const DOCUMENT: &str = r#"{"Id":"sha256:ab","Size":4261550,"Name":"/web","Half":1.5,"None":null,
    "State":{"Running":false,"Pid":0,"ExitCode":3},"Tags":["a:1","b:2"],
    "Config":{"Env":["A=b","C=d"],"Labels":{"v":"w","x.y":"z"}},"Empty":{"Labels":null},
    "Ports":{"80/tcp":[{"HostPort":"8080"}]}}"#;

fn run(template: &str, missing: Missing) -> Result<String, String> {
    let value: Value = json::from_str(DOCUMENT).unwrap();
    let labels = Strings::from_iter([("com.x-y".to_string(), "label".to_string())]);
    let context = Context { value: &value, missing, labels: Some(&labels), is_header: false };
    Template::parse("", template)?.execute(&context)
}

fn text_of(template: &str) -> String {
    run(template, Missing::Key).unwrap_or_else(|message| message)
}

#[test]
fn what_people_write() {
    for (template, text) in [
        ("plain }} text", "plain }} text"),
        ("{{.Id}} {{.Size}} {{.Half}}", "sha256:ab 4261550 1.5"),
        ("{{.Tags}} {{.State}}", "[a:1 b:2] map[ExitCode:3 Pid:0 Running:false]"),
        (
            "{{json .Config.Env}} {{json .State}}",
            r#"["A=b","C=d"] {"ExitCode":3,"Pid":0,"Running":false}"#,
        ),
        ("{{.Config.Labels.v}} {{.Config.Labels.nope}}", "w <no value>"),
        (
            "{{index .Config.Labels \"x.y\"}}|{{index .Config.Labels \"no\"}}|{{index .Empty.Labels \"no\"}}",
            "z||",
        ),
        ("{{(index (index .Ports \"80/tcp\") 0).HostPort}} {{.None}}", "8080 <no value>"),
        ("{{range .Config.Env}}{{println .}}{{end}}", "A=b\nC=d\n"),
        ("{{range $i, $e := .Tags}}{{$i}}={{$e}};{{else}}none{{end}}", "0=a:1;1=b:2;"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}:{{$v}} {{end}}", "v:w x.y:z "),
        ("{{range .None}}x{{else}}none{{end}}", "none"),
        ("{{range .Tags}}{{$.Id}}{{.}}{{break}}{{end}}", "sha256:aba:1"),
        ("{{range .Tags}}{{if eq . \"a:1\"}}{{continue}}{{end}}{{.}}{{end}}", "b:2"),
        ("{{if .State.Running}}up{{else if gt .State.ExitCode 2}}bad{{else}}ok{{end}}", "bad"),
        ("{{with .Config}}{{len .Env}}{{end}}{{with .None}}x{{else}}y{{end}}", "2y"),
        ("{{$x := 3}}{{if true}}{{$x = 4}}{{$y := $x}}{{$y}}{{end}}{{$x}}", "44"),
        ("{{and 1 0}} {{or 0 \"b\"}} {{not 1}} {{and .None .None.X}}", "0 b false <no value>"),
        ("{{- /* c */ -}} x {{- 3 -}}  y", "x3y"),
        (
            "{{print 1 2 \"a\" \"b\" 3}} {{\"a\\tb\"}} {{`a\\tb`}} {{'a'}} {{0x10}} {{1e3}} {{-2}}",
            "1 2ab3 a\tb a\\tb 97 16 1000 -2",
        ),
        (
            "{{split \"a,b\" \",\"}} {{join .Tags \"+\"}} {{title \"ab cd\"}} {{upper \"x\" | lower}}",
            "[a b] a:1+b:2 Ab Cd x",
        ),
        (
            "{{pad \"x\" 2 3}}|{{truncate \"abcdef\" 3}}|{{truncate \"ab\" 3}}|{{slice \"abcdef\" 1 3}}",
            "  x   |abc|ab|bc",
        ),
        (
            "{{printf \"%s %v %q %5d|%-5s|%05d|%x|%.2f|%%\" .Name .State.Pid .Name 3 \"a\" -4 255 .Half}}",
            "/web 0 \"/web\"     3|a    |-0004|ff|1.50|%",
        ),
        ("{{printf \"%d %s %d\" \"x\" 3}}", "%!d(string=x) %!s(int=3) %!d(MISSING)"),
        ("{{printf \"%s\" \"a\" 1}} {{.Name | printf \"%.2s\"}}", "a%!(EXTRA int=1) /w"),
        (
            "{{len .Name}}{{(len .Tags)}} {{eq .Size 1 4261550}} {{ne .Name \"x\"}} {{le 1 1.5}} {{ge \"b\" \"a\"}}",
            "42 true true true true",
        ),
        ("{{html \"<a>\"}} {{.Label \"com.x-y\"}}", "&lt;a&gt; label"),
        (
            "{{nil}} {{true}} {{.}}",
            "<no value> true map[Config:map[Env:[A=b C=d] Labels:map[v:w x.y:z]] Empty:map[Labels:<nil>] Half:1.5 Id:sha256:ab Name:/web None:<nil> Ports:map[80/tcp:[map[HostPort:8080]]] Size:4261550 State:map[ExitCode:3 Pid:0 Running:false] Tags:[a:1 b:2]]",
        ),
    ] {
        assert_eq!(text_of(template), text, "{template}");
    }
}

#[test]
fn what_is_wrong_is_told_as_go_tells_it() {
    let parse = "template parsing error: template: :1: ";
    for (template, why) in [
        ("{{.Client", "unclosed action"),
        ("{{foo .}}", "function \"foo\" not defined"),
        ("{{if}}", "missing value for if"),
        ("{{}}", "missing value for command"),
        ("{{range .Tags}}", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{$x}}", "undefined variable \"$x\""),
        ("{{if 1}}{{$x := 1}}{{end}}{{$x}}", "undefined variable \"$x\""),
        ("{{\"unterminated}}", "unterminated quoted string"),
        ("{{break}}", "{{break}} outside {{range}}"),
        ("{{/* x", "unclosed comment"),
        ("{{(len .}}", "unclosed left paren"),
        ("{{.A | 3}}", "non executable command in pipeline stage 2: 3"),
        ("{{.A ? }}", "bad character U+003F '?'"),
        ("{{if 1}}{{else}}{{else}}{{end}}", "expected end; found {{else}}"),
        ("{{1x}}", "bad number syntax: \"1x\""),
    ] {
        assert_eq!(text_of(template), format!("{parse}{why}"), "{template}");
    }
    let deep = "{{if 1}}".repeat(5_000);
    assert_eq!(text_of(&deep), format!("{parse}nested more than 64 deep"));
    let deep = format!("{{{{{}1{}}}}}", "(".repeat(5_000), ")".repeat(5_000));
    assert_eq!(text_of(&deep), format!("{parse}nested more than 64 deep"));
    for (template, place, part, why) in [
        ("{{.Nope}}", "1:2", ".Nope", "map has no entry for key \"Nope\""),
        ("{{.Config.Nope.X}}", "1:9", ".Config.Nope.X", "map has no entry for key \"Nope\""),
        ("a\n{{.Nope}}", "2:3", ".Nope", "map has no entry for key \"Nope\""),
        ("{{.Name.X}}", "1:7", ".Name.X", "can't evaluate field X in type interface {}"),
        ("{{index .Tags 7}}", "1:2", "index .Tags 7", "error calling index: index out of range: 7"),
        (
            "{{lt 1 \"a\"}}",
            "1:2",
            "lt 1 \"a\"",
            "error calling lt: incompatible types for comparison",
        ),
        ("{{not}}", "1:2", "not", "wrong number of args for not: want 1 got 0"),
        (
            "{{printf \"%s\" .Config.Nope}}",
            "1:21",
            ".Config.Nope",
            "map has no entry for key \"Nope\"",
        ),
        (
            "{{join .Config.Labels \", , ,\"}}",
            "1:2",
            "join .Config.Labels ...",
            "error calling join: expected []string; got map[v:w x.y:z]",
        ),
    ] {
        let message = format!(
            "template parsing error: template: :{place}: executing \"\" at <{part}>: {why}"
        );
        assert_eq!(text_of(template), message, "{template}");
    }
    let message = run("{{.Nope}}", Missing::Field("*formatter.imageContext")).unwrap_err();
    assert!(message.ends_with("can't evaluate field Nope in type *formatter.imageContext"));
}

/// Nothing that a user can type makes it panic: every prefix and every single byte's loss of what works.
#[test]
fn broken_templates_are_errors_or_texts() {
    let whole = "{{- range $i, $e := .Tags -}} {{$e | printf \"%5.2s\\n\" }}{{else}}{{`x`}}{{end}}{{/* é */}}{{slice .Name 1}}";
    for at in whole.char_indices().map(|(at, _)| at) {
        let _ = run(&whole[..at], Missing::Key);
        let mut without = whole.to_string();
        without.remove(at);
        let _ = run(&without, Missing::Key);
    }
    for template in [
        "{{truncate \"é\" 1}}",
        "{{slice \"é\" 1}}",
        "{{index \"é\" 9}}",
        "{{printf \"%é\" 1}}",
        "{{pad \"x\" -1 1}}",
        "{{printf \"%99999999999999999999d\" 1}}",
        "{{'\\",
        "{{\"\\",
        "{{-}}",
        "{{- -}}",
        "{{$}}",
        "{{.}}{{$.}}",
        "{{.1}}",
        "{{1.}}",
        "{{--1}}",
    ] {
        let _ = run(template, Missing::Key);
    }
    let endless = "{{range $a := $.Tags}}".repeat(40) + &"{{end}}".repeat(40);
    assert!(text_of(&endless).ends_with("the template does too much"));
}

#[test]
fn titles_of_columns_pass_through_functions() {
    let value: Value = json::from_str(r#"{"ID":"IMAGE ID"}"#).unwrap();
    let labels = Strings::new();
    let missing = Missing::Field("x");
    let context = Context { value: &value, missing, labels: Some(&labels), is_header: true };
    let template =
        Template::parse("", "{{lower .ID}}|{{json .}}|{{.Label \"com.x-y\"}}|{{pad .ID 1 1}}")
            .unwrap();
    assert_eq!(template.execute(&context).unwrap(), "IMAGE ID||x y| IMAGE ID ");
}
