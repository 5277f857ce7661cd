"""The console logger: one short line an event, so that a person can follow a run."""

from __future__ import annotations

import logging
import sys

import dagster as dg


class _Short(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        meta = getattr(record, "dagster_meta", {})
        text = meta.get("orig_message") or record.getMessage()
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname}: {text}"
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return text


class _OwnWords(logging.Filter):
    """Dagster's own events stay in its event log; the console shows what assets and hooks say, and
    the end of a failed run. That a step failed is said by the hook, with the reason."""

    def filter(self, record: logging.LogRecord) -> bool:
        meta = getattr(record, "dagster_meta", {})
        event = meta.get("dagster_event")
        if event is None:  # what follows from a failed step is plain; its own line says why
            return not str(meta.get("orig_message")).startswith("Dependencies for step ")
        return bool(event.event_type_value == "PIPELINE_FAILURE")


@dg.logger(
    config_schema={"log_level": dg.Field(str, default_value="INFO", is_required=False)},
    description="One short line an event.",
)
def console(context: dg.InitLoggerContext) -> logging.Logger:
    """Logger of `dagster job execute` and `make demo`."""
    logger = logging.Logger("cityloom")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Short())
    handler.addFilter(_OwnWords())
    logger.addHandler(handler)
    logger.setLevel(context.logger_config["log_level"])
    return logger
