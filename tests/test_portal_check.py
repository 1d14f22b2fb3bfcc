"""`kuulo portal check`: each mistake is found where it is, and nothing is found where nothing is wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from conftest import Kuulo
from kuulo.deploy.portal_check import ruby, sandbox
from kuulo.deploy.portal_check.check import check
from kuulo.deploy.portal_check.finding import Finding
from kuulo.errors import UsageError

GOOD: Mapping[str, str] = {
    "manifest.yml": "---\nname: Words\ncategory: Interactive Apps\nrole: batch_connect\n",
    "form.yml": """\
---
cluster: "mycluster"
title: Words
form:
  - path
  - language
  - notes
  - bc_num_hours
  - bc_email_on_started
  - auto_modules_R
attributes:
  path:
    widget: path_selector
    required: true
    directory: /scratch
  language:
    widget: select
    label: Language
    options:
      - [ "Finnish", "fi", data-option-for-mycluster: true ]
      - "en"
    value: "en"
  notes:
    widget: text_area
    help: "What **you** like"
    data-hide-language: true
  bc_num_hours:
    value: 2
    max: 8
""",
    "submit.yml.erb": """\
<%- require "json" -%>
---
batch_connect:
  template: "basic"
script:
  queue_name: "gpu"
  wall_time: <%= bc_num_hours.to_i * 3600 %>
  job_environment:
    WORDS_PATH: <%= path.to_json %>
    WORDS_NOTES: <%= notes.to_json %>
  native: ["--mem", "4G"]
""",
    "template/script.sh.erb": """\
#!/bin/bash -l
# <%= session.id %>
module load words
if [ -n "$WORDS_NOTES" ]; then
  echo "with notes"
