"""Where clips come from: folders, patterns, single files, S3, zip archives, lists, the released dataset.

Every file of a source and every line of a list is an input row (`SourceFile`), named by a uri that does not
depend on where the source is. `list_sources` lists the rows, `clip_file` finds the file of one that became a
clip. Several sources travel in one string (`join_sources`).
"""

from __future__ import annotations

from share4video.media.sources.clips import clip_file
from share4video.media.sources.listing import list_sources
from share4video.media.sources.row import SourceFile
from share4video.media.sources.spec import join_sources

__all__ = ["SourceFile", "clip_file", "join_sources", "list_sources"]
