"""A process that helps a run with a stage of many independent pieces: `python -m assets.member CITY
ASSET FINGERPRINT DATA_ROOT` opens the stage as the run has, does what nobody has claimed, and ends
(see `resources.crew`)."""

from __future__ import annotations

import sys

from assets import captions, descriptions, methods  # noqa: F401 (fill the registry of stages)
from assets.stage import STAGES, open_stage
from model_code.city import Cities
from model_code.errors import CityloomError
from model_code.fingerprint import digest
from resources.crew import Crew, end_with_parent
from resources.lake import Lake


def main(city: str, asset: str, fingerprint: str, root: str) -> None:
    """Do a share of the stage's work.

    Raises:
        CityloomError: the stage would make something else now than when the run began.
    """

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    opened = open_stage(STAGES[asset], Cities.load()[city], Lake(), root)
    if digest(opened.depends_on()) != fingerprint:
        raise CityloomError(
            f"{asset} of {city!r} has changed since the run began", fix="start the run again"
        )
    opened.declared.body(opened.context(fingerprint, Crew(None, say), say, say))


if __name__ == "__main__":
    end_with_parent()
    main(*sys.argv[1:])