fi
words --language <%= context.language == "fi" ? "fi" : "en" %> --hours <%= context.bc_num_hours.to_i %> "$WORDS_PATH"
code=$?
echo "ended"
exit $code
""",
    "view.html.erb": "<p>At <%= host %>:<%= port %></p>\n",
    "completed.md.erb": "The job <%= job_id %> is over: [files](<%= OodAppkit.files.url(path: staged_root) %>)\n",
}


def write(folder: Path, files: Mapping[str, str | None]) -> Path:
    """The good app with some files changed; None leaves one out."""
    for name, text in {**GOOD, **files}.items():
        if text is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
            path.chmod(0o755 if "script.sh" in name else 0o644)
    return folder


def changed(name: str, old: str, new: str) -> dict[str, str]:
    assert old in GOOD[name], old
    return {name: GOOD[name].replace(old, new)}


@pytest.fixture
def needs_ruby(needs_program: Callable[[str], str]) -> str:
    return needs_program("ruby")


@pytest.mark.usefixtures("needs_ruby")
def test_nothing_is_wrong_in_a_good_app(tmp_path: Path) -> None:
    found = check(write(tmp_path / "app", {}))
    assert (found.findings, found.notes) == ([], [])


def test_nothing_is_wrong_in_it_without_ruby(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = check(write(tmp_path / "app", {}))
    assert found.findings == []
    assert found.notes == ["there is no ruby: what is ERB was read without rendering it, and no script was executed"]


FORM, SUBMIT, SCRIPT = "form.yml", "submit.yml.erb", "template/script.sh.erb"

STATIC: dict[str, tuple[dict[str, str | None], str, int | None, str]] = {
    # what: (the files that are changed, the file and the line of the finding, a part of what it says)
    "no manifest": ({"manifest.yml": None}, "manifest.yml", None, "it is missing"),
    "manifest is text": ({"manifest.yml": "hello\n"}, "manifest.yml", 1, "is not a map"),
    "manifest is no YAML": ({"manifest.yml": "name: [x\nrole: y\n"}, "manifest.yml", 2, "it is not YAML"),
    "no role": ({"manifest.yml": "name: x\n"}, "manifest.yml", 1, "it has no role"),
    "another role": ({"manifest.yml": "name: x\nrole: batch\n"}, "manifest.yml", 2, "the role is 'batch'"),
    "no name": ({"manifest.yml": "role: batch_connect\n"}, "manifest.yml", 1, "it has no name"),
    "manifest key": ({"manifest.yml": "name: x\nrole: batch_connect\nroles: y\n"}, "manifest.yml", 3, "no key 'roles'"),
    "no form": ({FORM: None}, FORM, None, "the portal has no app here"),
    "form is text": ({FORM: "hello\n"}, FORM, 1, "is not a map"),
    "form is no YAML": ({FORM: "cluster: x\nform:\n\t- y\n"}, FORM, 3, "it is not YAML"),
    "form is a map": (
        {FORM: "cluster: x\nform:\n  path: 1\n"}, FORM, 2, "form is not a list"
    ),
    "attributes is a list": (
        {FORM: "cluster: x\nform: [path]\nattributes:\n- path\n"}, FORM, 3, "attributes is not a map"
    ),
    "form key": (changed(FORM, "title: Words", "titel: Words"), FORM, 3, "no key 'titel'"),
    "no cluster": (changed(FORM, 'cluster: "mycluster"\n', ""), FORM, None, "no cluster is named"),
    "alias": (
        changed(FORM, "    value: 2", "    value: &two 2\n    min: *two"), FORM, 29, "the alias *two"
    ),
    "date": (changed(FORM, "    value: 2", "    value: 2026-01-01"), FORM, 28, "2026-01-01 is a date"),
    "symbol": (changed(FORM, "title: Words", "title: :words"), FORM, 3, ":words is a symbol"),
    "object": (changed(FORM, "title: Words", "title: !ruby/object:Foo x"), FORM, 3, "the portal refuses objects"),
    "key twice": (changed(FORM, "title: Words", "title: Words\ntitle: More"), FORM, 4, "'title' is there twice"),
    "unknown item": (changed(FORM, "  - notes", "  - notse"), FORM, 7, "'notse' is neither predefined"),
    "item that is no text": (changed(FORM, "  - notes", "  - [notes]"), FORM, 4, "is no name"),
    "method": (
        changed(FORM, "  - notes", "  - notes\n  - method"), FORM, 8, "'method' is a method of Ruby's objects"
    ),
    "method of Rails": (
        changed(FORM, "  - notes", "  - notes\n  - try"), FORM, 8, "'try' is a method of Ruby's objects"
    ),
    "capitals": (changed(FORM, "  - notes", "  - notes\n  - bigName"), FORM, 8, "'bigName' has capitals"),
    "attribute key": (changed(FORM, "    help:", "    hlep:"), FORM, 25, "notes: the portal reads no key 'hlep'"),
    "widget": (changed(FORM, "widget: select", "widget: selct"), FORM, 17, "language: there is no widget 'selct'"),
    "no options": (
        {FORM: "cluster: x\nform: [a]\nattributes:\n  a:\n    widget: select\n    options:\n"},
        FORM, 6, "a: it has nothing to choose from",
    ),
    "nil option": (changed(FORM, '      - "en"', "      -"), FORM, 19, "an option is empty (nil)"),
    "number option": (changed(FORM, '      - "en"', "      - 12"), FORM, 19, "the option 12 is neither"),
    "value that is none": (changed(FORM, 'value: "en"', 'value: "sv"'), FORM, 19, "its value 'sv' is none of"),
    "submit is text": ({SUBMIT: "hello\n"}, SUBMIT, 1, "is not a map"),
    "submit is no YAML": ({SUBMIT: "script:\n  native: [\n"}, SUBMIT, 3, "it is not YAML"),
    "submit key": (changed(SUBMIT, "script:", "scripts:"), SUBMIT, 5, "no key 'scripts'"),
    "script is a list": ({SUBMIT: "script:\n- native\n"}, SUBMIT, 1, "script is not a map"),
    "dropped key": (
        changed(SUBMIT, "  queue_name", "  partition"), SUBMIT, 6, "ood_core drops the key 'partition' without a word"
    ),
    "misspelt key": (changed(SUBMIT, "  queue_name", "  queuename"), SUBMIT, 6, "drops the key 'queuename'"),
    "native is text": (changed(SUBMIT, '["--mem", "4G"]', '"--mem 4G"'), SUBMIT, 11, "native is '--mem 4G' and not"),
    "native has a map": (changed(SUBMIT, '"4G"]', "{a: 1}]"), SUBMIT, 11, "native has something in it"),
    "environment is a list": (
        {SUBMIT: "script:\n  job_environment:\n  - X=1\n"}, SUBMIT, 2, "job_environment is not a map"
    ),
    "wall time": ({SUBMIT: 'script:\n  wall_time: "04:00:00"\n'}, SUBMIT, 2, "which counts as 4 seconds"),
    "flag that is text": ({SUBMIT: 'script:\n  email_on_started: "0"\n'}, SUBMIT, 2, "counts as true"),
    "batch_connect key": (
        changed(SUBMIT, '  template: "basic"', '  template: "basic"\n  beforescript: x'), SUBMIT, 5,
        "batch_connect: there is no key 'beforescript'",
    ),
    "template": (changed(SUBMIT, '"basic"', '"basics"'), SUBMIT, 4, "no template 'basics'"),
    "wrapper": (
        {SUBMIT: "batch_connect:\n  script_wrapper: |\n    date +%H\n    %s\n"}, SUBMIT, 2, "script_wrapper is a format"
    ),
    "raise is text": (
        changed(SUBMIT, "script:\n", '<% if path.empty? %>\n  raise "no path: none"\n<% end %>\nscript:\n'), SUBMIT, 6,
        "`raise` outside of <% %> is text",
    ),
    "no script": ({SCRIPT: None, "template/before.sh": "true\n"}, "template/script.sh", None, "it is missing"),
    "two scripts": ({"template/script.sh": "#!/bin/bash\n"}, "template/script.sh", None, "script.sh.erb takes its"),
    "two forms": ({"form.yml.erb": GOOD[FORM]}, FORM, None, "reads form.yml.erb and not this one"),
    "no view": ({"view.html.erb": None}, "view.html.erb", None, "its connection is missing"),
    "echo before $?": (
        changed(SCRIPT, "code=$?\n", 'echo "well?"\nif [ $? -eq 0 ]; then mail -s done me; fi\ncode=0\n'), SCRIPT, 9,
        "$? is that of `echo` in line 8",
    ),
    "sbatch": (changed(SCRIPT, "code=$?", "code=$?\nid=$(sbatch other.sh)"), SCRIPT, 9, "sbatch in a job"),
    "Windows": ({SCRIPT: GOOD[SCRIPT].replace("\n", "\r\n")}, SCRIPT, 1, "end as on Windows"),
    "value in shell text": (
        changed(SCRIPT, '"$WORDS_PATH"', '"<%= context.path %>"'), SCRIPT, 7, "'path' becomes shell text"
    ),
}  # fmt: skip


def found_in(folder: Path, file: str, line: int | None, what: str, *, run: bool = True) -> list[Finding]:
    found = check(folder).findings
    assert [one for one in found if (one.file, one.line) == (file, line) and what in one.what], "\n".join(
        map(str, found)
    )
    assert all(one.do for one in found)
    return found


@pytest.mark.parametrize("case", STATIC)
@pytest.mark.parametrize("with_ruby", [True, False], ids=["ruby", "no-ruby"])
def test_each_mistake_is_found(case: str, with_ruby: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if with_ruby and not ruby.found():
        pytest.skip("needs the program ruby, which is not installed here")
    if not with_ruby:
        monkeypatch.setenv("PATH", str(tmp_path))
    files, file, line, what = STATIC[case]
    found_in(write(tmp_path / "app", files), file, line, what, run=False)


def test_a_script_that_cannot_be_executed(tmp_path: Path) -> None:
    app = write(tmp_path / "app", {})
    (app / SCRIPT).chmod(0o644)
    found_in(app, SCRIPT, None, "its mode is 644")


HOSTILE: dict[str, tuple[dict[str, str | None], str, int | None, str]] = {
    "in quotes": (changed(SCRIPT, '"$WORDS_PATH"', '"<%= context.path %>"'), SCRIPT, 7, "value 'path' becomes shell"),
    "in single quotes": (
        changed(SCRIPT, '"$WORDS_PATH"', "'<%= context.notes %>'"), SCRIPT, 7, "value 'notes' becomes shell text"
    ),
    "bare": (changed(SCRIPT, '"$WORDS_PATH"', "<%= context.notes %>"), SCRIPT, 7, "value 'notes' becomes shell text"),
    "a choice is no guard": (
        changed(SCRIPT, '"$WORDS_PATH"', "<%= context.language %>"), SCRIPT, 7, "value 'language' becomes shell text"
    ),
    "in a comment": (changed(SCRIPT, "session.id", "context.notes"), SCRIPT, 2, "value 'notes' becomes shell text"),
    "in a here-document": (
        changed(SCRIPT, "code=$?\n", "code=$?\ncat > notes.txt << EOF\n<%= context.notes %>\nEOF\n"), SCRIPT, 10,
        "value 'notes' becomes shell text",
    ),
    "sourced before": (
        {"template/before.sh.erb": 'export X="<%= context.notes %>"\n'}, "template/before.sh.erb", 1,
        "value 'notes' becomes shell text",
    ),
    "in the wrapper": (
        changed(SUBMIT, '  template: "basic"', '  header: <%= "export X=#{notes}".to_json %>'), SUBMIT, 4,
        "value 'notes' becomes shell text",
    ),
    "evaluated": (
        changed(SCRIPT, "module load words", 'eval "echo $WORDS_NOTES"'), SUBMIT, 10, "value 'notes' becomes shell text"
    ),
    "into YAML": (
        changed(SUBMIT, "<%= notes.to_json %>", '"<%= notes %>"'), SUBMIT, 10, "value 'notes' is written into YAML"
    ),
    "into YAML, bare": (
        changed(SUBMIT, '["--mem", "4G"]', '["--comment", <%= notes %>]'), SUBMIT, 11, "'notes' is written into YAML"
    ),
    "the code of echo": (
        changed(SCRIPT, "exit $code\n", ""), SCRIPT, 7, "when words fails, the job ends with code 0"
    ),
    "the code of a mail": (
        changed(SCRIPT, 'code=$?\necho "ended"\nexit $code\n', "if [ $? -eq 0 ]; then mail ok; else mail bad; fi\n"),
        SCRIPT, 7, "when words fails, the job ends with code 0",
    ),
    "bash does not understand": (changed(SCRIPT, "fi\n", "\n"), SCRIPT, 11, "bash does not understand it"),
    "Ruby does not understand": (changed(SCRIPT, "session.id", "session.id("), SCRIPT, 2, "Ruby cannot render it"),
    "unknown value": (changed(SCRIPT, "context.bc_num_hours", "context.hours"), SCRIPT, 7, "Ruby cannot render it"),
    "unknown value in submit": (changed(SUBMIT, "bc_num_hours", "num_hours"), SUBMIT, 7, "'num_hours' is no field"),
    "view": ({"completed.md.erb": "\n<%= no_such %>\n"}, "completed.md.erb", 2, "Ruby cannot render it"),
    "view of a session that has no files": (
        {"info.html.erb": '<%= File.read(staged_root.join("x")) %>\n'}, "info.html.erb", 1, "Ruby cannot render it"
    ),
}  # fmt: skip


@pytest.mark.usefixtures("needs_ruby")
@pytest.mark.parametrize("case", HOSTILE)
def test_where_hostile_values_go_is_found(case: str, tmp_path: Path) -> None:
    files, file, line, what = HOSTILE[case]
    found = found_in(write(tmp_path / "app", files), file, line, what)
    assert len({(one.file, one.line) for one in found}) <= 2, "\n".join(map(str, found))


FINE: dict[str, dict[str, str | None]] = {
    "quoted for the shell": changed(
        SCRIPT, '"$WORDS_PATH"', '<%- require "shellwords" -%><%= Shellwords.escape(context.path) %>'
    ),
    "a server": {
        "template/before.sh.erb": 'port=$(find_port)\npassword="$(create_passwd 16)"\nexport CONFIG="${PWD}/c"\n'
        "(\numask 077\ncat > \"${CONFIG}\" << EOL\nport = ${port}\nEOL\n)\n",
        SCRIPT: '#!/bin/bash -l\ncd "${HOME}"\nmodule purge\n/opt/jupyter/bin/jupyter lab --config="${CONFIG}"\n',
        "template/after.sh": "if ! wait_until_port_used \"${host}:${port}\" 60; then clean_up 1; fi\nsleep 2\n",
    },
    "refused by the app": changed(
        SUBMIT, "---\n", '<%- raise "no" unless notes.match?(/\\A\\w*\\z/) -%>\n---\n'
    ) | changed(SCRIPT, '"$WORDS_PATH"', "<%= context.notes %>"),
    "a number": changed(SCRIPT, '"$WORDS_PATH"', "<%= context.notes.to_i %>"),
    "what depends on a choice": changed(
        SUBMIT, 'native: ["--mem", "4G"]', 'native: [<% if language == "fi" %>"--mem", "8G"<% end %>]'
    ),
    "PBS is commented out": {SUBMIT: "---\n#script:\n#  native:\n#    resources: <%= bc_num_hours.blank? ? 1 : 2 %>\n"},
    "fixed values": changed(FORM, "  notes:\n    widget: text_area", "  notes: \"\"\n  other:\n    widget: text_area"),
    "no submit": {SUBMIT: None, SCRIPT: "#!/bin/bash\nexec words\n"},
}  # fmt: skip


@pytest.mark.usefixtures("needs_ruby")
@pytest.mark.parametrize("case", FINE)
def test_nothing_is_found_where_nothing_is_wrong(case: str, tmp_path: Path) -> None:
    found = check(write(tmp_path / "app", FINE[case]))
    assert [str(one) for one in found.findings] == []


@pytest.mark.usefixtures("needs_ruby")
def test_what_asks_the_portal_is_read_without_rendering_it(tmp_path: Path) -> None:
    text = GOOD[FORM].replace('      - "en"', '      <%- OodSupport::User.new.groups.each do |g| %>\n'
                              '      - "<%= g %>"\n      <%- end %>')  # fmt: skip
    found = check(write(tmp_path / "app", {FORM: None, "form.yml.erb": text}))
    assert [str(one) for one in found.findings] == []
    assert found.notes == ["form.yml.erb asks the portal for OodSupport: it was read without rendering it"]
    bad = text.replace("    help:", "    hlep:")
    found_in(write(tmp_path / "bad", {FORM: None, "form.yml.erb": bad}), "form.yml.erb", 27, "no key 'hlep'")


@pytest.mark.usefixtures("needs_ruby")
def test_a_script_that_waits_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 1)
    monkeypatch.setattr(sandbox, "SECONDS_OF_ONE_THAT_WAITS", 0.2)
    found = check(write(tmp_path / "app", {SCRIPT: "#!/bin/bash\nwhile true; do sleep 1; done\n"}))
    assert found.findings == []
    assert found.notes == ["the session's script waits for something: it was stopped after some seconds"]


@pytest.mark.usefixtures("needs_ruby")
def test_scripts_reach_nothing_outside_of_their_sandbox(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    tool = outside / "tool"
    tool.write_text(f"#!/bin/bash\n/usr/bin/touch {outside}/touched\n")
    tool.chmod(0o755)
    script = f"""#!/bin/bash -l
