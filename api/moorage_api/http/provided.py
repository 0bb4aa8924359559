"""The dependency through which a route gets a service: by its type, from the services that `wiring` has built."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import TypeVar, cast

from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

T = TypeVar("T")


class Services:
    """Holds one instance of each service, by its type."""

    def __init__(self, instances: Iterable[object]) -> None:
        self._by_type = {type(instance): instance for instance in instances}

    def get(self, kind: type[T]) -> T:
        """Raises LookupError for a type that `wiring` does not build."""
        if kind not in self._by_type:
            raise LookupError(f"`wiring` builds no {kind.__module__}.{kind.__name__}")
        return cast(T, self._by_type[kind])


class Provided:
    """The dependency that `provide` returns. `kind` is what the start-up check reads."""

    def __init__(self, kind: type[object]) -> None:
        self.kind = kind

    async def __call__(self, connection: HTTPConnection) -> object:
        return service_of(connection, self.kind)


def service_of(connection: HTTPConnection, kind: type[T]) -> T:
    """The service of the application. For what every request needs: a dependency costs the framework more time."""
    services = connection.app.state.services
    assert isinstance(services, Services)
    return services.get(kind)


@cache
def provide(kind: type[object]) -> Callable[[HTTPConnection], Awaitable[object]]:
    """Build the dependency for a service: `Annotated[FileService, Depends(provide(FileService))]`.

    One for each type, so that FastAPI asks for it once in a request.
    """
    return Provided(kind)


def check_provided(routes: Sequence[BaseRoute], services: Services) -> None:
    """Raise LookupError if a route needs a service that `wiring` does not build."""
    for route in iter_route_contexts(routes):
        dependant = getattr(route, "dependant", None)
        for kind in asked_types(dependant) if dependant is not None else ():
            services.get(kind)


def asked_types(dependant: Dependant) -> Iterator[type[object]]:
    if isinstance(dependant.call, Provided):
        yield dependant.call.kind
    for below in dependant.dependencies:
        yield from asked_types(below)
