"""The command line: its text, its JSON output and its exit codes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import typer

from lung_nodule_ct.cli import EXAMPLES, app
from lung_nodule_ct.declaration.configs import get_config
from lung_nodule_ct.declaration.manifest import Format
from lung_nodule_ct.examples.plan import make_plan
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.targets import estimate
from lung_nodule_ct.testing.archives import CLS, DET2D, zip_archive
from lung_nodule_ct.testing.synthetic_archives import TinyArchives


def test_configs_are_listed_as_text_and_as_json(cli) -> None:
    done = cli("configs")
    assert done.returncode == 0
    listed = json.loads(cli("configs", "--json").stdout)
    assert [entry["name"] for entry in listed] == [
        "cls_1.25mm",
        "det2d_1.25mm",
        "det3d_1.25mm",
        "det3d_5mm",
        "longitudinal",
        "det3d_bmp_1.25mm",
    ]
    for entry in listed:
        assert entry["name"] in done.stdout


def test_inspect_lists_archives_examples_and_findings(cli, dummy) -> None:
    done = cli("inspect", dummy)
    assert done.returncode == 0
    document = json.loads(cli("inspect", dummy, "--json").stdout)
    assert {archive["state"] for archive in document["archives"]} == {"found"}
    scans = document["configs"]["det3d_1.25mm"]
    assert (scans["examples"], scans["patients"], scans["scans"], scans["timepoints"]) == ({"train": 7}, 4, 7, 7)
    assert document["configs"]["cls_1.25mm"]["shared_patients"] == {"train & validation": 3}
    assert {figure["figure"] for figure in document["figures"]} >= {"patients", "CT scans"}
    assert "99_20200101" in done.stdout  # the terminal shows the name as published
    assert document["summary"]["annotation-without-image"]["grade"] == "error"


def test_inspect_lists_missing_and_unreadable_archives(cli, dummy, tmp_path) -> None:
    (tmp_path / "class_dataset.zip").write_bytes((dummy / "part_a" / "class_dataset.zip").read_bytes())
    (tmp_path / "1.25mm_2D_detection.zip").write_text("<html>no</html>")
    done = cli("inspect", tmp_path, "--json")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    states = {archive["name"]: archive["state"] for archive in document["archives"]}
    assert states["class_dataset.zip"] == "found"
    assert states["1.25mm_2D_detection.zip"] == "unreadable"
    assert states["5mm_3D_detection_mhd0.zip"] == "missing"
    assert document["configs"]["cls_1.25mm"]["examples"]
    assert "HTML" in document["configs"]["det2d_1.25mm"]["problem"]
    assert "HTML" in cli("inspect", tmp_path).stdout


def test_inspect_lists_what_it_does_not_recognise(cli, tmp_path) -> None:
    tiny = TinyArchives()
    tiny[CLS] = {CLS: zip_archive(tiny[CLS])}
    source = tiny.write(tmp_path / "in")
    (source / f"{DET2D}?download=1").write_bytes((source / DET2D).read_bytes())
    (source / DET2D).unlink()
    (source / "notes.pdf").write_bytes(b"")
    document = json.loads(cli("inspect", source, "--json").stdout)
    assert [(file["name"], file["archives"]) for file in document["unrecognised"]] == [
        (f"{DET2D}?download=1", [DET2D]),
        ("notes.pdf", []),
    ]
    assert "holds itself once more" in document["configs"]["cls_1.25mm"]["problem"]
    (state,) = [archive for archive in document["archives"] if archive["name"] == CLS]
    assert (state["state"], state["problem"]) == (
        "found",
        f"{CLS}: it holds itself once more ({CLS}): unpack it, and use what is inside in its place",
    )
    shown = " ".join(cli("inspect", source).stdout.split())
    assert f"not recognised: {DET2D}?download=1: the name of an archive with something added; rename it" in shown
    assert "holds itself once more" in shown


def test_build_prints_counts_and_findings(cli, dummy, tmp_path) -> None:
    done = cli("build", "det2d_1.25mm", "--source", dummy, "--out", tmp_path / "hub")
    assert done.returncode == 0
    assert "train 13" in done.stdout
    assert "box-inverted" in done.stdout
    assert "3_008.xml" in done.stdout
    again = cli("build", "det2d_1.25mm", "--out", tmp_path / "hub", "--json", LUNG_NODULE_CT_SOURCE=str(dummy))
    assert again.returncode == 0
    document = json.loads(again.stdout)
    assert document["configs"] == {"det2d_1.25mm": {"train": 13, "validation": 4, "unassigned": 1}}
    assert document["findings"]["box-inverted"]["count"] == 1


@pytest.mark.slow
def test_output_is_escaped_for_an_ascii_terminal(cli_process, tmp_path) -> None:
    tiny = TinyArchives()
    tiny[DET2D]["肺/notes.bin"] = b"1"
    source = tiny.write(tmp_path / "in")
    for arguments in (
        ["inspect", source],
        ["inspect", source, "--json"],
        ["build", "--all", "--source", source, "--out", tmp_path / "hub"],
    ):
        done = cli_process(*arguments, PYTHONIOENCODING="ascii")
        assert done.returncode == 0, done.stderr
        assert "\\u80ba" in done.stdout
    assert json.loads(cli_process("inspect", source, "--json", PYTHONIOENCODING="ascii").stdout)


def test_a_build_without_examples_is_refused(cli, dummy, tmp_path) -> None:
    done = cli("build", "det3d_bmp_1.25mm", "--split-by", "patient", "--source", dummy, "--out", tmp_path / "hub")
    assert done.returncode == 1
    assert "no config has an example" in done.stderr
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["build"],
        ["build", "unknown", "--source", "."],
        ["build", "--all", "det2d_1.25mm", "--source", "."],
        ["build", "det2d_1.25mm", "--split-by", "unknown"],
        ["build", "det2d_1.25mm", "--num-proc", "0"],
        ["build", "det2d_1.25mm", "--num-proc", "2", "--engine", "beam"],
        ["build", "det2d_1.25mm", "--keep-source-names", "--format", "tfrecord"],
        ["build", "det2d_1.25mm", "--engine", "beam", "--beam-options", "'"],
        ["prepare"],
        ["unknown"],
    ],
)
def test_invalid_arguments_exit_with_code_2(cli, tmp_path, arguments) -> None:
    done = cli(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert not list(tmp_path.iterdir())


def test_without_a_source_the_error_names_the_download_command(cli, tmp_path) -> None:
    done = cli("build", "det2d_1.25mm", "--out", tmp_path / "hub", "--offline")
    assert done.returncode == 1
    assert "lung-nodule-ct download" in done.stderr


def test_a_build_is_the_first_argument_of_every_command_that_reads_one(cli) -> None:
    for command in ("preview", "audit", "card", "export", "publish", "train", "evaluate", "leakage", "baselines"):
        assert "BUILD" in cli(command, "--help").stdout.split("Usage:")[1].split("\n")[0], command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "--all", "det2d_1.25mm"], "names all configs, and det2d_1.25mm is named as well"),
        (["train", "a", "cls_1.25mm", "--data", "b"], "the build is named twice"),
        (["train", "a", "cls_1.25mm", "--check"], "makes its own data"),
        (["evaluate", "a", "b", "c"], "unexpected extra arguments: c"),
        (["leakage", "a", "cls_1.25mm", "--split-by", "patient"], "trains on both splits"),
        (["baselines", "a", "--data", "b"], "the build is named twice"),
        (["train", "a", "--steps", "1", "cls_1.25mm"], "name cls_1.25mm directly after the build"),
        (["build", "det2d_1.25mm", "--engine", "beam", "--beam-options", "'"], "No closing quotation"),
    ],
)
def test_contradictory_arguments_are_a_usage_error(cli, arguments, message) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())


def test_a_build_without_a_recipe_is_a_usage_error(cli, dummy_build) -> None:
    done = cli("train", dummy_build())
    assert done.returncode == 2
    assert "name the RECIPE after it" in " ".join(done.stderr.replace("│", " ").split())


def test_a_bracket_in_the_output_folder_is_warned_of(cli, dummy, tmp_path) -> None:
    for format_, count in (("parquet", 1), ("arrow", 0)):
        out = tmp_path / f"a[1]b {format_}"
        done = cli("build", "cls_1.25mm", "--source", dummy, "--format", format_, "--out", out, "--json")
        assert done.returncode == 0
        assert done.stderr.count("load_dataset takes the [ in") == count
        assert json.loads(done.stdout)["folder"] == str(out)
    assert "takes the [" not in cli("build", "cls_1.25mm", "--source", dummy, "--out", tmp_path / "ab").stderr


def test_options_are_named_once_in_messages(cli) -> None:
    done = cli("build", "det2d_1.25mm", "--num-proc", "2", "--engine", "beam")
    assert "--num-proc" in done.stderr
    assert "num_proc" not in done.stderr


def test_every_help_has_an_example_that_the_command_understands(cli) -> None:
    commands = typer.main.get_command(app).commands
    assert set(EXAMPLES) == set(commands)
    for name, command in commands.items():
        shown = " ".join(cli(name, "--help").stdout.split())
        assert f"Example: lung-nodule-ct {EXAMPLES[name]}" in shown, name
        first, *arguments = shlex.split(EXAMPLES[name])
        assert first == name
        with command.make_context(name, arguments, resilient_parsing=False) as context:
            assert not [word for word in context.args if word.startswith("-") and name not in ("train", "leakage")]
    assert "Example: lung-nodule-ct build" in cli("--help").stdout


@pytest.mark.parametrize(
    ("arguments", "question"),
    [
        (["bild"], "Did you mean 'build'?"),
        (["build", "det2d_1.25", "--source", "."], "Did you mean det2d_1.25mm?"),
        (["download", "longitudinale"], "Did you mean longitudinal?"),
    ],
)
def test_mistyped_verbs_and_configs_get_a_proposal(cli, arguments, question) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    assert question in " ".join(done.stderr.replace("│", " ").split())


def test_a_mistyped_config_of_a_build_gets_a_proposal(cli, dummy_build, tmp_path) -> None:
    done = cli("export", dummy_build(), "det2d_1.25", "--to", "coco", "--out", tmp_path / "coco")
    assert done.returncode == 1
    assert "Did you mean det2d_1.25mm?" in done.stderr
    assert "Build it again" not in done.stderr


def test_a_tilde_is_the_home_folder(cli, dummy, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    done = cli("build", "cls_1.25mm", f"--source={dummy}", "--out=~/a build", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a build" / "build.json").is_file()
    assert cli("verify", "~/a build", HOME=str(tmp_path)).returncode == 0
    assert not list(Path.cwd().glob("~*"))


def test_a_pipe_gets_unbroken_lines_without_blanks_at_the_end(cli, dummy_build, monkeypatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    for arguments in (["configs"], ["audit", dummy_build(), "--only", "splits"]):
        lines = cli(*arguments).stdout.splitlines()
        assert max(map(len, lines)) > 100
        assert all(len(line) - len(line.rstrip()) < 80 for line in lines)
    contexts = [line for line in cli("configs").stdout.splitlines() if line.startswith("    columns ")]
    assert len(contexts) == 6


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("lung-nodule-ct bu", ["build"]),
        ("lung-nodule-ct build --lim", ["--limit"]),
        ("lung-nodule-ct build det3", ["det3d_1.25mm", "det3d_5mm", "det3d_bmp_1.25mm"]),
        ("lung-nodule-ct export build/lung_nodule_ct cls", ["cls_1.25mm"]),
        ("lung-nodule-ct train longitudinal-s", ["longitudinal-single"]),
        ("lung-nodule-ct train build/lung_nodule_ct det2d_1.25mm --model ssd", ["ssdlite", "ssd"]),
        ("lung-nodule-ct baselines build/lung_nodule_ct --only cab", ["cabnet"]),
    ],
)
def test_a_shell_completes_commands_options_configs_and_networks(python, tmp_path, words, completions) -> None:
    code = "import sys; sys.argv = ['lung-nodule-ct']; from lung_nodule_ct.cli import main; main()"
    shell = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = python(code, cwd=tmp_path, _LUNG_NODULE_CT_COMPLETE="complete_bash", **shell)
    assert done.stdout.split() == completions, done.stderr


def test_the_help_names_extras_in_brackets(cli) -> None:
    assert "lung_nodule_ct[croissant]" in cli("card", "--help", COLUMNS="200").stdout


def test_long_work_is_announced_unless_quiet(cli, dummy, tmp_path, monkeypatch) -> None:
    """Of det3d_1.25mm, the embedded archives have 0.5 MB; an estimate is a multiple of what is read."""
    commands = {
        "build": ["build", "det3d_1.25mm", "--source", dummy, "--out", tmp_path / "out"],
        "prepare": ["prepare", "det3d_1.25mm", "--source", dummy],
    }
    for name, arguments in commands.items():
        short = cli(*arguments, *(("--cache-dir", tmp_path / "short") if name == "prepare" else ()))
        assert "to write" not in short.stderr
    monkeypatch.setattr(estimate, "LONG_BYTES", 1000)
    for name, arguments in commands.items():
        long = cli(*arguments, *(("--cache-dir", tmp_path / "long") if name == "prepare" else ()))
        assert long.returncode == 0, long.stderr
        (line,) = [line for line in long.stderr.splitlines() if "to write" in line]
        read, written = (float(number) for number in re.findall(r"([\d.]+) [kM]B to", line))
        assert "about 1 minute" in line
        assert ("MB to write" in line) == (name == "prepare")
        assert written == pytest.approx((read * 126 / 42) / 1000 if name == "prepare" else read * 48 / 42, abs=1)
        quiet = cli(*arguments, "--quiet", *(("--cache-dir", tmp_path / "quiet") if name == "prepare" else ()))
        assert quiet.returncode == 0, quiet.stderr
        assert "to write" not in quiet.stderr
        assert "Generating" not in quiet.stderr
        assert quiet.stdout  # the result is not progress


def test_an_estimate_grows_with_the_data_and_shrinks_with_workers(dummy, monkeypatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    plans = [make_plan(get_config(name), open_folder(dummy)) for name in ("det3d_1.25mm", "det2d_1.25mm")]
    scans = estimate.estimate(plans[:1], estimate.volume_rate(Format.PARQUET))
    arrow = estimate.estimate(plans[:1], estimate.volume_rate(Format.ARROW))
    both = estimate.estimate(plans, estimate.volume_rate(Format.PARQUET), computes=True)
    assert scans.packed_bytes == arrow.packed_bytes == sum(unit.packed_bytes for unit in plans[0].units)
    assert arrow.disk_bytes > 2 * scans.disk_bytes
    assert both.packed_bytes > scans.packed_bytes
    assert both.seconds > scans.seconds
    assert "computed from the voxels" in str(both)
    shared = estimate.estimate(plans[:1], estimate.volume_rate(Format.PARQUET), 2)
    assert shared.seconds == pytest.approx(scans.seconds / 2)
    assert estimate.estimate(plans[:1], estimate.volume_rate(Format.PARQUET), 64).seconds == pytest.approx(
        scans.seconds / 4
    )
