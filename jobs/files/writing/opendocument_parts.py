"""The parts of an OpenDocument spreadsheet that are the same whatever is in it."""

from __future__ import annotations

TYPE = "application/vnd.oasis.opendocument.spreadsheet"
SHEET = "Sheet1"
BOLD, DAY, INSTANT, CLOCK = "bold", "day", "instant", "clock"
"""Names of cells' styles."""

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_SPACES = """\
xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"
 xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"
 xmlns:style="urn:oasis:names:tc:opendocument:xmlns:style:1.0"
 xmlns:number="urn:oasis:names:tc:opendocument:xmlns:datastyle:1.0"
 xmlns:fo="urn:oasis:names:tc:opendocument:xmlns:xsl-fo-compatible:1.0"
 office:version="1.2"
"""
_DATE = """\
<number:year number:style="long"/><number:text>-</number:text><number:month number:style="long"/>\
<number:text>-</number:text><number:day number:style="long"/>"""
_HOURS = """\
<number:hours number:style="long"/><number:text>:</number:text><number:minutes number:style="long"/>\
<number:text>:</number:text>"""

MANIFEST = f"""{_HEAD}\
<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0" manifest:version="1.2">
<manifest:file-entry manifest:full-path="/" manifest:version="1.2" manifest:media-type="{TYPE}"/>
<manifest:file-entry manifest:full-path="content.xml" manifest:media-type="text/xml"/>
<manifest:file-entry manifest:full-path="styles.xml" manifest:media-type="text/xml"/>
</manifest:manifest>
"""

STYLES = f"""{_HEAD}<office:document-styles {_SPACES}><office:styles/></office:document-styles>
"""

CONTENT = f"""{_HEAD}<office:document-content {_SPACES}><office:automatic-styles>
<number:date-style style:name="of-days">{_DATE}</number:date-style>
<number:date-style style:name="of-instants">{_DATE}<number:text> </number:text>{_HOURS}\
<number:seconds number:style="long" number:decimal-places="3"/></number:date-style>
<number:time-style style:name="of-clocks">{_HOURS}<number:seconds number:style="long"/></number:time-style>
<style:style style:name="{BOLD}" style:family="table-cell"><style:text-properties fo:font-weight="bold"/>\
</style:style>
<style:style style:name="{DAY}" style:family="table-cell" style:data-style-name="of-days"/>
<style:style style:name="{INSTANT}" style:family="table-cell" style:data-style-name="of-instants"/>
<style:style style:name="{CLOCK}" style:family="table-cell" style:data-style-name="of-clocks"/>
</office:automatic-styles><office:body><office:spreadsheet><table:table table:name="{SHEET}">\
"""
"""What is in front of the columns and rows."""

END = "</table:table></office:spreadsheet></office:body></office:document-content>\n"
