"""A recipe as a form: one control per field, made from ``studio.recipe.fields``.

The mapping is plain Python and exact: ``recipe -> controls -> recipe`` is the identity (``to_control``,
``from_control``). Nothing is clipped or rounded on the way: what a person typed reaches the recipe, which refuses it
at its field.
"""

from __future__ import annotations

import math
import typing
from html import escape
from typing import Any

import gradio as gr
import yaml

from components import widgets
from components.ids import eid
from components.strings import catalogue, t
from studio import api
from studio.errors import StudioError
from studio.recipe import SCHEMA_VERSION, FieldSpec, fields, read_yaml
from studio.registry import family

GROUPS = ("basic", "method", "adapter", "model", "training", "watch", "advanced")
OPEN_GROUPS = ("basic", "method", "adapter", "model", "training")
LAST = ("name", "trust_remote_code", "extra")  # at the end of their group: optional, dangerous, or for the rest
MULTI = ("lines", "table")
FEW = 4  # methods that are shown side by side; more get a chooser


def specs_of(kind: str) -> dict[str, dict[str, FieldSpec]]:
    """method name -> field name -> field, for every method of a family."""
    return {name: {spec.name: spec for spec in fields(method.Recipe)} for name, method in family(kind).items()}


def plain_table(kind: str, method: str, name: str) -> bool:
    """Whether a table field holds only texts (``dict[str, str]``), so that ``1`` means the text "1"."""
    annotation = family(kind).get(method).Recipe.model_fields[name].annotation
    return typing.get_args(annotation)[1:] == (str,)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def _unescape(text: str) -> str:
    out, rest = [], iter(text)
    for char in rest:
        if char != "\\":
            out.append(char)
            continue
        follower = next(rest, "")
        out.append({"n": "\n", "r": "\r", "\\": "\\"}.get(follower, "\\" + follower))
    return "".join(out)


def number_text(value: float | int | None) -> str:
    """A number as short as it can be without losing a digit: ``2e-4``, ``0.05``, ``3``."""
    if value is None:
        return ""
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    text = repr(value)
    if value and (abs(value) < 1e-2 or abs(value) >= 1e6):
        digits = next(d for d in range(18) if float(f"{value:.{d}e}") == value)
        mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    return text.removesuffix(".0")


def empty_is_default(spec: FieldSpec) -> bool:
    """Whether a number's default is shown as an empty field with words in it: ``-1`` says nothing to a person."""
    return spec.type in ("int", "float") and spec.widget != "log" and bool(spec.placeholder)


def picked(spec: FieldSpec) -> bool:
    """Whether a list is picked from what there is, and not typed."""
    return spec.type == "list" and bool(spec.choices)


def foreign(spec: FieldSpec, value: Any) -> bool:
    """Whether a control still holds what only another method of the family offers."""
    known = [choice for choice, _ in spec.choices]
    if picked(spec):
        return not isinstance(value, list) or any(item not in known for item in value)
    return spec.type == "choice" and value not in known


def to_control(spec: FieldSpec, value: Any, plain: bool = False) -> Any:
    """The value a field's control shows for a recipe's value."""
    if spec.widget == "log":
        return number_text(value)
    if spec.widget == "rewards":
        return [dict(one) for one in value or [] if isinstance(one, dict)]
    if spec.widget == "merge":
        return dict(value or {})
    if spec.widget == "models":
        return [str(item) for item in value or []]
    if picked(spec):
        return list(value or [])
    if spec.type == "list":
        return "\n".join(_escape(str(item)) for item in value or [])
    if spec.type == "dict":
        return [[_escape(str(k)), _escape(str(v)) if plain else _scalar(v)] for k, v in (value or {}).items()]
    # A draft of an older studio may hold what this control cannot show; the page must open all the same.
    if spec.type in ("int", "float"):
        shown = isinstance(value, (int, float)) and not isinstance(value, bool)
        if empty_is_default(spec):
            return "" if not shown or value == spec.default else number_text(value)
        return value if shown else None
    if spec.type == "choice":
        return value if value in [choice for choice, _ in spec.choices] else spec.default
    return value


def from_control(spec: FieldSpec, value: Any, plain: bool = False) -> Any:
    """The recipe's value for what a control holds. Text that is no number stays text, for the recipe to refuse."""
    if spec.type in ("int", "float"):
        return _number(spec, value)
    if spec.widget in ("rewards", "models") or picked(spec):
        return value or []
    if spec.widget == "merge":
        return value or {}
    if spec.type == "list":
        lines = [_unescape(line) for line in str(value or "").split("\n") if line.strip()]
        return [_value(line) if isinstance(_value(line), int) else line for line in lines] if _counts(spec) else lines
    if spec.type == "dict":
        pairs = [(str(k), v) for k, v in value or [] if str(k).strip() or str(v or "").strip()]
        return {_unescape(k): _unescape(str(v or "")) if plain else _value(v) for k, v in pairs}
    if spec.type == "bool":
        return bool(value)
    if spec.type == "str" and not spec.optional:
        return "" if value is None else value
    return None if value in ("", None) and spec.optional else value


