"""The runner of code blocks itself: what it takes for a block, and that it fails where a block does."""

import contextlib
import io
import os
import tempfile
import unittest
from pathlib import Path

from markdown_blocks import PageError, blocks_of, not_printed
from run_blocks import run_page


class Blocks(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.page = Path(folder.name) / "page.md"

    def run_text(self, text, long=False):
        self.page.write_text(text)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            good = run_page(self.page, long, False)
        return good, printed.getvalue()

    def test_python_shares_a_session_and_the_folder_with_shells(self):
        good, said = self.run_text("```python\nx = 3\nopen('a', 'w').write('7')\n```\n```bash\ntest $(cat a) = 7\n```\n```python\nassert x == 3\n```\n")
        self.assertTrue(good, said)

    def test_a_block_that_fails_fails_the_page(self):
        for text, line in (("# T\n\n```python\nx = 1\n1 / 0\n```\n", 5), ("```bash\ntrue\nfalse\ntrue\n```\n", 2), ("```sh\nexit 3\n```\n", 2)):
            good, said = self.run_text(text)
            self.assertFalse(good)
            self.assertIn("page.md", said)
            self.assertIn(str(line), said)
        # A session that is gone is a failure too, and does not wait for ever.
        self.assertFalse(self.run_text("```python\nimport os\nos._exit(0)\n```\n")[0])

    def test_marks(self):
        good, said = self.run_text("<!-- run: no, no cluster -->\n```bash\nfalse\n```\n<!-- run: long -->\n```bash\nfalse\n```\n"
                                   "<!-- run: exit 4 -->\n```bash\nexit 4\n```\n<!-- run: file d/x.ini -->\n```ini\na = 1\n```\n```bash\ngrep -q 'a = 1' d/x.ini\n```\n"
                                   "<!-- run: hidden python\ny = 2\n-->\n```python\nassert y == 2\n```\n```text\nnot run\n```\n")
        self.assertTrue(good, said)
        self.assertFalse(self.run_text("<!-- run: long -->\n```bash\nfalse\n```\n", long=True)[0])
        self.assertFalse(self.run_text("<!-- run: exit 4 -->\n```bash\ntrue\n```\n")[0])

    def test_what_a_block_prints(self):
        text = "```bash\necho 'loss 0.25, 3 rows'; echo other; echo done\n```\n<!-- run: prints -->\n```text\n%s\n```\n"
        for expected, good in (("loss 0.31, 4 rows\n…\ndone", True), ("loss 0.31", False), ("done\nother", False), ("loss … rows", True)):
            self.assertEqual(self.run_text(text % expected)[0], good, expected)
        self.assertEqual(not_printed("a 1", "a 2,000"), "")

    def test_pages_that_are_refused(self):
        for text, why in (("```\nx\n```\n", "without a language"), ("```python\nx\n", "without an end"), ("<!-- run: maybe -->\n```sh\n```\n", "no mark"),
                          ("<!-- run: long -->\ntext\n", "no block follows"), ("<!-- run: hidden python\nx\n", "without an end")):
            self.page.write_text(text)
            with self.assertRaisesRegex(PageError, why):
                blocks_of(self.page)

    def test_the_pages_have_blocks_that_are_run(self):
        root = Path(__file__).resolve().parents[2]
        for page in (root / "README.md", *root.glob("docs/tutorials/*.md"), *root.glob("docs/howto/*.md")):
            self.assertTrue(any(block.is_code and not block.mark.startswith("no,") for block in blocks_of(page)), page)


if __name__ == "__main__":
    os.chdir(tempfile.gettempdir())
    unittest.main()
