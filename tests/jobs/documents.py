"""Documents for tests, made by hand: PDF, DOCX, PPTX."""

from __future__ import annotations

from packmule.tests.jobs.archives import zipped

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
A = "http://schemas.openxmlformats.org/drawingml/2006/main"
P = "http://schemas.openxmlformats.org/presentationml/2006/main"
R = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def pdf(
    *pages: str, size: tuple[float, float] = (595, 842), count: int | None = None, depth: int = 0
) -> bytes:
    """A PDF with a line of Helvetica a page; `count` lies about their number, `depth` nests their tree."""
    font = 3 + 2 * len(pages)
    objects = {1: "<</Type/Catalog/Pages 2 0 R>>"}
    kids = " ".join(f"{3 + 2 * at} 0 R" for at in range(len(pages)))
    for at, text in enumerate(pages):
        content = f"BT /F1 24 Tf 72 {size[1] - 100} Td ({text}) Tj ET" if text else ""
        objects[3 + 2 * at] = (
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 {size[0]} {size[1]}]/Contents {4 + 2 * at} 0 R"
            f"/Resources<</Font<</F1 {font} 0 R>>>>>>"
        )
        objects[4 + 2 * at] = f"<</Length {len(content)}>>stream\n{content}\nendstream"
    objects[font] = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
    for level in range(depth):
        objects[font + 1 + level] = f"<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>"
        kids = f"{font + 1 + level} 0 R"
    objects[2] = f"<</Type/Pages/Kids[{kids}]/Count {len(pages) if count is None else count}>>"
    body, places = b"%PDF-1.4\n", {}
    for number in sorted(objects):
        places[number] = len(body)
        body += f"{number} 0 obj{objects[number]}endobj\n".encode("latin-1")
    table = "".join(f"{places[number]:010} 00000 n \n" for number in sorted(objects))
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    end += f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{len(body)}\n%%EOF\n"
    return body + end.encode()


def locked_pdf() -> bytes:
    """A PDF in RC4 with an owner's and a user's password that nobody knows."""
    return pdf("secret").replace(
        b"trailer<<",
        b"trailer<</Encrypt<</Filter/Standard/V 1/R 2/P -4/O<"
        + b"28" * 32
        + b">/U<"
        + b"5f" * 32
        + b">>>/ID[<00><00>]",
    )


def docx(body: str, **parts: str) -> bytes:
    """A DOCX whose document has `body` between its tags; `parts` are others by their names."""
    document = f'<?xml version="1.0"?><w:document xmlns:w="{W}"><w:body>{body}</w:body></w:document>'
    others = [(f"word/{name}.xml", text.encode()) for name, text in parts.items()]
    return zipped([("[Content_Types].xml", b"<Types/>"), ("word/document.xml", document.encode()), *others])


def paragraph(*texts: str) -> str:
    return "<w:p>" + "".join(f"<w:r><w:t>{text}</w:t></w:r>" for text in texts) + "</w:p>"


def pptx(slides: dict[int, str], order: list[int]) -> bytes:
    """A PPTX with the slides of these numbers, shown in an `order`."""
    ids = "".join(f'<p:sldId id="{256 + number}" r:id="r{number}"/>' for number in order)
    relations = "".join(
        f'<Relationship Id="r{number}" Target="slides/slide{number}.xml"/>' for number in slides
    )
    shown = f'<p:presentation xmlns:p="{P}" xmlns:r="{R}"><p:sldIdLst>{ids}</p:sldIdLst></p:presentation>'
    slide = f'<p:sld xmlns:p="{P}" xmlns:a="{A}"><a:p><a:r><a:t>%s</a:t></a:r></a:p></p:sld>'
    files = {
        "ppt/presentation.xml": shown,
        "ppt/_rels/presentation.xml.rels": f'<Relationships xmlns="x">{relations}</Relationships>',
        **{f"ppt/slides/slide{number}.xml": slide % text for number, text in slides.items()},
    }
    return zipped((name, text.encode()) for name, text in files.items())
