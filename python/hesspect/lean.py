"""Commands that start without packages they have no use for.

`transformers` imports torch for a tokenizer, and torchvision, SciPy and scikit-learn for a language model, wherever they are there: more time than all
that the command does. They are hidden from it in the command's own process. Where the command then fails, it is started again with everything.
"""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence

#: by command and kind
_NO_USE: dict[tuple[str, ...], tuple[str, ...]] = {
    ("data", "text"): ("torch", "torchvision"),
    ("export", "hf"): ("torchvision", "scipy", "sklearn"),
    ("export", "peft"): ("torchvision", "scipy", "sklearn"),
}
_AGAIN = "import sys; from hesspect.__main__ import main; sys.exit(main())"


def run(main: Callable[[list[str]], int], arguments: Sequence[str]) -> int:
    """`main(arguments)`, in a process that does nothing else.

    :return: its exit code
    """
    hidden = _NO_USE.get(tuple(arguments[:2]), ())
    if not hidden or "transformers" in sys.modules or any(name in sys.modules for name in hidden):
        return main(list(arguments))
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            code = main(list(arguments))
    except (SystemExit, KeyboardInterrupt):
        sys.stderr.write(said.getvalue())
        raise
    except Exception:
        code = -1
    if code not in (0, 2):
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-c", _AGAIN, *arguments])
    sys.stderr.write("".join(line for line in said.getvalue().splitlines(keepends=True) if "PyTorch was not found" not in line))
    return code
