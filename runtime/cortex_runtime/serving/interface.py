"""The interface of a replica, which the operator compares between stable version and candidate."""

from typing import Any

from cortex_runtime.serving.handler_routes import HandlerRoutes
from cortex_runtime.serving.handler_service import HandlerService


def describe(service: HandlerService, routes: HandlerRoutes) -> dict[str, Any]:
    """Return routes, protocols and models. May load models, so it must not run on the event loop.

    The inputs and outputs of a model that cannot be loaded are missing.
    """
    found = [(path, verb) for path, resource in routes.resources.items() for verb in resource.endpoints]
    found += [(each.route.path, each.route.verb) for each in (*routes.websockets, *routes.mounted)]
    found += [(path, "POST") for path in service.handler.openai]
    return {
        "routes": [{"path": path, "method": verb} for path, verb in sorted(found)],
        "protocols": _protocols(service),
        "models": {} if service.inference is None else service.inference.service.signatures(),
    }


def _protocols(service: HandlerService) -> list[str]:
    """Return "v2" for the Open Inference Protocol, and the names of spec.handler.protocols that are set."""
    spec = service.handler.document.realtime_spec.handler.protocols
    names = [] if service.inference is None else ["v2"]
    if spec is not None:
        names += [name for name, value in vars(spec).items() if value and not name.startswith("_")]
    return sorted(names)
