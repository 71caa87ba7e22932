"""File formats, one per module: MetaImage, tables, workbooks, VOC annotations and pictures, read from bytes. Configs are not known here."""
