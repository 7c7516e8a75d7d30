"""Builds the site and looks at it: no broken link or anchor (launch/docs is strict), and nothing that a page would load from the network.

    check_site.py ROOT        exit code 77 where mkdocs is not installed

The theme's scripts name hosts for diagrams that no page here has; what pages themselves load is looked at.
"""

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path


class Loads(HTMLParser):
    """Addresses that a browser fetches to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "audio", "video", "embed") or (
                tag == "link" and attributes.get("rel") not in ("canonical", "prev", "next")):
            self.found += [value for name in ("src", "href") if (value := attributes.get(name))]


def main() -> int:
    root = Path(sys.argv[1])
    if any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")):
        print("mkdocs-material or mkdocstrings not installed: launch/setup --test")
        return 77
    built = subprocess.run([root / "launch/docs"], env=os.environ | {"HESSPECT_PYTHON": sys.executable})
    if built.returncode:
        return built.returncode
    site, wrong = root / "build/site", []
    for page in sorted(site.rglob("*.html")):
        loads = Loads()
        loads.feed(page.read_text())
        wrong += [f"{page.relative_to(site)} loads {address}" for address in loads.found if re.match(r"(https?:)?//", address)]
    wrong += [f"{sheet.relative_to(site)} loads {address}" for sheet in site.rglob("*.css")
              for address in re.findall(r"url\([\"']?((?:https?:)?//[^)\"']+)", sheet.read_text())]
    # What only this build makes must be there, and not empty.
    for page, text in (("index.html", "largest and smallest eigenvalues"), ("reference/options.html", "--micro-batch"), ("reference/api.html", "write_data"),
                       ("notebooks/spectrum.html", "hesspect.spectrum"), ("contributing.html", "Recipes")):
        if text not in (site / page).read_text():
            wrong.append(f"{page} does not say {text!r}")
    print("\n".join(wrong) or f"{sum(1 for _ in site.rglob('*.html'))} pages")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
