"""Looks at the spool's page as a reader of HTML and, where there is one, as a browser without a window.

    look_at_page.py PAGE        exit code 1 with a traceback where it is not as it should be; HESSPECT_PICTURES=FOLDER keeps what the browser drew
"""

import os
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path

BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (found := shutil.which(name))), None)
VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.references = [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.references += [value for name, value in attributes if name in ("href", "src")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


def pixels_of(page, folder, width, dark):
    import matplotlib.image

    picture = folder / f"page-{width}-{'dark' if dark else 'light'}.png"
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}", f"--screenshot={picture}",
               f"--window-size={width},1000", *(["--blink-settings=preferredColorScheme=0"] if dark else []), page.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=50, env={**os.environ, "HOME": str(folder)})
    assert picture.exists(), done.stderr
    if kept := os.environ.get("HESSPECT_PICTURES"):
        shutil.copy(picture, kept)
    return (255 * matplotlib.image.imread(picture)[..., :3]).round().astype(int)


def main(page):
    text = page.read_text(encoding="utf-8")
    assert not Page(text).references and not any(word in text for word in ("http:", "https:", "url(", "@import", "<script"))
    if BROWSER is None:
        return
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        for dark, paper, running in ((False, (255, 255, 255), (0, 0x72, 0xB2)), (True, (0x12, 0x16, 0x1C), (0x56, 0xB4, 0xE9))):
            pixels = pixels_of(page, Path(folder), 1000, dark)
            near = lambda colour: np.abs(pixels - np.array(colour)).max(-1) <= 3
            assert near(paper).mean() > 0.5 and near(running).sum() > 200, (dark, near(paper).mean(), near(running).sum())
            assert near(paper)[:, -8:].all() and near(paper)[:, :8].all()  # nothing is wider than the window


if __name__ == "__main__":
    main(Path(sys.argv[1]))
