"""Options that pages name are there, and options that are there are named in a page: docs/cli.md and the pages of its topics have no other test.

    check_options.py HESSPECT       exit code 1 with a line for each that is not

The program's options are those of its --help, the Python commands' those of their parsers.
"""

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "docs/site"), str(ROOT / "python")]
import made_pages  # noqa: E402

#: of other programs, which pages name too
OTHERS = {
    "mpirun": "host mca bind-to map-by oversubscribe tag-output quiet allow-run-as-root",
    "srun and sbatch": "mpi ntasks nodes array signal open-mode gpus-per-node gpus-per-task dependency requeue",
    "node_exporter": "collector",
    "docker": "rm gpus ipc user entrypoint build-arg time nv",
    "pip": "no-deps no-build-isolation force-reinstall",
    "scripts of launch, bench and docs/studies": "test long oldest serve only rounds tasks report seeds references products products-tools tools binary bottlenecks",
    "cmake": "preset target install prefix build component",
}

def named() -> dict[str, str]:
    """Options in the pages' code, each with the first place that names it."""
    found: dict[str, str] = {}
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in pages:
        fence = False
        for number, line in enumerate(page.read_text().split("\n"), 1):
            if line.lstrip().startswith("```"):
                fence = not fence
                continue
            for code in [line] if fence else re.findall(r"`([^`]+)`", line):
                for name in re.findall(r"(?<![\w-])--([a-z][a-z0-9-]*[a-z0-9])", code):
                    found.setdefault(name, f"{page.relative_to(ROOT)}:{number}")
    return found


def main() -> int:
    program = {name for command in made_pages.COMMANDS for options in made_pages.options_by_group(made_pages.help_of(Path(sys.argv[1]), command)).values()
               for name, *_ in options}
    around = [made_pages.help_of(Path(sys.argv[1]), name) for name in made_pages.AROUND]
    python = {name for text in [*around, *made_pages.python_helps().values()] for name in re.findall(r"--([a-z][a-z0-9-]+)", text)}
    others = {name for names in OTHERS.values() for name in names.split()}
    inside = named()
    wrong = [f"{place}: --{name} is no option" for name, place in inside.items() if name not in program | python | others]
    wrong += [f"--{name} of hesspect is in no page" for name in sorted(program - set(inside))]
    print("\n".join(wrong) or f"{len(inside)} options named, {len(program)} of hesspect's")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
