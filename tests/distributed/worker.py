"""A process that runs commands as one rank of several; it imports torch once for many of them.

Each line on stdin is a case: the command, the variables that torchrun would set, and what is
changed in the library meanwhile. The answer is a line on stdout: status, output, messages.
"""

import contextlib
import io
import itertools
import json
import os
import sys
import time
import warnings
from unittest import mock

from scoresde_cli import main

from scoresde.tasks import sampling

warnings.formatwarning = main._format_warning
draw = sampling.sample


def failing(at, wait):
    """`sample` that fails in its at-th call, counted from 0, or waits before each call."""
    calls = itertools.count()

    def call(*args, **settings):
        time.sleep(wait)
        if next(calls) == at:
            raise RuntimeError("eps is not finite at t=0.25")
        return draw(*args, **settings)

    return call


def answer(case):
    os.environ.update(case["environment"])
    wrapped = failing(case.get("fail_at"), case.get("wait", 0))
    patches = {"scoresde.tasks.sampling.sample": wrapped, **case.get("patches", {})}
    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as stack:
        for place, value in patches.items():
            stack.enter_context(mock.patch(place, value))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("always", UserWarning)
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        try:
            status = main.run(case["command"])
        except SystemExit as stopped:
            status = stopped.code
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
