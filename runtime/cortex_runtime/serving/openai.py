"""Whether an API has OpenAI-compatible routes. Those are in openai_routes.py, which is imported only for an API that has them."""

from starlette.types import ASGIApp

from cortex_runtime.serving.admission import Admission
from cortex_runtime.serving.handler_service import HandlerService

PREFIX = "/v1/"


def application(service: HandlerService, admission: Admission) -> ASGIApp | None:
    """Return the application for the paths below PREFIX; None for a handler without a method for them. Raises StartError."""
    if not service.handler.openai:
        return None
    from cortex_runtime.openai.errors import send_error
    from cortex_runtime.serving.openai_routes import OpenAIRoutes

    return admission.around(OpenAIRoutes(service), send_error)
