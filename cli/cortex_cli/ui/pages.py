"""Render pages: a template for the whole page, and parts of it that are rendered again while the page is open."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cortex_cli import number_text
from cortex_cli.ui.charts import clock


@dataclass(frozen=True)
class Rows:
    """Elements of a list that are updated one by one.

    parent: id of the element around them. name: of the template and of its variable.
    """

    parent: str
    name: str
    items: Iterable[Any]


@dataclass(frozen=True)
class View:
    """A page at one moment.

    template: of the page. context: its variables. live: templates of the parts that change; each has one root element with an id.
    """

    template: str
    context: dict[str, Any]
    live: tuple[str, ...] = ()
    rows: tuple[Rows, ...] = ()
    status: int = 200


@dataclass(frozen=True)
class Fragments:
    """The parts of a page that change.

    elements: HTML by template, or by id of a row. orders: ids of the rows, by the id of their parent.
    """

    elements: dict[str, str] = field(default_factory=dict)
    orders: dict[str, list[str]] = field(default_factory=dict)


class Renderer:
    """Renders views. defaults: variables of all templates; each is called."""

    def __init__(self, defaults: dict[str, Callable[[], Any]]) -> None:
        self._environment = Environment(
            loader=PackageLoader("cortex_cli.ui"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {"text": number_text, "clock": clock}
        self._defaults = defaults

    def page(self, view: View) -> str:
        """Return the HTML of a page."""
        return self._environment.get_template(view.template).render(self._context(view))

    def fragments(self, view: View) -> Fragments:
        """Return the HTML of the parts that change."""
        context = self._context(view)
        elements = {name: self._environment.get_template(name).render(context) for name in view.live}
        orders = {}
        for rows in view.rows:
            template = self._environment.get_template(f"_{rows.name}.html")
            items = list(rows.items)
            elements |= {item.id: template.render({**context, rows.name: item}) for item in items}
            orders[rows.parent] = [item.id for item in items]
        return Fragments(elements, orders)

    def _context(self, view: View) -> dict[str, Any]:
        return {**{name: call() for name, call in self._defaults.items()}, **view.context}


@dataclass(frozen=True)
class Question:
    """What a page asks before a change. question: what the change does. command: the equivalent command.

    submit, back: URLs of the form and of the page before. refusal: why the change is not offered, or "". label: of a number that
    the reader enters, or "". hidden: further fields of the form.
    """

    title: str
    button: str
    question: str
    command: str
    submit: str
    back: str
    refusal: str = ""
    warning: str = ""
    error: str = ""
    is_dangerous: bool = False
    label: str = ""
    value: str = ""
    hidden: dict[str, str] = field(default_factory=dict)
    needs_key: bool = False


def problem(title: str, message: str, status: int = 503) -> View:
    """Return a page that explains why there is no other."""
    live = ("_status.html", "_problem.html")
    return View("problem.html", {"title": title, "message": message, "path": ""}, live, (), status)
