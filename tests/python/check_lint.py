"""ruff and mypy --strict on the package; exit code 77 (skipped) where they are not installed.

    check_lint.py PYTHON_FOLDER CACHE
"""

import importlib.util
import subprocess
import sys
from pathlib import Path


def main(folder, cache):
    missing = [name for name in ("ruff", "mypy") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"{' and '.join(missing)} not installed: launch/setup --test")
        return 77
    cache.mkdir(parents=True, exist_ok=True)
    commands = (["ruff", "check", "--cache-dir", cache / "ruff", "--output-format", "concise", "hesspect"],
                ["mypy", "--cache-dir", cache / "mypy", "--no-error-summary"])
    return max(subprocess.run([sys.executable, "-m", *map(str, command)], cwd=folder).returncode for command in commands)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]).resolve()))
