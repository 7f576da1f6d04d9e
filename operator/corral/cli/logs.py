"""How the processes log: structlog, as JSON for collectors or as lines for people, kopf's own lines included."""

from __future__ import annotations

import enum
import logging

import structlog


class Format(enum.StrEnum):
    """How a log line looks."""

    JSON = "json"
    CONSOLE = "console"


def configure(form: Format, *, verbose: bool) -> None:
    """Send everything that is logged to standard error, in one form."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if form is Format.JSON else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    # Kopf tells every watch and event at these levels; they are news only to who debugs kopf.
    logging.getLogger("kopf").setLevel(logging.INFO if verbose else logging.WARNING)
