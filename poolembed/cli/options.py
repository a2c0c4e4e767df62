"""Options that are the same in every verb that has them."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

CollectionPath = Annotated[
    str, typer.Argument(metavar="COLLECTION", help="What poolembed embed wrote, or an .npy matrix.")
]
Rows = Annotated[
    str | None,
    typer.Option(
        "--paths", metavar="FILE", help="The path of each row of an .npy matrix, one a line.", show_default=False
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Null = Annotated[bool, typer.Option("--null", "-0", help="End paths in NUL, as find -print0; with --format paths.")]
LabelColumn = Annotated[str, typer.Option("--label-column", metavar="COLUMN", help="The table's column of labels.")]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option("--device", help="Where the network runs.")]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"], typer.Option("--precision", help="What the network computes in.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, max=1024, help="Threads.", show_default="one per core")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