rm -rf {outside}
kill -9 $$
echo x > {outside}/written; echo x >>"{outside}/kept"
mkdir {outside}/made; touch {outside}/made2; echo x | tee {outside}/teed; sed -i s/x/y/ {outside}/kept
mv {outside}/kept {outside}/moved
{tool} a b
exec {tool}
"""
    bashrc = {"template/before.sh": f"export PATH=/usr/bin:/bin:$PATH\nrm -f {outside}/kept\n{tool} &\n"}
    found = check(write(tmp_path / "app", {SCRIPT: script, **bashrc}))
    assert sorted(path.name for path in outside.iterdir()) == ["kept", "tool"]
    assert (outside / "kept").read_text() == "x"
    assert found.findings == []


def test_the_command_line_says_it_with_file_and_line(kuulo: Kuulo, tmp_path: Path) -> None:
    app = write(tmp_path / "it's an ä", {"manifest.yml": "name: x\n"})
    done = kuulo("portal", "check", app)
    assert done.returncode == 1
    assert done.stdout == (
        "manifest.yml:1: it has no role: the portal takes it for no batch-connect app. To do: role: batch_connect\n"
    )
    said = json.loads(kuulo("portal", "check", app, "--json").stdout)
    assert said["findings"] == [
        {
            "file": "manifest.yml", "line": 1, "do": "role: batch_connect",
            "what": "it has no role: the portal takes it for no batch-connect app",
        }
    ]  # fmt: skip
    none = kuulo("portal", "check", "nowhere")
    assert none.returncode == 2 and "there is no such folder" in none.stderr
    with pytest.raises(UsageError):
        check(tmp_path / "nowhere")


def test_odd_files_are_no_crash(tmp_path: Path) -> None:
    app = write(tmp_path / "app", {})
    (app / "form.yml").write_bytes(b"form: [\xff]\n")
    (app / "template" / "data.bin").write_bytes(bytes(range(256)))
    (app / "template" / "dangling").symlink_to("nowhere")
    (app / "view.html.erb").unlink()
    (app / "view.html.erb").mkdir()
    assert "it is not UTF-8" in " ".join(one.what for one in check(app).findings)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert {one.file for one in check(empty).findings} >= {"manifest.yml", "form.yml", "template/script.sh"}


def test_names_of_methods_are_those_of_this_ruby(tmp_path: Path, needs_ruby: str) -> None:
    import subprocess

    from kuulo.deploy.portal_check import facts

    code = "require 'ostruct'; puts OpenStruct.new.methods.grep(/\\A[a-z][a-z_0-9]*\\z/)"
    names = set(subprocess.run([needs_ruby, "-e", code], capture_output=True, text=True, check=True).stdout.split())
    assert names <= facts.METHODS
    assert shutil.which("ruby") == needs_ruby and os.sep in needs_ruby
