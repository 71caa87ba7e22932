"""Publishing: the checks, which contact no server, and an upload to a server on this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from altered import alter, alter_manifest
from hub_server import running_hub

from lung_nodule_ct.errors import BuildFolderError
from lung_nodule_ct.publish.card_folder import CardOptions, add_card
from lung_nodule_ct.publish.publication import plan_publication
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.read.sidecars import SIDECARS, add_sidecars, record_file, record_sidecar
from lung_nodule_ct.read.verification import verify


@pytest.fixture(scope="module")
def with_card(cli, dummy, tmp_path_factory) -> Path:
    """A build of two configs with a licence and its card."""
    out = tmp_path_factory.mktemp("publish") / "lung_nodule_ct"
    assert cli("build", "cls_1.25mm", "det3d_5mm", "--source", dummy, "--out", out).returncode == 0
    records = [{"number": 1, "doi": "10.5072/1", "licence": "cc-by-4.0", "datePublished": "2024-06-28"}]
    alter_manifest(out, lambda document: document.update(records=records))
    add_card(open_build(out), CardOptions(examples=2, croissant=False, repository="me/nodules"))
    return out


@pytest.fixture
def folder(with_card, tmp_path) -> Path:
    """A copy that a test can change."""
    shutil.copytree(with_card, tmp_path / "build")
    return tmp_path / "build"


@pytest.fixture
def hub():
    with running_hub() as running:
        yield running


def environment(hub, home: Path) -> dict[str, str]:
    """The environment of a user who is logged in by ``HF_TOKEN``."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": hub.token,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(home),
    }


def refused(folder: Path, *allowed: str) -> list[str]:
    return [check.name for check in plan_publication(open_build(folder)).refused(frozenset(allowed))]


def write_findings(folder: Path, report: dict) -> None:
    """Write ``findings.json`` as if the build had written it."""
    (folder / "findings.json").write_text(json.dumps(report))
    record = record_file(folder, "findings.json").to_dict()
    alter_manifest(folder, lambda document: document["files"].update({"findings.json": record}))


def audit(folder: Path, verdict: str) -> None:
    check = {"name": "dates", "title": "Dates", "verdict": verdict, "measured": "3", "expected": "0", "detail": ""}
    with add_sidecars(folder, by="audit") as stage:
        (stage / "audit.json").write_text(json.dumps({"format_version": 1, "checks": [check], "numbers": {}}))


@pytest.mark.slow
def test_a_complete_build_passes_and_a_dry_run_contacts_no_server(folder, cli_process, hub, tmp_path) -> None:
    (folder / "diary.txt").write_text("private")
    done = cli_process("publish", folder, "me/nodules", "--dry-run", **environment(hub, tmp_path / "hf"))
    assert done.returncode == 0, done.stderr
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "diary.txt":
            assert path.relative_to(folder).as_posix() in done.stdout
            assert f"{path.stat().st_size:,}" in done.stdout
    assert "left out" in done.stdout
    assert "diary.txt" in done.stdout
    assert not hub.requests


@pytest.mark.slow
def test_only_the_build_is_uploaded(folder, cli_process, hub, tmp_path) -> None:
    (folder / "diary.txt").write_text("private")
    done = cli_process("publish", folder, "me/nodules", "--private", **environment(hub, tmp_path / "hf"))
    assert done.returncode == 0, done.stderr
    expected = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    del expected["diary.txt"]
    assert hub.repos == {"me/nodules": expected}
    assert hub.private == {"me/nodules": True}
    assert f"{hub.url}/datasets/me/nodules/commit/" in done.stdout
    assert all(token is None for _, path, token in hub.requests if path.startswith("/objects/"))
    hub.repos["me/nodules"] |= {
        "data/det2d_1.25mm/train-00000-of-00001.parquet": b"old",
        "notes.md": b"of another author",
    }
    assert (
        cli_process("publish", folder, "me/nodules", "--private", **environment(hub, tmp_path / "hf")).returncode == 0
    )
    assert hub.repos["me/nodules"] == expected | {"notes.md": b"of another author"}


