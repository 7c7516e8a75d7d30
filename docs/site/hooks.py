"""MkDocs hooks: the pages of the site that are not files under docs/.

    index.md, contributing.md, changelog.md   README.md, CONTRIBUTING.md, CHANGELOG.md, whose links work on plain git hosts
    notebooks/NAME.md                         docs/notebooks/NAME.ipynb, with outputs where build/notebooks/NAME.ipynb has been executed
    reference/options.md                      from `hesspect COMMAND --help`, which the program prints from its table of options
    reference/api.md                          the names in hesspect.__all__, whose docstrings mkdocstrings reads; Result's fields from schema.json

A link out of docs/ that is not to one of these pages becomes the file's name: the site has no copy of the sources. It is an error where
there is no such file, so that links into the repository are checked too.
"""

import logging
import os
import posixpath
import re
import sys
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))
import made_pages  # noqa: E402

PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^( *)(```+|~~~+)")

log = logging.getLogger("mkdocs.hooks.hesspect")


# --- Links between the repository's root and docs/ -------------------------------------------------------------------

def _outside_code(markdown, change):
    """`change` applied to each line that is not in a fence."""
    lines, fence = [], ""
    for line in markdown.split("\n"):
        found = _FENCE.match(line)
        if found and (not fence or found[2].startswith(fence)):
            fence = "" if fence else found[2]
        lines.append(line if fence or found else change(line))
    return "\n".join(lines)


def _relink(markdown, source, page):
    """Links of `source`, a path from the repository's root, as they are on the site's `page`."""
    def target(match):
        image, text, link = match.groups()
        if re.match(r"[a-z]+:|#|/", link):
            return match[0]
        path, _, anchor = link.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if path.startswith("docs/") and not path.endswith((".py", ".ipynb")):
            there = path.removeprefix("docs/")
        elif path.startswith("docs/notebooks/"):
            there = path.removeprefix("docs/").replace(".ipynb", ".md")
        elif path in PAGES:
            there = PAGES[path]
        else:
            if not (ROOT / path).exists():
                log.warning("%s links to '%s', and there is no such file", source, link)
            return f"{text} (`{path}`)" if text.strip("`") != path else f"`{path}`"
        return f"{image}[{text}]({posixpath.relpath(there, posixpath.dirname(page) or '.')}{'#' + anchor if anchor else ''})"

    return _outside_code(markdown, lambda line: _LINK.sub(target, line))


def _program():
    path = Path(os.environ.get("HESSPECT_BIN") or ROOT / "build/release/bin/hesspect")
    if not path.is_file():
        raise PluginError(f"the page of all options is made by {path}, which is not there: launch/build release --target hesspect")
    return path


# --- MkDocs' events --------------------------------------------------------------------------------------------------

def on_files(files, config):
    def add(name, content):
        files.append(File.generated(config, name, content=content))

    for source, page in PAGES.items():
        add(page, _relink((ROOT / source).read_text(), source, page))
    add("reference/options.md", made_pages.options_page(_program()))
    add("reference/api.md", made_pages.api_page())
    for path in sorted((ROOT / "docs/notebooks").glob("*.ipynb")):
        text, pictures = made_pages.notebook_page(path)
        add(f"notebooks/{path.stem}.md", text)
        for name, content in pictures.items():
            add(f"notebooks/{name}", content)
    return files


def on_page_markdown(markdown, page, config, files):
    if page.file.generated_by:
        return markdown
    return _relink(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)
