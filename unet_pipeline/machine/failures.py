"""Failed jobs as Snakemake tells of them: in one message, the job's own, without the command line around it."""

from __future__ import annotations

import logging
import re

COMMAND = re.compile(r"RuleException:\nCalledProcessError .*returned non-zero exit status (\d+)\.", re.DOTALL)

TOLD, KILLED = 1, 128 + 9
"""Exit statuses of a shell: of a verb that said what is wrong (`__main__.main`), and of what SIGKILL ended."""


def briefly(record: logging.LogRecord) -> bool:
    """Shorten what Snakemake logs of a failed job, as a filter of its logger; return whether anything is left to tell.

    Left are the rule, its files and its log and, where the job could not say what is wrong, how it ended.
    """
    event = getattr(getattr(record, "event", None), "name", "")
    if event == "JOB_ERROR":
        record.shellcmd = record.msg = ""  # the message is that of the rule, which has none
    elif event == "ERROR" and (found := COMMAND.match(record.getMessage())):
        status = int(found[1])
        record.msg = f"The command of the job ended with exit status {status}" + (
            ": it was killed, most often because memory ran out." if status == KILLED else "."
        )
        return status != TOLD
    return True