@pytest.mark.slow
def test_the_card_loads_the_repository_that_it_is_published_to(folder, cli_process, hub, tmp_path) -> None:
    env = environment(hub, tmp_path / "hf")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    dry = cli_process("publish", folder, "you/lungs", "--dry-run", **env)
    assert "the code in the card loads me/nodules: the upload changes that to you/lungs" in dry.stdout
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    done = cli_process("publish", folder, "you/lungs", **env)
    assert done.returncode == 0, done.stderr
    assert "the code in the card" not in done.stdout
    card = hub.repos["you/lungs"]["README.md"].decode()
    assert 'load_dataset("you/lungs", ' in card
    assert "me/nodules" not in card
    assert before[folder / "README.md"].decode().replace("me/nodules", "you/lungs") == card
    assert set(hub.repos["you/lungs"]) == {path.relative_to(folder).as_posix() for path in before}
    assert not verify(folder).faults
    (folder / "README.md").write_text(card + "\nEdited.\n")
    edited = cli_process("publish", folder, "me/nodules", **env)
    assert "the code in the card loads you/lungs: write the card again with --repository" in edited.stdout
    assert "Edited." in hub.repos["me/nodules"]["README.md"].decode()


@pytest.mark.slow
def test_the_token_is_neither_printed_nor_stored(folder, cli_process, hub, tmp_path) -> None:
    outputs = []
    for fail_at, extra in (
        ("nowhere", ()),
        ("/commit/main", ()),
        ("/preupload/main", ("--json",)),
        ("", ("--dry-run",)),
    ):
        hub.fail_at = fail_at
        done = cli_process("publish", folder, "me/nodules", *extra, **environment(hub, tmp_path / "hf"))
        assert "Traceback" not in done.stderr
        assert done.returncode == (1 if fail_at.startswith("/") else 0), done.stderr
        outputs.append(done.stdout + done.stderr)
    assert any(token == f"Bearer {hub.token}" for *_, token in hub.requests)
    stored = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(stored) > 5
    assert not any(hub.token.encode() in content for content in (*stored, *map(str.encode, outputs)))


@pytest.mark.slow
def test_a_public_repository_is_refused_with_private(folder, cli_process, hub, tmp_path) -> None:
    hub.repos["me/nodules"], hub.private["me/nodules"] = {}, False
    done = cli_process("publish", folder, "me/nodules", "--private", **environment(hub, tmp_path / "hf"))
    assert done.returncode == 1
    assert "is public" in done.stderr
    assert hub.repos == {"me/nodules": {}}


