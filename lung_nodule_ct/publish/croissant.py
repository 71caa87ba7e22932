"""``croissant.json``: a build as Croissant 1.1 with the Responsible AI fields, written with mlcroissant.

Formats: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html and
https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html. The file lists every shard with its size and SHA-256.
Each config is a record set over the shards of its folder, at paths relative to ``croissant.json``. mlcroissant reads
text as bytes, and decodes pictures.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.declaration.labels import PATHOLOGY
from lung_nodule_ct.declaration.manifest import DATASET_VERSION, VolumeCodec
from lung_nodule_ct.declaration.published import CITATION, HOMEPAGE
from lung_nodule_ct.declaration.schema import (
    Category,
    Column,
    ColumnType,
    Flag,
    Integer,
    Picture,
    Real,
    Records,
    Text,
    Vector,
    Voxels,
)
from lung_nodule_ct.publish.preview_config import PREVIEW, PREVIEW_SCHEMA, PREVIEW_SPLIT, PREVIEW_SUMMARY
from lung_nodule_ct.publish.prose import TAGS, TITLE, date_published, licences, prose_of, warnings
from lung_nodule_ct.system.imports import require_modules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lung_nodule_ct.publish.preview_config import PreviewShard
    from lung_nodule_ct.read.build_folder import BuildFolder

CROISSANT: Final = "croissant.json"

_CONFORMS_TO = ("http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0")
# mlcroissant writes the JSON-LD context of 1.0. The standard context of 1.1 also has these terms.
_NEW_IN_1_1 = {
    "arrayShape": "cr:arrayShape",
    "isArray": "cr:isArray",
    "containedIn": "cr:containedIn",
    "description": {"@container": "@language"},
    "name": {"@container": "@language"},
}
_PARQUET = "application/x-parquet"
_UNKNOWN = "Unknown to the authors of this conversion."
# The coordinate system of each column of coordinates; {volume} is the column with the volume.
_FRAMES = {
    "box_voxel": "Frame: voxel indices of `{volume}`, axes x, y, z (its shape is z, y, x); the low corner is the first "
    "voxel inside, the high corner the first voxel outside: volume[z0:z1, y0:y1, x0:x1].",
    "center_voxel": "Frame: continuous voxel index of `{volume}`, axes x, y, z; integers are the centres of voxels.",
    "center_world": "Frame: LPS millimetres; world = origin + direction @ diag(spacing) @ voxel.",
}


def croissant_text(build: BuildFolder, preview: PreviewShard | None = None) -> str:
    """Return the content of ``croissant.json``.

    Args:
        build: A finished Parquet build.
        preview: The shard of its config ``preview``.

    Raises:
        MissingExtraError: mlcroissant is not installed.
        BuildFolderError: ``findings.json`` is missing or damaged.
    """
    require_modules("croissant", "croissant.json", "mlcroissant")
    import mlcroissant as mlc  # noqa: PLC0415 -- an extra, and slow to import

    writer = _Writer(mlc, VolumeCodec(build.manifest.get("volume_codec", VolumeCodec.RAW)))
    prose = prose_of(build)
    first = [text for text in warnings(build).values() if text]
    distribution: list[Any] = []
    record_sets = [writer.classes()]
    shards = {
        name: [(file["path"], file["bytes"], file["sha256"]) for file in build.files(name)] for name in build.configs
    }
    declared = {
        name: (build.config(name).summary, build.columns(name), tuple(build.configs[name])) for name in build.configs
    }
    if preview is not None:
        shards[PREVIEW] = [(preview.path, preview.file_bytes, preview.sha256)]
        declared[PREVIEW] = (PREVIEW_SUMMARY, PREVIEW_SCHEMA.columns, (PREVIEW_SPLIT,))
    for name, files in shards.items():
        distribution += writer.files(name, files)
        record_sets.append(writer.record_set(name, *declared[name]))
    metadata = mlc.Metadata(
        ctx=writer.context,
        name=TITLE,
        description="\n\n".join([*first, prose["summary"], prose["origin"]]),
        conforms_to=list(_CONFORMS_TO),
        cite_as=CITATION,
        creators=[mlc.Person(ctx=writer.context, name="Jian et al.")],
        keywords=list(TAGS),
        license=licences(build) or None,
        date_published=date_published(build),
        url=HOMEPAGE,
        version=DATASET_VERSION,
        distribution=distribution,
        record_sets=record_sets,
        data_collection=prose["collection"],
        data_collection_type=["Secondary Data Analysis"],
        data_collection_missing_data=(
            "Age, sex, scanner and protocol are not in the archives. Unknown values of a column are null."
        ),
        data_collection_raw_data="CT scans of one hospital, in the archives as MetaImage volumes and as pictures.",
        data_imputation_protocol="None: missing values are not filled in.",
        data_preprocessing_protocol=[prose["preprocessing"]],
        data_annotation_protocol=[prose["annotation"]],
        data_annotation_platform=[_UNKNOWN],
        data_annotation_analysis=[_UNKNOWN],
        annotations_per_item=_UNKNOWN,
        annotator_demographics=[_UNKNOWN],
        machine_annotation_tools=[_UNKNOWN],
        data_use_cases=[prose["uses"]],
        data_limitations=[prose["limits"]],
        data_biases=[prose["biases"]],
        data_social_impact=_UNKNOWN,
        personal_sensitive_information=[prose["privacy"], prose["ethics"]],
        data_release_maintenance_plan=prose["maintenance"],
    )
    return json.dumps(metadata.to_json(), indent=2, ensure_ascii=False) + "\n"


class _Writer:
    """Makes the nodes of one document, which share a context."""

    def __init__(self, mlc: Any, codec: VolumeCodec) -> None:
        self._mlc = mlc
        self._codec = codec
        self.context = mlc.Context(conforms_to=_CONFORMS_TO[0])
        self.context.rdf = mlc.Rdf(context={**mlc.Rdf().context, **_NEW_IN_1_1})

    def classes(self) -> Any:
        """The record set of the pathology classes, which gives the name of each index."""
        name = "pathology_classes"
        fields = [
            ("index", "cr:Int32", "index of the class, as in the columns"),
            ("name", "sc:Text", "name of the class"),
            ("malignant", "sc:Boolean", "whether the class counts as malignant"),
        ]
        return self._mlc.RecordSet(
            ctx=self.context,
            id=name,
            name=name,
            description="The pathology classes. The columns `pathology` and `label` contain their indices.",
            data_types=["sc:Enumeration"],
            key=[f"{name}/index"],
            fields=[
                self._mlc.Field(
                    ctx=self.context, id=f"{name}/{field}", name=field, description=doc, data_types=[self._type(kind)]
                )
                for field, kind, doc in fields
            ],
            data=[
                {f"{name}/index": entry.index, f"{name}/name": entry.name, f"{name}/malignant": entry.malignant}
                for entry in PATHOLOGY
            ],
        )

    def files(self, config: str, shards: Iterable[tuple[str, int, str]]) -> Iterator[Any]:
        """The shards of a config one by one, and the set of them from which its records are read."""
        for path, size, sha256 in shards:
            yield self._mlc.FileObject(
                ctx=self.context,
                id=path,
                name=path.rpartition("/")[2],
                description=f"A shard of {config}.",
                content_url=path,
                content_size=f"{size} B",
                encoding_formats=[_PARQUET],
                sha256=sha256,
            )
        yield self._mlc.FileSet(
            ctx=self.context,
            id=_file_set(config),
            name=_file_set(config),
            description=f"The shards of {config}, in the folder of this file.",
            encoding_formats=[_PARQUET],
            includes=[f"data/{config}/*.parquet"],
        )

    def record_set(self, config: str, summary: str, columns: Iterable[Column], splits: Iterable[str]) -> Any:
        """The record set of a config: its examples."""
        columns = tuple(columns)
        names = [column.name for column in columns]
        volume = next((f"{config}/{column.name}" for column in columns if isinstance(column.type, Voxels)), "")
        split = self._mlc.Field(
            ctx=self.context,
            id=f"{config}/split_of_shard" if "split" in names else f"{config}/split",
            name="split",
            description="The split, from the name of the shard.",
            data_types=[self._type("sc:Text")],
            source=self._source(
                config,
                file_property="fullpath",
                transform={"regex": rf"data/{re.escape(config)}/({'|'.join(splits)})-.*\.parquet$"},
            ),
        )
        return self._mlc.RecordSet(
            ctx=self.context,
            id=config,
            name=config,
            description=summary,
            fields=[split, *(self._field(config, column, volume) for column in columns)],
        )

    def _field(self, config: str, column: Column, volume: str) -> Any:
        id_ = f"{config}/{column.name}"
        doc = _description(column, volume)
        if isinstance(column.type, Records):
            fields = [
                self._leaf(
                    f"{id_}/{field.name}",
                    field.name,
                    _description(field, volume),
                    field.type,
                    self._source(config, column=column.name, transform={"json_path": field.name}),
                )
                for field in column.type.fields
            ]
            return self._node(id_, column.name, doc, sub_fields=fields, is_array=True, shape="-1")
        if isinstance(column.type, Voxels):
            dtype = "little-endian int16" if column.type.dtype == "int16" else column.type.dtype
            stored = "raw bytes" if self._codec is VolumeCodec.RAW else "a blosc2 frame (b2nd)"
            parts: list[tuple[str, str, ColumnType]] = [
                ("bytes", f"the voxels as {stored}: {dtype}, C order, axes z, y, x", Text()),
                ("shape", "the number of voxels along z, y, x", Vector(Integer(), 3)),
            ]
            fields = [
                self._leaf(
                    f"{id_}/{name}",
                    name,
                    part_doc,
                    kind,
                    self._source(config, column=column.name, transform={"json_path": name}),
                )
                for name, part_doc, kind in parts
            ]
            return self._node(id_, column.name, doc, sub_fields=fields)
        transform = {"json_path": "bytes"} if isinstance(column.type, Picture) else None
        source = self._source(config, column=column.name, transform=transform)
        return self._leaf(id_, column.name, doc, column.type, source)

    def _leaf(self, id_: str, name: str, doc: str, kind: ColumnType, source: Any) -> Any:
        if isinstance(kind, Vector):
            types = _types(kind.item)
            if name == "bbox":
                types = (*types, "cr:BoundingBox")
            return self._node(id_, name, doc, types=types, source=source, is_array=True, shape=str(kind.length))
        return self._node(id_, name, doc, types=_types(kind), source=source)

    def _node(
        self,
        id_: str,
        name: str,
        doc: str,
        types: tuple[str, ...] = (),
        source: Any = None,
        sub_fields: list[Any] | None = None,
        is_array: bool = False,
        shape: str | None = None,
    ) -> Any:
        more = {"source": source} if source is not None else {"sub_fields": sub_fields}
        return self._mlc.Field(
            ctx=self.context,
            id=id_,
            name=name,
            description=doc,
            data_types=[self._type(kind) for kind in types],
            **more,
            **({"is_array": True, "array_shape": shape} if is_array else {}),
        )

    def _source(
        self,
        config: str,
        *,
        column: str | None = None,
        file_property: str | None = None,
        transform: dict[str, str] | None = None,
    ) -> Any:
        extract = (
            self._mlc.Extract(ctx=self.context, column=column)
            if column is not None
            else self._mlc.Extract(ctx=self.context, file_property=file_property)
        )
        transforms = [] if transform is None else [self._mlc.Transform(ctx=self.context, **transform)]
        return self._mlc.Source(ctx=self.context, file_set=_file_set(config), extract=extract, transforms=transforms)

    @staticmethod
    def _type(name: str) -> str:
        prefix, _, rest = name.partition(":")
        return {"sc": "https://schema.org/", "cr": "http://mlcommons.org/croissant/"}[prefix] + rest


def _file_set(config: str) -> str:
    return f"{config}-shards"


def _description(column: Column, volume: str) -> str:
    parts = [column.doc + (", or null" if column.nullable else "")]
    if isinstance(column.type, Category):
        parts.append("Index into: " + ", ".join(f"{index} {name}" for index, name in enumerate(column.type.names)))
    if column.name in _FRAMES:
        parts.append(_FRAMES[column.name].format(volume=volume))
    return ". ".join(part.rstrip(".") for part in parts) + "."


def _types(kind: ColumnType) -> tuple[str, ...]:
    match kind:
        case Text():
            return ("sc:Text",)
        case Flag():
            return ("sc:Boolean",)
        case Integer(bits):
            return (f"cr:Int{bits}",)
        case Real(bits):
            return (f"cr:Float{bits}",)
        case Category():
            return ("cr:Int64",)
        case Picture():
            return ("sc:ImageObject",)
        case _:
            raise TypeError(f"Croissant has no single field for {kind}")
