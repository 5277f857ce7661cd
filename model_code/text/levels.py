"""A description of a region in three levels (LMEMR, section 3.2): what the land is and does, how busy
it is, and when people leave."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_code.hours import HOURS


class Levels(BaseModel):
    """The three levels of one modality of one region."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    land: str = Field(min_length=1, description="what the land is used for and what stands there")
    activity: float = Field(ge=0, le=100, description="how busy it is, from 0 to 100")
    departures: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        min_length=HOURS,
        max_length=HOURS,
        description="how strongly people leave in each hour of the day from midnight, from 0 to 1",
    )


def parse(text: str) -> tuple[Levels | None, str]:
    """The levels that a JSON text holds, or None and why it holds none."""
    try:
        return Levels.model_validate_json(text), ""
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return None, f"{where}: {first['msg']}" if where else first["msg"]


def schema() -> str:
    """The JSON schema of an answer, for models that can be held to one. These write the keys in its order,
    which is that of the levels: each rests on the one before."""
    return json.dumps(Levels.model_json_schema())


def strict_schema() -> dict[str, Any]:
    """The schema in the words that servers know in strict mode, where the length of a text is none;
    `parse` checks it all the same."""
    found: dict[str, Any] = json.loads(schema())
    found["properties"]["land"].pop("minLength")
    return found


def as_text(levels: Levels) -> str:
    """The levels as the sentences that a text encoder reads."""
    departures = " ".join(f"{share:.2f}" for share in levels.departures)
    return (
        f"{levels.land.strip()} Activity: {levels.activity:g} of 100. "
        f"Departures by hour from midnight: {departures}."
    )