@pytest.mark.slow
def test_a_wrong_token_and_an_unavailable_server_are_errors_without_a_traceback(
    folder, cli_process, hub, tmp_path
) -> None:
    variables = environment(hub, tmp_path / "hf")
    for wrong in ({"HF_TOKEN": "hf_wrong"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        done = cli_process("publish", folder, "me/nodules", **{**variables, **wrong})
        assert done.returncode == 1
        assert "the Hub did not accept me/nodules" in done.stderr
        assert "Traceback" not in done.stderr
    assert not hub.repos


@pytest.mark.slow
def test_an_unknown_licence_is_refused_unless_it_is_allowed_by_name(folder, cli, cli_process, hub, tmp_path) -> None:
    alter_manifest(folder, lambda document: document.update(records=[]))
    assert refused(folder) == ["unknown-licence"]
    assert refused(folder, "unknown-licence") == []
    variables = environment(hub, tmp_path / "hf")
    done = cli_process("publish", folder, "me/nodules", **variables)
    assert done.returncode == 1
    assert "--allow unknown-licence" in done.stderr
    assert not hub.requests
    assert cli("publish", folder, "me/nodules", "--allow", "verify").returncode == 2


def test_the_table_that_the_audit_writes_is_not_taken_for_a_shard(folder) -> None:
    with add_sidecars(folder, by="audit") as stage:
        (stage / "audit").mkdir()
        pq.write_table(pa.table({"score": [0.5]}), stage / "audit" / "annotations.parquet")
    assert "files" not in refused(folder)


def test_dates_that_the_audit_found_are_refused(folder) -> None:
    assert refused(folder) == []
    audit(folder, "fail")
    assert refused(folder) == ["dates"]
    assert refused(folder, "dates") == []
    audit(folder, "pass")
    assert refused(folder) == []
    assert any("does not contain the audit" in note for note in plan_publication(open_build(folder)).notes)
    alter_manifest(folder, lambda document: document.update(keep_source_names=True))
    assert "dates" in refused(folder)


def test_dates_in_shards_or_findings_are_refused_without_an_audit(folder) -> None:
    report = json.loads((folder / "findings.json").read_text())
    report["findings"][0]["member"] = "80_20190314.mhd"
    write_findings(folder, report)
    assert refused(folder) == ["dates"]
    report["findings"][0]["member"] = None
    write_findings(folder, report)
    path = next((folder / "data" / "det3d_5mm").iterdir())
    stored = pq.read_table(path)
    index = stored.column_names.index("patient_id")
    dated = stored.set_column(index, stored.schema.field(index), pa.array(["2019-03-14"] * len(stored)))
    pq.write_table(dated, path)
    alter_manifest(
        folder,
        lambda document: document["configs"]["det3d_5mm"]["files"][0].update(bytes=path.stat().st_size),
    )
    assert refused(folder) == ["verify", "dates"]


def test_dates_in_pictures_are_refused_without_an_audit(folder) -> None:
    (check,) = [check for check in plan_publication(open_build(folder)).checks if check.name == "dates"]
    assert "metadata of pictures" in check.title
    alter(folder, "cls_1.25mm", lambda rows: rows[0]["image"].update(bytes=rows[0]["image"]["bytes"] + b"2019-03-14"))
    (check,) = [check for check in plan_publication(open_build(folder)).checks if check.name == "dates"]
    assert check.problem == (
        "there are calendar dates (cls_1.25mm, image (metadata): 2); expected none. "
        "A new build removes those in the metadata of pictures"
    )
    audit(folder, "pass")
    (check,) = [check for check in plan_publication(open_build(folder)).checks if check.name == "dates"]
    assert check.problem is None
    assert "by the audit" in check.title


def test_pictures_that_cannot_be_opened_are_refused_without_an_audit(folder) -> None:
    alter(folder, "cls_1.25mm", lambda rows: rows[0]["image"].update(bytes=b"not a picture"))
    (check,) = [check for check in plan_publication(open_build(folder)).checks if check.name == "dates"]
    assert "the search for dates failed: cls_1.25mm, image" in check.problem


def test_files_that_are_not_published_may_contain_dates(folder) -> None:
    (folder / "diary.txt").write_text("on 14.03.2019")
    assert refused(folder) == []


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("invalid yaml", "card"),
        ("changed rows", "card"),
        ("missing config", "card"),
        ("missing picture", "files"),
        ("changed shard", "verify"),
        ("missing preview", "files"),
        ("preview in one large group", "preview"),
    ],
)
def test_inconsistent_files_are_always_refused(folder, fault, check) -> None:
    card = folder / "README.md"
    text = card.read_text()
    match fault:
        case "invalid yaml":
            card.write_text(text.replace("configs:", "configs: [", 1))
        case "changed rows":
            card.write_text(text.replace("num_examples: 5", "num_examples: 6"))
        case "missing config":
            card.write_text(text.replace("config_name: det3d_5mm", "config_name: other"))
        case "missing picture":
            (folder / "pictures" / "cls_1.25mm.png").unlink()
        case "changed shard":
            shard = next((folder / "data" / "cls_1.25mm").iterdir())
            content = bytearray(shard.read_bytes())
            content[50] ^= 1
            shard.write_bytes(content)
        case "missing preview":
            shutil.rmtree(folder / "data" / "preview")
        case "preview in one large group":
            shard = next((folder / "data" / "preview").iterdir())
            pq.write_table(pa.table({"image": [bytes(31_000_000)]}), shard)
            record_sidecar(folder, shard.relative_to(folder).as_posix(), by="card")
    assert check in refused(folder, "dates", "unknown-licence")


def test_an_edited_card_is_published(folder) -> None:
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nEdited by the user.\n")
    publication = plan_publication(open_build(folder))
    assert not publication.refused()
    assert {"README.md", SIDECARS} <= set(publication.files)
    assert any("README.md was edited" in note for note in publication.notes)


@pytest.mark.parametrize(
    "name", ["findings.json", "beside.json", "pictures/cls_1.25mm.png", "data/cls_1.25mm/more.parquet"]
)
def test_any_changed_or_added_file_is_refused(folder, name) -> None:
    (folder / name).write_bytes(b"changed")
    assert "verify" in refused(folder, "dates", "unknown-licence")


def test_folders_without_a_card_and_arrow_builds_are_refused(folder, cli) -> None:
    (folder / "README.md").unlink()
    with pytest.raises(BuildFolderError, match="lung-nodule-ct card"):
        plan_publication(open_build(folder))
    alter_manifest(folder, lambda document: document.update(format="arrow"))
    with pytest.raises(BuildFolderError, match="build of arrow"):
        plan_publication(open_build(folder))
    assert cli("publish", folder, "a/b/c", "--dry-run").returncode == 2
