"""The card of a finished build: metadata for the Hub, the rendered page, and the numbers of the build."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from altered import alter
from markdown_it import MarkdownIt
from PIL import Image
from rendered import chromium, render

from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.errors import BuildFolderError, OutputError
from lung_nodule_ct.geometry.display import LUNG
from lung_nodule_ct.preview.samples import largest, samples, spread
from lung_nodule_ct.publish.card_folder import CardOptions, add_card
from lung_nodule_ct.publish.card_pictures import config_picture
from lung_nodule_ct.publish.prose import escape, markdown_table
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.read.sidecars import add_sidecars, own_sidecars
from lung_nodule_ct.testing.archives import NODULES
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

SECTIONS = "Configs Columns About-the-data About-this-build Citation"
FOLDED = "Origin Motivation Collection Annotation Preprocessing Uses Limits Biases Ethics-approval Privacy"


@pytest.fixture(scope="module")
def with_card(cli, dummy_build, tmp_path_factory) -> Path:
    """A build of all configs, with its card."""
    out = tmp_path_factory.mktemp("card") / "lung_nodule_ct"
    shutil.copytree(dummy_build("parquet"), out)
    done = cli("card", out, "--examples", "5", "--repository", "someone/nodules")
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def copy(with_card, tmp_path) -> Path:
    """A copy that a test can change."""
    shutil.copytree(with_card, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def small(build, dummy) -> Path:
    """A build of one config, with the card that the build writes."""
    return build(dummy, "cls_1.25mm").folder


def card(folder: Path, **options) -> None:
    """Write the card as the command does."""
    add_card(open_build(folder), CardOptions(**{"examples": 1, "croissant": False, **options}))


def head_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text("utf-8").split("\n---\n")[0].removeprefix("---\n"))


@pytest.mark.slow
def test_the_hub_and_datasets_accept_the_yaml(with_card) -> None:
    from datasets.info import DatasetInfosDict
    from datasets.utils import metadata, resources
    from huggingface_hub import DatasetCard, DatasetCardData

    card = DatasetCard.load(with_card / "README.md")
    configs = metadata.MetadataConfigs.from_dataset_card_data(card.data)
    assert configs.get_default_config_name() == "preview"
    assert set(configs) == set(DatasetInfosDict.from_dataset_card_data(card.data)) == {"preview", *CONFIGS}
    assert isinstance(card.data, DatasetCardData)
    known = {
        name: json.loads((Path(resources.__path__[0]) / f"{name}.json").read_text())
        for name in ("size_categories", "creators")
    }
    assert set(card.data.size_categories) <= set(known["size_categories"])
    assert set(card.data.annotations_creators) <= set(known["creators"]["annotations"])
    for name in ("pretty_name", "license", "task_categories", "source_datasets", "tags"):
        assert card.data[name], name


def test_the_preview_is_the_default_and_every_config_loads_as_before(with_card, tmp_path) -> None:
    cache = str(tmp_path)
    assert datasets.load_dataset(str(with_card), cache_dir=cache)["preview"].num_rows > 0
    manifest = json.loads((with_card / "build.json").read_text())["configs"]
    for name, entry in manifest.items():
        loaded = datasets.load_dataset(str(with_card), name, cache_dir=cache)
        assert {split: len(rows) for split, rows in loaded.items()} == entry["rows"]
        for split, rows in loaded.items():
            files = [with_card / file["path"] for file in entry["files"] if file["split"] == split]
            stored = [row for file in files for row in pq.read_table(file).to_pylist()]
            assert rows.with_format("arrow")[:].to_pylist() == stored


def test_preview_rows_show_the_rows_of_the_build(with_card, tmp_path) -> None:
    build = open_build(with_card)
    rows = datasets.load_dataset(str(with_card), "preview", split="preview", cache_dir=str(tmp_path))
    assert {row["config"] for row in rows} == set(CONFIGS)
    for row in rows:
        (source_row,) = build.rows(row["config"], row["split"], indices=[row["row"]])
        shown = np.asarray(row["image"])
        assert row["image"].format == "PNG"
        assert shown.dtype == np.uint8
        assert row["scan_id"] == source_row.get("scan_id")
        if "volume" in source_row:
            voxels = source_row["volume"][row["slice_index"]]
            assert (shown == (LUNG.to_grey(voxels) if voxels.dtype == np.int16 else voxels)).all()
            assert row["num_slices"] == len(source_row["volume"])
            on_slice = [
                nodule["box_voxel"]
                for nodule in source_row["nodules"]
                if nodule["box_voxel"] and nodule["box_voxel"][2] <= row["slice_index"] < nodule["box_voxel"][5]
            ]
            assert [entry["bbox"] for entry in row["objects"]] == [[box[0], box[1], box[3], box[4]] for box in on_slice]
            assert on_slice
        else:
            with Image.open(io.BytesIO(source_row["image"])) as published:
                assert (np.asarray(row["image"].convert("RGB")) == np.asarray(published.convert("RGB"))).all()
            assert row["objects"] == [
                {"bbox": entry["bbox"], "diameter": None, "pathology": None} for entry in source_row.get("objects", [])
            ]
            assert row["pathology"] == source_row.get("label")


@pytest.mark.slow
def test_row_groups_of_the_preview_are_small(tmp_path) -> None:
    from lung_nodule_ct.preview.samples import Sample
    from lung_nodule_ct.publish.preview_config import ROW_GROUP_BYTES, write_preview_shard

    noise = np.random.default_rng(0).integers(0, 256, (512, 512), dtype=np.uint8)
    shard = write_preview_shard(tmp_path, (Sample("cls_1.25mm", "train", row, {}, noise, ()) for row in range(80)))
    meta = pq.ParquetFile(tmp_path / shard.path).metadata
    assert meta.num_rows == shard.rows == 80
    for group in range(meta.num_row_groups):
        assert meta.row_group(group).total_byte_size < ROW_GROUP_BYTES + 400_000
    assert meta.num_row_groups > 1


def test_the_rendered_card_shows_every_section_picture_and_table(with_card, tmp_path) -> None:
    text = (with_card / "README.md").read_text("utf-8")
    assert "someone/nodules" in text
    tokens = MarkdownIt("gfm-like", {"html": True}).parse(text.split("\n---\n", 1)[1])
    for tag, names in (("h2", SECTIONS), ("h3", FOLDED)):
        headings = [
            tokens[index + 1].content
            for index, token in enumerate(tokens)
            if token.type == "heading_open" and token.tag == tag
        ]
        assert headings == [name.replace("-", " ") for name in names.split()]
    assert not [
        token.content
        for token in tokens
        if token.type == "inline" and ("|--" in token.content or "${" in token.content)
    ]
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("Chromium is not installed")
    script = (
        "<script>addEventListener('load',()=>{document.title=JSON.stringify({"
        "pictures:[...document.images].map(i=>i.naturalWidth),"
        "overflow:document.documentElement.scrollWidth-innerWidth,"
        "code:document.querySelector('pre').getBoundingClientRect().bottom,"
        "visible:[...document.images].filter(i=>!i.closest('details')).length,"
        "page:document.documentElement.scrollHeight,"
        "tables:document.querySelectorAll('table').length})})</script>"
    )
    page = with_card / "card.html"
    page.write_text(render(text) + script, encoding="utf-8")
    try:
        dom = chromium(browser, page, tmp_path / "profile", "--window-size=1280,800", "--dump-dom")
    finally:
        page.unlink()
    rendered = json.loads(dom.split("<title>")[1].split("</title>")[0].replace("&quot;", '"'))
    assert len(rendered["pictures"]) == len(CONFIGS)
    assert min(rendered["pictures"]) > 300
    assert rendered["overflow"] <= 0
    assert rendered["code"] < 800  # within the first screen
    assert rendered["visible"] == 1
    assert rendered["page"] < 3000  # the rest is folded
    # tables: columns of each config and of the preview; configs, figures, findings, healthsheet
    assert rendered["tables"] == len(CONFIGS) + 5


@pytest.mark.slow
def test_licence_and_doi_are_those_of_the_records(small) -> None:
    manifest = json.loads((small / "build.json").read_text())
    assert "Unknown to this build" in (small / "README.md").read_text()
    for licences, expected in (
        (["cc-by-4.0", "cc-by-4.0"], {"license": "cc-by-4.0"}),
        (["cc-by-4.0", None], {"license": "unknown"}),
        (
            ["my licence: 1", "cc-by-4.0"],
            {
                "license": "other",
                "license_name": "cc-by-4.0 and my licence: 1",
                "license_link": "https://zenodo.org/records/1",
            },
        ),
    ):
        manifest["records"] = [
            {"number": number, "doi": f"10.5072/{number}", "licence": licence}
            for number, licence in enumerate(licences, 1)
        ]
        (small / "build.json").write_text(json.dumps(manifest))
        card(small)
        head = head_of(small)
        assert {name: head[name] for name in head if name.startswith("license")} == expected
        assert "10.5072/2" in MarkdownIt().render((small / "README.md").read_text())


def test_the_card_contains_the_audit_and_escapes_its_text(small) -> None:
    markup = "<script>alert(1)</script> | `x` [a](javascript:b) **c**\n# d"
    with add_sidecars(small, by="audit") as stage:
        check = {"name": "n", "title": markup, "verdict": "warn", "measured": "3", "expected": None, "detail": ""}
        (stage / "audit.json").write_text(json.dumps({"format_version": 1, "checks": [check], "numbers": {}}))
        (stage / "pictures").mkdir()
        Image.new("L", (9, 9)).save(stage / "pictures" / "audit-sizes.png")
    card(small)
    text = (small / "README.md").read_text()
    html = render(text)
    assert "<script>" not in html
    assert "javascript:b</td>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | `x` [a](javascript:b) **c** # d</td>" in html
    assert "pictures/audit-sizes.png" in text.split("<summary>Audit</summary>")[1].split("</details>")[0]
    for damaged in ({"format_version": 9}, {"format_version": 1, "checks": [check | {"measured": 3}]}):
        (small / "audit.json").write_text(json.dumps(damaged))
        with pytest.raises(BuildFolderError, match="lung-nodule-ct audit"):
            card(small)


@pytest.mark.parametrize(
    "text",
    ["a|b", "*a* _b_", "<b>", "[x](y)", "`c`", "# h", "1. x", "a\nb", "\\|", "~~s~~", "http://x.y", "a@b.c", "![i](j)"],
)
def test_escaped_text_is_shown_unchanged(text) -> None:
    html = MarkdownIt("gfm-like").render(markdown_table(("head",), [(escape(text),)]))
    cell = html.split("<td>")[1].split("</td>")[0]
    for entity, char in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        cell = cell.replace(entity, char)
    assert cell == " ".join(text.split())
    assert MarkdownIt("gfm-like").render(escape(text)).startswith("<p>")


@pytest.mark.slow
def test_a_second_card_replaces_the_first(copy) -> None:
    before = set(own_sidecars(copy))
    card(copy)
    assert set(own_sidecars(copy)) == before - {"croissant.json"}
    assert not (copy / "croissant.json").exists()


def test_a_build_that_changes_replaces_the_card(small, build, dummy) -> None:
    card(small)
    build(dummy, "det3d_5mm", overwrite=False)
    assert sorted(path.name for path in (small / "data").iterdir()) == ["cls_1.25mm", "det3d_5mm"]
    assert not (small / "pictures").exists()
    assert [config["config_name"] for config in head_of(small)["configs"]] == ["cls_1.25mm", "det3d_5mm"]


def test_an_edited_card_is_not_overwritten(small, build, dummy) -> None:
    edited = (small / "README.md").read_text() + "\nEdited by the user."
    (small / "README.md").write_text(edited)
    for command in (lambda: card(small), lambda: build(dummy, "cls_1.25mm", overwrite=False)):
        with pytest.raises(OutputError, match=r"README\.md"):
            command()
    assert (small / "README.md").read_text() == edited


def test_a_build_of_one_config_has_a_card_and_other_folders_are_refused(build, cli, dummy, tmp_path) -> None:
    folder = build(dummy, "det3d_5mm").folder
    card(folder)
    assert [config["config_name"] for config in head_of(folder)["configs"]] == ["preview", "det3d_5mm"]
    assert "keeps the source names" in (folder / "README.md").read_text()
    manifest = json.loads((folder / "build.json").read_text())
    (folder / "build.json").write_text(json.dumps(manifest | {"format": "arrow"}))
    with pytest.raises(BuildFolderError, match="build of arrow"):
        card(folder)
    done = cli("card", tmp_path)
    assert done.returncode == 1
    assert "no build" in done.stderr
    assert "Traceback" not in done.stderr
    assert cli("card", folder, "--repository", "no/such/name").returncode == 2


@pytest.mark.parametrize(
    ("config", "loads", "reads"),
    [
        ("cls_1.25mm", ["cls_1.25mm"], None),
        ("det3d_5mm", ["det3d_5mm"], '"<i2"'),
        ("det3d_bmp_1.25mm", ["det3d_bmp_1.25mm"], '"u1"'),
    ],
)
def test_the_code_of_a_card_names_what_the_build_contains(build, dummy, config, loads, reads) -> None:
    text = (build(dummy, config).folder / "README.md").read_text()
    assert re.findall(r'load_dataset\("USER/lung_nodule_ct", "([^"]+)"', text) == loads
    assert (re.findall(r'frombuffer\(scan\["volume"\]\["bytes"\], ([^)]+)\)', text) or [None]) == [reads]
    assert ("world coordinates are" in text) == (reads == '"<i2"')


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [["det3d_1.25mm", "cls_1.25mm"], ["det3d_5mm", "--volume-codec", "b2nd"], ["det3d_bmp_1.25mm"]]
)
def test_the_code_of_a_card_runs(cli, python, dummy, tmp_path, options) -> None:
    assert cli("build", *options, "--source", dummy, "--out", tmp_path / "built").returncode == 0
    text = (tmp_path / "built" / "README.md").read_text("utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)).replace("USER/lung_nodule_ct", "built")
    done = python(f"{code}\nprint(volume.ndim, volume.dtype)", cwd=tmp_path, HF_DATASETS_CACHE=str(tmp_path / "cache"))
    assert done.stdout == f"3 {'uint8' if 'bmp' in options[0] else 'int16'}\n", done.stderr


@pytest.mark.parametrize("config", CONFIGS)
def test_the_card_of_a_build_of_phantoms_says_so(build, dummy, config) -> None:
    text = (build(dummy, config).folder / "README.md").read_text("utf-8")
    assert text.index("Phantoms, not patients") < text.index("```python"), (
        "dummy_data has changed: put the values of its archives in build.json into _EMBEDDED in publish/prose.py"
    )


def test_the_card_of_other_archives_does_not_speak_of_phantoms(build, tmp_path) -> None:
    folder = build(TinyArchives().write(tmp_path / "in"), *CONFIGS).folder
    assert "hantom" not in (folder / "README.md").read_text("utf-8")


def test_a_config_of_an_unknown_kind_has_a_picture(build, dummy) -> None:
    from lung_mask_2d import LUNG_MASK_2D, registered

    with registered():
        folder = build(dummy, LUNG_MASK_2D.name).folder
    card(folder)
    pixels = np.asarray(Image.open(folder / "pictures" / f"{LUNG_MASK_2D.name}.png"))
    assert pixels.max() > 240  # labels are stretched: 3 and 4 would be almost black
    (row,) = pq.read_table(next((folder / "data" / "preview").iterdir())).to_pylist()
    assert (row["config"], row["objects"], row["pathology"]) == (LUNG_MASK_2D.name, [], None)


def test_pictures_of_scans_do_not_depend_on_their_kind(build, dummy) -> None:
    folder = build(dummy, "det3d_5mm").folder
    before = config_picture(open_build(folder), "det3d_5mm")
    manifest = json.loads((folder / "build.json").read_text())
    manifest["configs"]["det3d_5mm"]["kind"] = "other"
    (folder / "build.json").write_text(json.dumps(manifest))
    after = config_picture(open_build(folder), "det3d_5mm")
    assert (np.asarray(before.image) == np.asarray(after.image)).all()
    assert before.caption == after.caption


def test_scans_are_drawn_at_the_key_slice_of_their_largest_nodule(build, dummy) -> None:
    folder = build(dummy, "longitudinal").folder

    def first_slice_of_the_box(rows) -> None:
        for row in rows:
            for nodule in row["nodules"]:
                if nodule["box_voxel"] is not None:
                    nodule["key_slice"], nodule["key_slice_basis"] = nodule["box_voxel"][2], "evidence"

    alter(folder, "longitudinal", first_slice_of_the_box)
    opened = open_build(folder)
    chosen = spread(opened, "longitudinal", 3)
    for sample in samples(opened, "longitudinal", chosen):
        nodule = largest(sample.row)
        assert (sample.slice_index, sample.key_basis) == (nodule["box_voxel"][2], "evidence")
        assert np.array_equal(sample.pixels, LUNG.to_grey(sample.volume[nodule["box_voxel"][2]]))
    assert "at the key slice of its largest nodule" in config_picture(opened, "longitudinal").caption


def test_the_fields_of_nodules_are_described_on_the_card_and_in_croissant(with_card) -> None:
    text = (with_card / "README.md").read_text("utf-8")
    document = json.loads((with_card / "croissant.json").read_text("utf-8"))
    for config in ("det3d_1.25mm", "det3d_5mm", "longitudinal"):
        (records,) = [entry for entry in document["recordSet"] if entry["name"] == config]
        described = {
            f"{field['name']}.{part['name']}": part["description"]
            for field in records["field"]
            for part in field.get("subField", ())
        } | {field["name"]: field.get("description", "") for field in records["field"]}
        schema = CONFIGS[config].schema
        for column in (schema.column("lung_mask_origin"), *schema.column("nodules").type.fields):
            name = column.name if column.name in schema.names else f"nodules.{column.name}"
            assert described[name].startswith(column.doc[:20]), name
            assert column.doc in text
    assert ("track_id" in text, "key_slice_basis" in text) == (True, True)


@pytest.mark.parametrize(("world", "slice_index"), [(None, 3), ("0.08,-17,33", 2), ("-6,-20.9,29.5", 0)])
@pytest.mark.slow
def test_the_preview_of_a_scan_without_nodules_or_with_a_centre_outside(build, tmp_path, world, slice_index) -> None:
    tiny = TinyArchives()
    rows = f"7_20180102,{world},4\n" if world else ""
    tiny[NODULES] = {"annotations.csv": f"seriesuid,coordX,coordY,coordZ,diameter_mm\n{rows}".encode()}
    folder = build(tiny.write(tmp_path / "in"), "det3d_1.25mm").folder
    card(folder)
    (row,) = pq.read_table(next((folder / "data" / "preview").iterdir())).to_pylist()
    assert len(row["objects"]) == bool(world)
    assert row["slice_index"] == slice_index