def _counts(spec: FieldSpec) -> bool:
    """Whether a list holds whole numbers, so that a line ``8`` means the number."""
    return bool(spec.default) and all(isinstance(one, int) and not isinstance(one, bool) for one in spec.default)


def _number(spec: FieldSpec, value: Any) -> Any:
    if value is None or value == "":
        return spec.default if empty_is_default(spec) else None if spec.optional else ""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    if isinstance(value, float) and value.is_integer() and spec.type == "int":
        return int(value)
    return value


def _scalar(value: Any) -> str:
    text = yaml.dump(value, Dumper=_Quoting, default_flow_style=True, allow_unicode=True, width=math.inf).strip("\n ")
    return text.removesuffix("...").strip("\n ")  # no more than these: a value may be a space of another kind


class _Quoting(yaml.SafeDumper):
    """Quotes what yaml would write bare although a recipe reads it as something else than a text, e.g. ``0E0``."""


_Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text,
                                                                           style=None if _value(text) == text else '"'))


def _value(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return read_yaml(text)
    except StudioError:
        return text


def values_of(kind: str, method: str, controls: dict[str, Any]) -> dict[str, Any]:
    """Plain recipe values from what the controls hold."""
    specs = specs_of(kind)[method]
    head = {"schema_version": SCHEMA_VERSION, "kind": kind, "method": method}
    return head | {name: from_control(spec, controls[name], spec.type == "dict" and plain_table(kind, method, name))
                   for name, spec in specs.items() if name in controls}


def controls_of(kind: str, method: str, values: dict[str, Any]) -> dict[str, Any]:
    """What the controls show for plain recipe values; fields not given show their default."""
    specs = specs_of(kind)[method]
    return {name: to_control(spec, values.get(name, spec.default),
                             spec.type == "dict" and plain_table(kind, method, name))
            for name, spec in specs.items()}


def visible(spec: FieldSpec, values: dict[str, Any]) -> bool:
    """Whether a field's ``when`` holds."""
    return spec.widget != "hidden" and all(values.get(name) in wanted for name, wanted in spec.when.items())


class Form:
    """The controls of one family of methods on one tab.

    Attributes:
        kind: Family, e.g. ``sft``.
        controls: field name -> component, over all methods of the family.
        method: The component that picks the method.
        upload: The button beside the dataset, if there is one.
    """

    def __init__(self, tab: str, kind: str):
        self.tab, self.kind = tab, kind
        self.specs = specs_of(kind)
        self.first = next(iter(self.specs))
        self.controls: dict[str, Any] = {}
        self.method: Any = None
        self.upload: Any = None
        self.all: dict[str, FieldSpec] = {}
        for group in self.specs.values():
            for name, spec in group.items():
                self.all.setdefault(name, spec)
        self.looks = _looks(self.specs)
        self.drivers = sorted({driver for group in self.specs.values() for spec in group.values()
                               for driver in spec.when})

    def build_method(self) -> None:
        """The switch between the methods of the family: side by side, or behind the chooser of ``methods.js``."""
        methods = api.methods(self.kind)
        chooser = len(methods) > FEW or any(method["group"] for method in methods)
        self.method = gr.Radio([(method["title"], method["name"]) for method in methods], value=self.first,
                               label=t("form.method"), elem_id=eid(self.tab, "method"),
                               elem_classes=["st-segments", "st-behind"] if chooser else ["st-segments"])
        if chooser:
            widgets.mounted("methods", eid(self.tab, "methods"), tab=self.tab, kind=self.kind)

    def build_sections(self) -> None:
        """All controls, a card per group."""
        for group in GROUPS:
            names = [name for name, spec in self.all.items() if spec.group == group and spec.widget != "hidden"]
            names.sort(key=lambda name: LAST.index(name) + 1 if name in LAST else 0)
            if names:
                self._section(group, names)

    def _section(self, group: str, names: list[str]) -> None:
        closed = "" if group in OPEN_GROUPS else " st-starts-closed"
        with gr.Column(elem_classes=["st-card", "st-section" + closed], elem_id=eid(self.tab, f"group-{group}")):
            gr.HTML('<button type="button" class="st-section-head" data-st-toggle '
                    f'aria-expanded="{str(not closed).lower()}">'
                    f'<span class="st-chevron" aria-hidden="true"></span><span>{self._words(group)}</span>'
                    f'<small>{self._words(group, ".about")}</small></button>', js_on_load="", apply_default_css=False)
            with gr.Row(elem_classes=["st-grid"]):
                for name in names:
                    self.controls[name] = self._control(self.all[name], name in self.specs[self.first])
                    if name in ("model", "dataset"):
                        gr.HTML(f'<button type="button" class="st-link" data-st-hub="{name}" '
                                f'data-st-tab="{self.tab}">{t("hub.open")}</button>',
                                js_on_load="", apply_default_css=False, elem_id=eid(self.tab, f"hub-{name}"),
                                elem_classes=["st-hub-link", f"st-hub-{name}"])
                    if name == "dataset":
                        self.upload = gr.UploadButton(t("form.upload"), file_types=["file"], size="sm",
                                                      elem_id=eid(self.tab, "upload"), elem_classes=["st-upload"])

    def _words(self, group: str, part: str = "") -> str:
        """Heading of a group: the family's own, or that of all."""
        own = f"group.{self.kind}.{group}{part}"
        return t(own if own in catalogue() else f"group.{group}{part}")

    def _control(self, spec: FieldSpec, shown: bool) -> Any:
        title = _title(spec)
        common = {"label": title, "elem_id": eid(self.tab, spec.name.lower()),
                  "visible": shown and visible(spec, {n: s.default for n, s in self.specs[self.first].items()})}
        info = spec.help or None
        value = to_control(spec, spec.default)
        classes = ["st-field", f"st-field-{spec.widget or spec.type}"]
        if spec.widget == "merge":
            facts = f'data-tab="{self.tab}" data-title="{escape(title)}" data-help="{escape(spec.help)}"'
            return gr.HTML(value, html_template=f'<div class="st-mount mg" {facts}></div>', elem_classes=classes,
                           js_on_load="studio.mount('merge', {element, props, watch, trigger})",
                           apply_default_css=False, **{k: v for k, v in common.items() if k != "label"})
        if spec.type == "dict":
            return gr.HTML(value, html_template='<div class="st-pairs" data-st-keep></div>', elem_classes=classes,
                           js_on_load="studio.mount('pairs', {element, props, watch, trigger})",
                           apply_default_css=False, title=title, help=spec.help, field=spec.name, kind=self.kind,
                           names=self._names(spec.name),
                           **{k: v for k, v in common.items() if k != "label"})
        if spec.widget == "rewards":
            # In the template and not as properties: an element that is hidden at first loses those.
            facts = f'data-tab="{self.tab}" data-title="{escape(title)}" data-help="{escape(spec.help)}"'
            return gr.HTML(value, html_template=f'<div class="st-mount rw" {facts}></div>', elem_classes=classes,
                           js_on_load="studio.mount('rewards', {element, props, watch, trigger})",
                           apply_default_css=False, **{k: v for k, v in common.items() if k != "label"})
        if spec.widget == "models":
            facts = (f'data-tab="{self.tab}" data-name="{spec.name}" data-title="{escape(title)}" '
                     f'data-help="{escape(spec.help)}"')
            return gr.HTML(value, html_template=f'<div class="st-mount mg ml" {facts}></div>', elem_classes=classes,
                           js_on_load="studio.mount('models', {element, props, watch, trigger})",
                           apply_default_css=False, **{k: v for k, v in common.items() if k != "label"})
        if picked(spec):
            facts = f'data-tab="{self.tab}" data-name="{escape(spec.name)}"'
            return gr.HTML(value, html_template=f'<div class="st-mount qz-types" {facts}></div>',
                           elem_classes=[*classes, "st-field-picks"],
                           js_on_load="studio.mount('picks', {element, props, watch, trigger})",
                           apply_default_css=False, **{k: v for k, v in common.items() if k != "label"})
        common |= {"info": info, "elem_classes": classes}
        if spec.type == "bool":
            return gr.Checkbox(value, container=True, **common)
        if spec.widget in ("model", "dataset"):
            return gr.Dropdown([(str(value), value)] if value else [], value=value or None, allow_custom_value=True,
                               filterable=True, **common)
        if spec.type == "list":
            return gr.Textbox(value, lines=3, max_lines=10, placeholder=spec.placeholder or t("form.one_a_line"),
                              **common)
        if spec.type == "choice" or spec.choices:
            pairs = [(text, choice) for choice, text in spec.choices]
            # Where methods offer other choices, a change on its way may still hold the old method's: gradio would refuse
            # the whole form for it, the recipe refuses it at its field.
            free = spec.type != "choice" or spec.name in self.looks
            return gr.Dropdown(pairs, value=value, allow_custom_value=free, **common)
        if spec.widget == "log":
            return gr.Textbox(value, lines=1, max_lines=1, placeholder=spec.placeholder or "2e-4", **common)
        if spec.type in ("int", "float"):
            if empty_is_default(spec):  # a gr.Number that is emptied by an update shows 0
                return gr.Textbox(value, lines=1, max_lines=1, placeholder=spec.placeholder, **common)
            return gr.Number(value, step=1 if spec.type == "int" else _step(spec), **common)
        lines = 3 if spec.widget == "text" else 1
        return gr.Textbox(value, lines=lines, max_lines=12 if lines > 1 else 1, placeholder=spec.placeholder or None,
                          **common)

    def _names(self, field: str) -> list[list[str]]:
        """What a table's first column may hold, with a help each, to pick from."""
        if field != "extra":
            return []
        return [[name, entry["help"]] for name, entry in api.extra_fields(self.kind, self.first).items()]

    @property
    def inputs(self) -> list[Any]:
        """The method switch, then every control, in a fixed order."""
        return [self.method, *self.controls.values()]

    def values(self, method: str, *held: Any) -> dict[str, Any]:
        """Plain recipe values from what ``inputs`` hold."""
        if method not in self.specs:
            raise StudioError(t("form.no_method"), t("form.pick_method"), "method")
        made = values_of(self.kind, method, dict(zip(self.controls, held, strict=True)))
        for name, spec in self.specs[method].items():  # while the method changes, a control still offers another's choices
            if name in made and foreign(spec, made[name]):
                made[name] = spec.default
        return made

    def updates(self, values: dict[str, Any]) -> list[Any]:
        """Updates for ``inputs`` that show plain recipe values, each control's visibility included."""
        method = values.get("method")
        method = method if method in self.specs else self.first
        shown = controls_of(self.kind, method, values)
        full = {name: values.get(name, spec.default) for name, spec in self.specs[method].items()}
        made: list[Any] = [method]
        for name in self.controls:
            spec = self.specs[method].get(name)
            made.append(gr.update(visible=False) if spec is None
                        else gr.update(value=shown[name], visible=visible(spec, full), **self._look(method, name)))
        return made

    def switched(self, method: str, *held: Any) -> list[Any]:
        """Updates for the controls after the method changed: its own fields, its defaults where nothing was typed."""
        now = dict(zip(self.controls, held, strict=True))
        others = [specs for name, specs in self.specs.items() if name != method]
        values: dict[str, Any] = {}
        for name, spec in self.specs[method].items():
            typed = from_control(spec, now.get(name), spec.type == "dict" and plain_table(self.kind, method, name))
            untouched = any(name in specs and typed == specs[name].default for specs in others)
            values[name] = spec.default if untouched or foreign(spec, typed) or name not in now else typed
        made = []
        for name in self.controls:
            spec = self.specs[method].get(name)
            if spec is None:
                made.append(gr.update(visible=False))
            elif values[name] == spec.default:
                made.append(gr.update(value=to_control(spec, spec.default), visible=visible(spec, values),
                                      **self._look(method, name)))
            else:
                made.append(gr.update(visible=visible(spec, values), **self._look(method, name)))
        return made

    def _look(self, method: str, name: str) -> dict[str, Any]:
        return self.looks.get(name, {}).get(method, {})

    def shown_when(self, method: str, *held: Any) -> list[Any]:
        """Visibility updates for fields that depend on others."""
        values = self.values(method, *held)
        return [gr.update(visible=name in self.specs[method] and visible(self.specs[method][name], values))
                for name in self.dependents]

    @property
    def dependents(self) -> list[str]:
        return [name for name, spec in self.all.items() if spec.when and name in self.controls]


def _title(spec: FieldSpec) -> str:
    return spec.title + (f" ({spec.unit})" if spec.unit else "")


def _looks(specs: dict[str, dict[str, FieldSpec]]) -> dict[str, dict[str, dict[str, Any]]]:
    """field -> method -> what its control says there, where methods explain or offer one field differently."""
    of: dict[str, dict[str, FieldSpec]] = {}
    for method, group in specs.items():
        for name, spec in group.items():
            of.setdefault(name, {})[method] = spec
    made: dict[str, dict[str, dict[str, Any]]] = {}
    for name, by_method in of.items():
        if any(picked(spec) for spec in by_method.values()):
            continue  # its script asks for the words of the chosen method
        if len({(_title(s), s.help, s.placeholder, str(s.choices), s.type) for s in by_method.values()}) == 1:
            continue
        for method, spec in by_method.items():
            look = {"label": _title(spec), "info": spec.help}
            if any(one.choices for one in by_method.values()):
                look["choices"] = [(text, choice) for choice, text in spec.choices]
            made.setdefault(name, {})[method] = look
    return made


def _step(spec: FieldSpec) -> float:
    top = spec.bounds.get("le", spec.bounds.get("lt", 100))
    return 0.01 if top <= 1 else 0.1 if top <= 10 else 1
