/* Shared by the scripts of the Dataset tab: icons, small texts, and a form made from the fields of a recipe. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const svg = (path) => `<svg width="15" height="15" viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.4" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">${path}</svg>`;
  const icons = {
    plus: svg('<path d="M8 3v10M3 8h10"/>'), list: svg('<path d="M3 4.5h10M3 8h10M3 11.5h10"/>'), spark: svg('<path d="M8 2.2 9.4 6.6 13.8 8 9.4 9.4 8 13.8 6.6 9.4 2.2 8l4.4-1.4z"/>'),
    edit: svg('<path d="m3 13 .6-2.8 7-7 2.2 2.2-7 7zM9.4 4.4l2.2 2.2"/>'), cross: svg('<path d="m4 4 8 8M12 4l-8 8"/>'), file: svg('<path d="M4 2.5h5l3 3v8H4zM9 2.5v3h3"/>'),
    upload: svg('<path d="M8 10.5V3m0 0L5 6m3-3 3 3M3 10.5v2.8h10v-2.8"/>'), more: svg('<circle cx="3.5" cy="8" r=".6"/><circle cx="8" cy="8" r=".6"/><circle cx="12.5" cy="8" r=".6"/>'),
  };
  const num = (n) => (n == null ? "–" : Math.round(n).toLocaleString("en"));
  const json = JSON.stringify;

  /** Title of a data method; its name where the step is not known any more. */
  const titleOf = (steps, name) => steps?.find((s) => s.name === name)?.title || String(name || "").replaceAll("_", " ");
  /** A name without the number the library put behind it: "chats-3" and its like are one family. */
  const stem = (name) => name.replace(/(-\d{1,3})+$/, "") || name;
  const total = (rows) => (typeof rows === "number" ? rows : Object.values(rows || {}).reduce((a, b) => a + b, 0));

  const WIDE = ["text", "lines", "table", "model", "dataset", "datasets", "models"];
  const picks = (spec) => (/^models?$/.test(spec.widget || "") ? "model" : /^datasets?$/.test(spec.widget || "") ? "dataset" : "");

  /** Fields of a recipe as controls. Nothing is clipped on the way: the recipe itself refuses what is wrong. */
  class Form {
    /** @param options {models, datasets: [{ref, label, detail}], skip: [field names], changed: called after an edit} */
    constructor(place, specs, values = {}, options = {}) {
      Object.assign(this, { place, options, touched: new Set(), id: `dtf${(Form.count = (Form.count || 0) + 1)}` });
      const named = specs.filter((s) => s.name === "name").map((s) => ({ ...s, placeholder: "", help: t("data.form.name") }));  // of the result: asked last
      const reads = specs.filter((s) => s.name === "dataset" && options.starts).map((s) => ({ ...s, help: t("data.form.dataset") }));
      this.specs = [...specs.filter((s) => s.name !== "name" && !(s.name === "dataset" && reads.length)), ...reads, ...named].filter((s) => s.widget !== "hidden" && !(options.skip || []).includes(s.name));
      this.hidden = Object.fromEntries(Object.entries(values).filter(([name]) => specs.some((s) => s.name === name) && !this.specs.some((s) => s.name === name)));
      const start = Object.fromEntries(this.specs.map((s) => [s.name, name_in(values, s.name) ? values[s.name] : s.default]));
      const groups = [...new Set(this.specs.map((s) => s.group))], folded = groups.filter((g) => g === "advanced");
      const grid = (group) => `<div class="dt-grid">${this.specs.filter((s) => s.group === group).map((s) => this.field(s, start[s.name])).join("")}</div>`;
      place.innerHTML = groups.filter((g) => !folded.includes(g)).map((g) => (g === "basic" || groups.length < 3 ? grid(g) : `<fieldset class="dt-group"><legend>${esc(t(`data.group.${g}`))}</legend>${grid(g)}</fieldset>`)).join("")
        + folded.map((g) => `<details class="dt-group"><summary>${esc(t("group.advanced"))}</summary>${grid(g)}</details>`).join("") + this.lists();
      place.addEventListener("input", (event) => this.edited(event));
      place.addEventListener("change", (event) => this.edited(event));
      place.addEventListener("focusout", (event) => { const name = event.target.closest?.("[data-field]")?.dataset.field; if (name) { this.touched.add(name); this.showErrors(); } });
      place.addEventListener("click", (event) => this.click(event));
      for (const spec of this.specs) if (spec.type === "dict") this.pairs(spec, start[spec.name]);
      this.when();
    }

    lists() {
      const list = (kind, items) => `<datalist id="${this.id}-${kind}">${(items || []).map((i) => `<option value="${esc(i.ref)}">${esc(i.label)}</option>`).join("")}</datalist>`;
      return list("model", this.options.models) + list("dataset", this.options.datasets);
    }

    field(spec, value) {
      const id = `${this.id}-${spec.name}`, pick = picks(spec), about = spec.help ? `<small class="dt-help" id="${id}-help">${esc(spec.help)}</small>` : "";
      const common = `id="${id}" name="${esc(spec.name)}" aria-describedby="${id}-help"${spec.placeholder ? ` placeholder="${esc(spec.placeholder)}"` : ""}`;
      const option = ([v, label]) => `<option value="${esc(v)}" ${String(v) === String(value) ? "selected" : ""}>${esc(label)}</option>`;
      let control, label = `<label for="${id}">${esc(spec.title)}${spec.unit ? ` <span class="st-muted">${esc(spec.unit)}</span>` : ""}</label>`;
      if (spec.type === "bool") return `<div class="dt-field dt-bool" data-field="${esc(spec.name)}"><label class="st-check"><input type="checkbox" ${common} ${value ? "checked" : ""}> ${esc(spec.title)}</label>${about}</div>`;
      if (spec.type === "choice") control = `<select ${common}>${spec.optional ? option(["", t("data.form.unset")]) : ""}${spec.choices.map(option).join("")}</select>`;
      else if (spec.type === "int" || spec.type === "float") control = `<input type="text" inputmode="${spec.type === "int" ? "numeric" : "decimal"}" autocomplete="off" ${common} value="${esc(value ?? "")}">`;
      else if (spec.type === "list" && spec.choices.length) {
        control = `<div class="dt-checks">${spec.choices.map(([v, l]) => `<label class="st-check"><input type="checkbox" data-item="${esc(v)}" ${(value || []).map(String).includes(String(v)) ? "checked" : ""}> ${esc(l)}</label>`).join("")}</div>`;
        label = `<span class="dt-label" id="${id}">${esc(spec.title)}</span>`;
      } else if (spec.type === "list") {
        const text = (value || []).map((v) => (typeof v === "string" ? v.replaceAll("\\", "\\\\").replaceAll("\n", "\\n") : json(v))).join("\n");
        control = `<textarea rows="${Math.min(8, Math.max(2, text.split("\n").length + 1))}" ${common}${spec.placeholder ? "" : ` placeholder="${esc(t("form.one_a_line"))}"`}>${esc(text)}</textarea>`;
        if (pick || this.listsData(spec)) control += `<select data-add="${esc(spec.name)}" aria-label="${esc(t("data.form.add_to", { name: spec.title }))}"><option value="">${esc(t("data.form.add"))}</option>${(this.options[pick === "model" ? "models" : "datasets"] || []).map((d) => `<option value="${esc(d.ref)}">${esc(d.label)}</option>`).join("")}</select>`;
      } else if (spec.type === "dict") {
        control = '<div class="dt-pairs"></div>';
        label = `<span class="dt-label">${esc(spec.title)}</span>`;
      } else if (spec.widget === "text") control = `<textarea rows="4" ${common}>${esc(value ?? "")}</textarea>`;
      else if (pick) control = `<input type="text" list="${this.id}-${pick}" autocomplete="off" spellcheck="false" ${common} value="${esc(value ?? "")}">`;
      else if (spec.choices.length) control = `<input type="text" list="${id}-list" autocomplete="off" ${common} value="${esc(value ?? "")}"><datalist id="${id}-list">${spec.choices.map(([v, l]) => `<option value="${esc(v)}">${esc(l)}</option>`).join("")}</datalist>`;
      else control = `<input type="text" autocomplete="off" ${common} value="${esc(value ?? "")}">`;
      const wide = WIDE.includes(spec.widget) || ["list", "dict"].includes(spec.type);
      return `<div class="dt-field${wide ? " dt-wide" : ""}" data-field="${esc(spec.name)}">${label}${control}${about}</div>`;
    }

    /** Lists of references that do not say so by their widget. */
    listsData(spec) { return ["against", "datasets", "others", ...(this.options.refs || [])].includes(spec.name); }

    pairs(spec, value) {
      const place = this.box(spec.name).querySelector(".dt-pairs");
      const row = (k = "", v = "") => `<div class="st-pair"><input value="${esc(k)}" placeholder="${esc(t("pairs.name"))}" aria-label="${esc(`${spec.title}: ${t("pairs.name")}`)}"><input value="${esc(typeof v === "object" && v ? json(v) : v)}" placeholder="${esc(t("pairs.value"))}" aria-label="${esc(`${spec.title}: ${t("pairs.value")}`)}"><button type="button" class="st-icon" data-unpair aria-label="${esc(t("pairs.remove"))}">×</button></div>`;
      place.innerHTML = `<div class="st-pair-rows">${Object.entries(value || {}).map(([k, v]) => row(k, v)).join("")}</div><button type="button" class="st-btn st-small" data-pair>${esc(t("pairs.add"))}</button>`;
      place.querySelector("[data-pair]").onclick = () => { place.querySelector(".st-pair-rows").insertAdjacentHTML("beforeend", row()); place.querySelector(".st-pair:last-child input").focus(); };
    }

    box(name) { return this.place.querySelector(`[data-field="${CSS.escape(name)}"]`); }

    read(spec) {
      const box = this.box(spec.name), input = box.querySelector("input, textarea, select");
      if (spec.type === "bool") return input.checked;
      if (spec.type === "list" && spec.choices.length) return [...box.querySelectorAll("[data-item]:checked")].map((i) => spec.choices.find(([v]) => String(v) === i.dataset.item)[0]);
      if (spec.type === "list") return input.value.split("\n").filter((line) => line.trim()).map((line) => this.item(spec, line));
      if (spec.type === "dict") return Object.fromEntries([...box.querySelectorAll(".st-pair")].map((row) => [...row.querySelectorAll("input")].map((i) => i.value.trim())).filter(([k]) => k));
      const text = spec.widget === "text" ? input.value : input.value.trim();
      if (spec.type === "int" || spec.type === "float") return text === "" ? (spec.optional ? null : "") : isFinite(Number(text)) ? Number(text) : text;
      if (spec.type === "choice") return text === "" && spec.optional ? null : (spec.choices.find(([v]) => String(v) === text) || [text])[0];
      return text === "" && spec.optional ? null : text;
    }

    item(spec, line) {
      if (line.trim().startsWith("{")) try { return JSON.parse(line); } catch { /* left as text, for the recipe to refuse */ }
      const text = line.trim().replace(/\\(\\|n)/g, (_, c) => (c === "n" ? "\n" : "\\"));
      return typeof (spec.default || [])[0] === "number" && isFinite(Number(text)) ? Number(text) : text;
    }

    /** What was chosen, without what is as it would be anyway. */
    values() {
      const found = { ...this.hidden };
      for (const spec of this.specs) {
        if (this.box(spec.name).hidden) continue;
        const value = this.read(spec);
        if (json(value) !== json(spec.default)) found[spec.name] = value;
      }
      return found;
    }

    set(name, value) {
      const spec = this.specs.find((s) => s.name === name), input = this.box(name)?.querySelector("input, textarea, select");
      if (!spec || !input) return;
      if (spec.type === "bool") input.checked = value; else input.value = spec.type === "list" ? value.join("\n") : value;
      this.when();
    }

    when() {
      for (const spec of this.specs) {
        const shown = Object.entries(spec.when || {}).every(([name, allowed]) => {
          const other = this.specs.find((s) => s.name === name);
          return !other || allowed.some((v) => json(v) === json(this.read(other)));
        });
        this.box(spec.name).hidden = !shown;
      }
    }

    edited(event) {
      const add = event.target.dataset.add;
      if (add) {
        if (!event.target.value) return;
        const area = this.box(add).querySelector("textarea");
        area.value = [area.value.trim(), event.target.value].filter(Boolean).join("\n");
        event.target.value = "";
      }
      this.when();
      this.options.changed?.();
    }

    click(event) {
      if (!event.target.closest("[data-unpair]")) return;
      event.target.closest(".st-pair").remove();
      this.options.changed?.();
    }

    /** Messages at their fields; what belongs to no field shown is returned. `all`: also at fields nobody touched yet. */
    showErrors(errors = this.errors || {}, all = false) {
      this.errors = errors;
      if (all) for (const spec of this.specs) this.touched.add(spec.name);
      const rest = [];
      for (const old of this.place.querySelectorAll(".st-error")) old.remove();
      for (const bad of this.place.querySelectorAll("[aria-invalid]")) bad.removeAttribute("aria-invalid");
      let first = null;
      for (const [name, message] of Object.entries(errors)) {
        const box = this.box(name);
        if (!box || box.hidden) { rest.push(message); continue; }
        if (!this.touched.has(name)) continue;
        const note = Object.assign(document.createElement("p"), { className: "st-error", textContent: message, id: `${this.id}-${name}-error` });
        note.setAttribute("role", "alert");
        box.append(note);
        box.querySelector("input, textarea, select")?.setAttribute("aria-invalid", "true");
        box.closest("details")?.setAttribute("open", "");
        first ??= box;
      }
      if (all && first) { first.scrollIntoView({ block: "center" }); first.querySelector("input, textarea, select")?.focus({ preventScroll: true }); }
      return rest;
    }
  }
  const name_in = (values, name) => values && Object.hasOwn(values, name) && values[name] !== undefined;

  studio.dataParts = { icons, num, titleOf, total, stem, Form };
  studio.dataViews = studio.dataViews || {};
})();
