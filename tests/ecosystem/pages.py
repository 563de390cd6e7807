"""The commands in the documents that a check here runs. `tests/it/pages.rs` runs the others."""

import re

from processes import ROOT, run


def blocks(page, check):
    """The blocks of commands on this page that name this check."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(rf"^<!-- run by tests/ecosystem/{check} -->\n```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, f"{page} names no command for {check}"
    return found


def run_block(block, **options):
    """Runs a block of commands as a user's shell does."""
    return run(["bash", "-euo", "pipefail", "-c", block], **options)
